// The gated activation of the MLP (Shazeer 2020), and its gradient.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "device/tensor.h"
#include "ops/activation/activation_kind.h"

namespace mica {

// By the names that config.json has for them: "silu" ("swish"), "gelu_pytorch_tanh" ("gelu_new").
std::optional<Activation> FindActivation(std::string_view name);
// "silu and gelu_pytorch_tanh".
std::string ActivationNames();

// out[t, i] = f(gate[t, i]) up[t, i], rounded to the type of out. gate, up: [tokens, n] FP32; out: [tokens, n]
// FP32 or BF16.
void Gated(Activation activation, ConstTensor gate, ConstTensor up, Tensor out);

// What the loss feels of gate and up when it feels out_gradient of the result. All [tokens, n] FP32;
// gate_gradient and up_gradient may be gate and up.
void GatedGradient(Activation activation, ConstTensor gate, ConstTensor up, ConstTensor out_gradient,
                   Tensor gate_gradient, Tensor up_gradient);

}  // namespace mica
