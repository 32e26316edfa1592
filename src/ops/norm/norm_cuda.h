// The norm of one row, for kernels that begin with it; included by *_cuda.cu only.
#pragma once

#include <cstddef>

#include "device/cuda_kernel.h"

namespace mica::cuda {

// Of a block that computes one.
inline constexpr int kNormThreads = 256;

// 1 / sqrt(mean of squares + epsilon), in all threads of a block of kNormThreads; summed in a fixed order.
__device__ inline float NormFactor(const float* row, size_t cols, float epsilon) {
  float squares = 0;
#pragma unroll 8
  for (size_t c = threadIdx.x; c < cols; c += kNormThreads) squares += row[c] * row[c];
  return 1.0f / sqrtf(BlockSum<kNormThreads>(squares) / static_cast<float>(cols) + epsilon);
}
__device__ inline float NormedValue(float x, float factor, float weight) {
  return __fmul_rn(__fmul_rn(x, factor), weight);
}

}  // namespace mica::cuda
