// Products of FP32 and BF16 matrices on a CUDA device; included by *_cuda.cu only.
#pragma once

#include <cstddef>

#include "device/tensor.h"
#include "ops/linalg/linalg.h"

namespace mica::cuda {

// What all products of FP32 matrices here are taken with.
inline constexpr ProductPrecision kProductPrecision = ProductPrecision::kFp32;

// How many products, and how far apart their matrices are, in values.
struct Batch {
  size_t count = 1, a_step = 0, b_step = 0, c_step = 0;
};

// c = beta * c + alpha * op(a) op(b), as Gemm; of each of a batch, whose first matrices a, b and c are. All
// FP32 on one device. c does not overlap a or b; the matrices c of a batch do not overlap. With beta 0, c is
// written without being read. The same call gives the same bytes.
void Product(bool transpose_a, bool transpose_b, float alpha, ConstTensor a, ConstTensor b, float beta,
             Tensor c, const Batch& batch = {}, ProductPrecision precision = kProductPrecision);

// c [m, n] = beta * c + a op(b), row-major; a and b BF16, exact products, or FP32, whose 11 highest bits
// count; on tensor cores, which cut FP32 sums off. With beta 0, c, FP32, is written without being read. c
// does not overlap a or b.
void TensorCoreProduct(bool transpose_b, ConstTensor a, ConstTensor b, float beta, Tensor c, float alpha = 1);

// sum = beta * sum + a^T b: a [tokens, m] and b [tokens, n] BF16, exact products, FP32 sums which the tensor
// cores cut off; sum [m, n] FP32. Without tokens nothing is done.
void ProductOfColumns(ConstTensor a, ConstTensor b, float beta, Tensor sum);

}  // namespace mica::cuda
