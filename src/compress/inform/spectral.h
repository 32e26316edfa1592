// Leading eigenvectors of a normalised affinity.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/matrix.h"
#include "device/tensor.h"

namespace mica {

// Eigenvectors of the `count` largest eigenvalues of D^-1/2 A D^-1/2, A the affinity with its diagonal taken
// as 0 and D its row sums; the columns of the result [n, count], by falling eigenvalue. Channels without
// affinity have zero rows. Up to 256 channels by a dense solver, above by Lanczos with implicit restarts
// (Spectra) to a relative residual of 1e-5, matrix-free: each product reads the affinity once, where it lies
// (ops/census/pairs.h), and does not depend on the number of threads. Fewer columns come back where not all
// converge in 300 restarts. affinity: [n, n] symmetric, >= 0, on any device; 1 <= count <= n.
Matrix<float> LeadingEigenvectors(ConstTensor affinity, size_t count, uint64_t seed);

}  // namespace mica
