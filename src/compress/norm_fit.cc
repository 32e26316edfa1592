#include "compress/norm_fit.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/linalg.h"

namespace mica {
namespace {

constexpr size_t kRows = 1024;  // of a matrix that are worked on at a time

}  // namespace

NormFit::NormFit(size_t cols) : curvature_(cols, cols, 0.0f), residual_(cols, 0.0) {}

void NormFit::Add(MatrixView<const float> w, MatrixView<const float> stored,
                  const std::vector<double>& fisher, MatrixView<const float> h) {
  const size_t cols = curvature_.cols();
  MICA_CHECK(w.cols == cols && stored.cols == cols && h.cols == cols && h.rows == cols);
  MICA_CHECK(w.rows == stored.rows && fisher.size() == w.rows);
  const size_t block = std::min(kRows, w.rows);
  Matrix<float> weighted(block, cols), error(block, cols), moved(block, cols);
  for (size_t first = 0; first < w.rows; first += block) {
    const size_t rows = std::min(block, w.rows - first);
    ParallelFor(rows, [&](size_t r) {
      const auto f = static_cast<float>(fisher[first + r]);
      for (size_t c = 0; c < cols; ++c) {
        weighted(r, c) = f * stored(first + r, c);
        error(r, c) = w(first + r, c) - stored(first + r, c);
      }
    });
    const MatrixView<const float> by_fisher = weighted.view().Rows(0, rows);
    Gemm(true, false, 1.0f, by_fisher, stored.Rows(first, rows), 1.0f, curvature_);
    Gemm(false, false, 1.0f, error.view().Rows(0, rows), h, 0.0f, moved.view().Rows(0, rows));
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < cols; ++c) residual_[c] += double{weighted(r, c)} * moved(r, c);
    }
  }
}

std::vector<float> NormFit::Factors(MatrixView<const float> h, double damping) const {
  const size_t cols = curvature_.cols();
  double trace = 0;
  for (size_t j = 0; j < cols; ++j) trace += double{curvature_(j, j)} * h(j, j);
  std::vector<float> factors(cols, 1.0f);
  if (!(trace > 0)) return factors;
  const double mean = trace / static_cast<double>(cols);
  // In units of the mean diagonal, which may be far from 1.
  Matrix<float> inverse(cols, cols);
  for (;; damping = std::max(2 * damping, 1e-4)) {
    ParallelFor(cols, [&](size_t i) {
      for (size_t j = 0; j < cols; ++j)
        inverse(i, j) = static_cast<float>(double{curvature_(i, j)} * h(i, j) / mean);
      inverse(i, i) += static_cast<float>(damping);
    });
    if (InvertPositiveDefinite(inverse)) break;
    if (damping > 1e6)
      Fail("the weights of a norm over {} channels cannot be fitted; calibrate on other text", cols);
  }
  ParallelFor(cols, [&](size_t i) {
    double sum = 0;
    for (size_t j = 0; j < cols; ++j) sum += inverse(i, j) * residual_[j] / mean;
    factors[i] = static_cast<float>(1 + sum);
  });
  return factors;
}

}  // namespace mica
