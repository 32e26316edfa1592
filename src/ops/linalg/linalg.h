// Dense FP32/FP64 linear algebra. On the processor through OpenBLAS and LAPACK, deterministic in the number
// of threads: every operation is cut into fixed tiles, each computed by one thread with the library held to
// one thread. On a CUDA device through cuBLAS and cuSOLVER, products as GemmAt says. Tensors are FP32,
// those of a call on one device; matrices and views of them become tensors of the processor.
#pragma once

#include <cstddef>

#include "base/matrix.h"
#include "device/tensor.h"

namespace mica {

// c[m, n] = beta * c + alpha * op(a) op(b), row-major; op transposes when asked. With beta 0, c is written
// without being read. c must not overlap a or b. May be called inside ParallelFor (it then runs on the
// calling thread).
void Gemm(bool transpose_a, bool transpose_b, float alpha, ConstTensor a, ConstTensor b, float beta,
          Tensor c);

// How a CUDA device multiplies FP32 matrices.
enum class ProductPrecision {
  kFp32,    // FP32 operands and sums: relative error of sums about 1e-6; what the functions here do
  k3xTf32,  // each operand as the sum of two of 11 bits, three products on tensor cores: about 1e-5, in half
            // the time
};
// Gemm at a precision; on the processor it is FP32 always.
void GemmAt(ProductPrecision precision, bool transpose_a, bool transpose_b, float alpha, ConstTensor a,
            ConstTensor b, float beta, Tensor c);

// a [n, n] <- lower Cholesky factor L (a = L L^T), upper triangle zeroed; reads the lower triangle only.
// False when a is not positive definite or holds NaN or infinity (a is then undefined).
bool CholeskyLower(Tensor a);
bool CholeskyLowerFp64(MatrixView<double> a);

// l [n, n] <- l^-1 for lower triangular l with a diagonal free of zeros; its upper triangle must be zero and
// stays so.
void InvertLowerTriangle(Tensor l);

// a [n, n], symmetric with both triangles filled <- upper factor U of the inverse: a^-1 = U^T U, the factor
// that the column-by-column feedback uses (row j of U times the error of column j updates columns j..); lower
// triangle zeroed. [a^-1]_jj is the squared norm of column j of U, and 1 / U_jj^2 is the variance of channel
// j given channels j + 1 .. n - 1. False when a is not positive definite or not finite (a is then undefined).
// The inverse is never formed: with J the reversal of rows and columns, J a J = L L^T gives U = J L^-1 J, 2/3
// n^3 operations.
bool CholeskyOfInverseUpper(Tensor a);

// Products of many rows with one matrix, slab_rows rows at a time: each slab is multiplied by itself, so that
// a row has the same bits whatever slabs are there beside its own, and several ranks may have some of them
// each. On a CUDA device operands are the sum of a high part of 11 bits and a low one, as
// split_product_cuda.h has them, for tensor cores: relative error of sums about 1e-5.
//
// c [m, n] += a [m, k] b [k, n]; c overlaps neither. Memory on a CUDA device: 8 bytes x 2048 (m + n).
void AddProductBySlabs(ConstTensor a, ConstTensor b, size_t slab_rows, Tensor c);
// x [m, n] <- x u, or x u^T when asked; u [n, n] upper triangular, what is below its diagonal is not read. m
// n^2 operations. Memory on a CUDA device: 8 bytes x m n, and 4 bytes x 2048 m.
void MultiplyByUpper(bool transpose, ConstTensor u, size_t slab_rows, Tensor x);

}  // namespace mica
