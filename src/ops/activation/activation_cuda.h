// The activation of one value, for kernels that end in it; included by *_cuda.cu only.
#pragma once

namespace mica::cuda {

__device__ inline float Swiglu(float gate, float up) { return gate / (1.0f + expf(-gate)) * up; }

}  // namespace mica::cuda
