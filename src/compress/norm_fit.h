// The weights of a norm, fitted anew once the matrices behind it are stored: one factor for each channel, and
// no bit of the compressed matrices.
#pragma once

#include <cstddef>
#include <vector>

#include "base/matrix.h"

namespace mica {

// With x the normed inputs, W the matrices that should stand behind the norm and Q those that are stored, the
// factors s minimise
//
//     sum over matrices of E[(W x - Q (s o x))^T F (W x - Q (s o x))]
//
// F the diagonal of the outputs' Fisher information and o the product by channel. That is a linear system in
// as many unknowns as there are channels: with C = sum Q^T F Q and A = C o H,
//
//     A (s - 1) = r        r_j = sum over matrices of (Q^T F (W - Q) H)_jj
//
// Memory: 4 bytes x cols^2 besides one block of rows.
class NormFit {
 public:
  explicit NormFit(size_t cols);

  // One matrix that takes the normed inputs. w, stored: [rows, cols]; fisher: [rows]; h: E[x x^T], [cols,
  // cols], the same for every matrix.
  void Add(MatrixView<const float> w, MatrixView<const float> stored, const std::vector<double>& fisher,
           MatrixView<const float> h);

  // s, [cols], with `damping` times the mean diagonal of A added to A; doubled until A is positive definite.
  // A channel that no matrix uses keeps 1.
  std::vector<float> Factors(MatrixView<const float> h, double damping) const;

 private:
  Matrix<float> curvature_;       // C
  std::vector<double> residual_;  // r
};

}  // namespace mica
