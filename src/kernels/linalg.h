// Dense FP32/FP64 linear algebra through OpenBLAS and LAPACK, deterministic in the number of threads.
#pragma once

#include <cstddef>

#include "base/matrix.h"

namespace mica {

// c[m, n] = beta * c + alpha * op(a) op(b), FP32, row-major. Cut into fixed tiles over the threads.
void Gemm(bool transpose_a, bool transpose_b, float alpha, MatrixView<const float> a, MatrixView<const float> b, float beta,
          MatrixView<float> c);

// a <- lower Cholesky factor L (a = L L^T), upper triangle zeroed; false when a is not positive definite (a is then undefined).
bool CholeskyLower(MatrixView<float> a);
bool CholeskyLower(MatrixView<double> a);

// a <- upper factor U of the inverse: a^-1 = U^T U, the factor that the column-by-column feedback uses (row j of U times the error of
// column j updates columns j..). False when a is not positive definite.
bool CholeskyOfInverseUpper(MatrixView<float> a);

// a <- a^-1 for symmetric positive definite a (both triangles filled); false when it is not.
bool InvertPositiveDefinite(MatrixView<float> a);

}  // namespace mica
