// The gated activation of the MLP (SwiGLU, Shazeer 2020), and its gradient.
#pragma once

#include "device/tensor.h"

namespace mica {

// out[t, i] = gate[t, i] / (1 + exp(-gate[t, i])) * up[t, i], rounded to the type of out. gate, up: [tokens,
// n] FP32; out: [tokens, n] FP32 or BF16.
void Swiglu(ConstTensor gate, ConstTensor up, Tensor out);

// What the loss feels of gate and up when it feels out_gradient of the result. All [tokens, n] FP32;
// gate_gradient and up_gradient may be gate and up.
void SwigluGradient(ConstTensor gate, ConstTensor up, ConstTensor out_gradient, Tensor gate_gradient,
                    Tensor up_gradient);

}  // namespace mica
