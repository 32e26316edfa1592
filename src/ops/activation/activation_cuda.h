// The activation of one value, for kernels that end in it; included by *_cuda.cu only.
#pragma once

#include "ops/activation/activation.h"

namespace mica::cuda {

// sqrt(2 / pi) twice over, and the cube's share, of the tanh form of GELU.
inline constexpr float kGeluScale = 1.5957691216057308f, kGeluCube = 0.044715f;

// What the sigmoid is taken of.
__device__ inline float GateArgument(Activation activation, float gate) {
  return activation == Activation::kSilu ? gate : kGeluScale * (gate + kGeluCube * gate * gate * gate);
}
__device__ inline float GateSlope(Activation activation, float gate) {
  return activation == Activation::kSilu ? 1.0f : kGeluScale * (1.0f + 3.0f * kGeluCube * gate * gate);
}

__device__ inline float GatedValue(Activation activation, float gate, float up) {
  return gate / (1.0f + expf(-GateArgument(activation, gate))) * up;
}

}  // namespace mica::cuda
