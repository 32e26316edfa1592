// Matrices brought into another order and scale, and small facts about them: what stands around the products
// and factorisations of linalg.h. All values FP32; all tensors of a call on one device, vectors on the host.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "device/tensor.h"

namespace mica {

// Turns a by 180 degrees: reverses the order of rows and of columns.
void Reverse(Tensor a);

// out[i, j] = h[order[i], order[j]] scale[i] scale[j], on the diagonal times 1 + share (in FP64, rounded
// once); rows and columns whose scale is 0 are 0 but for `at_zero` on the diagonal. h, out: [n, n], not
// overlapping; order, scale: [n].
void ArrangeSymmetric(ConstTensor h, const std::vector<uint32_t>& order, const std::vector<float>& scale,
                      double share, float at_zero, Tensor out);

// out[r, p] = x[r, order[p]]. x, out: [rows, n], not overlapping.
void GatherColumns(ConstTensor x, const std::vector<uint32_t>& order, Tensor out);

// out[r] = table[ids[r]]. table: [any, cols], on the device of out and of its type, of 32 or 16 bits; ids: one a row of
// out, each a row of the table.
void GatherRows(ConstTensor table, std::span<const int32_t> ids, Tensor out);

// u[i, j] *= factors[j] for j >= i. u: [n, n].
void ScaleUpperColumns(const std::vector<float>& factors, Tensor u);

// out = factor * in; they may be the same.
void ScaleValues(float factor, ConstTensor in, Tensor out);

// x = base + factor * x. [rows, cols] both.
void ScaleAndAdd(ConstTensor base, float factor, Tensor x);

// The diagonal of a [n, n].
std::vector<float> DiagonalOf(ConstTensor a);

// [n] squared norms of the columns of u [n, n], zero below its diagonal, in FP64.
std::vector<double> UpperColumnSquares(ConstTensor u);

// Throws Error naming `what` and the place of a value that is NaN or infinite: the first of its row, on a
// CUDA device of the matrix. Waits for the values.
void CheckTensorFinite(ConstTensor values, std::string_view what);
// What base/finite.h calls so for matrices.
template <typename Byte>
void CheckFinite(const BasicTensor<Byte>& values, std::string_view what) {
  CheckTensorFinite(values, what);
}

// The index of the first value that is NaN or infinite, row by row; rows * cols where there is none. FP32,
// BF16 or F16, on a CUDA device only; waits for the values.
uint64_t FirstNotFiniteOn(ConstTensor values);

}  // namespace mica
