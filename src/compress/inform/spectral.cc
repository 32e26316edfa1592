#include "compress/inform/spectral.h"

// Eigen must not bring threads of its own.
#define EIGEN_DONT_PARALLELIZE
#include <Spectra/SymEigsSolver.h>

#include <Eigen/Core>
#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <exception>
#include <random>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/threads.h"

namespace mica {
namespace {

constexpr size_t kDense = 256;
constexpr int kRestarts = 300;
constexpr double kResidual = 1e-5;

// sum_j a[j] b[j] in eight interleaved sums, which vector units can take at once.
double Dot(const float* a, const double* b, size_t n) {
  constexpr size_t kSums = 8;
  double sums[kSums] = {};
  size_t j = 0;
  for (; j + kSums <= n; j += kSums) {
    for (size_t s = 0; s < kSums; ++s) sums[s] += a[j + s] * b[j + s];
  }
  for (; j < n; ++j) sums[0] += a[j] * b[j];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// y = D^-1/2 A D^-1/2 x, in the form that Spectra asks for.
class NormalisedAffinity {
 public:
  using Scalar = double;

  explicit NormalisedAffinity(MatrixView<const float> affinity)
      : affinity_(affinity), root_(affinity.rows), scaled_(affinity.rows) {
    const std::vector<double> ones(affinity.rows, 1.0);
    ForBlocks([&](size_t i) {
      const double degree = Dot(affinity_.row(i), ones.data(), affinity_.cols) - affinity_(i, i);
      root_[i] = degree > 0 ? 1.0 / std::sqrt(degree) : 0.0;
    });
  }

  Eigen::Index rows() const { return static_cast<Eigen::Index>(affinity_.rows); }
  Eigen::Index cols() const { return rows(); }

  void perform_op(const double* x, double* y) const {
    for (size_t j = 0; j < root_.size(); ++j) scaled_[j] = root_[j] * x[j];
    ForBlocks([&](size_t i) {
      y[i] =
          root_[i] * (Dot(affinity_.row(i), scaled_.data(), affinity_.cols) - affinity_(i, i) * scaled_[i]);
    });
  }

  bool Empty() const {
    return std::all_of(root_.begin(), root_.end(), [](double root) { return root == 0; });
  }

  double Entry(size_t i, size_t j) const { return i == j ? 0.0 : root_[i] * affinity_(i, j) * root_[j]; }

 private:
  template <typename Body>
  void ForBlocks(const Body& body) const {
    constexpr size_t kRows = 64;
    const size_t n = affinity_.rows;
    ParallelFor((n + kRows - 1) / kRows, [&](size_t block) {
      for (size_t i = block * kRows; i < std::min(n, (block + 1) * kRows); ++i) body(i);
    });
  }

  MatrixView<const float> affinity_;
  std::vector<double> root_;  // [n] D^-1/2, 0 for channels without affinity
  mutable std::vector<double>
      scaled_;  // [n] D^-1/2 x; Spectra holds the operator const and calls it from one thread
};

Eigen::MatrixXd DenseEigenvectors(const NormalisedAffinity& matrix, Eigen::Index count) {
  const Eigen::Index n = matrix.rows();
  Eigen::MatrixXd dense(n, n);
  for (Eigen::Index i = 0; i < n; ++i) {
    for (Eigen::Index j = 0; j < n; ++j)
      dense(i, j) = matrix.Entry(static_cast<size_t>(i), static_cast<size_t>(j));
  }
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(dense);
  MICA_CHECK(solver.info() == Eigen::Success);
  return solver.eigenvectors().rightCols(count).rowwise().reverse();
}

Eigen::MatrixXd LanczosEigenvectors(NormalisedAffinity& matrix, Eigen::Index count, uint64_t seed) {
  const Eigen::Index n = matrix.rows();
  Spectra::SymEigsSolver<NormalisedAffinity> solver(
      matrix, count, std::min(n, std::max<Eigen::Index>(2 * count + 1, count + 30)));
  std::mt19937_64 random(seed);
  std::vector<double> start(static_cast<size_t>(n));
  for (double& value : start) value = static_cast<double>(random() >> 11) * 0x1p-53 - 0.5;
  solver.init(start.data());
  Eigen::Index converged = 0;
  try {
    converged =
        solver.compute(Spectra::SortRule::LargestAlge, kRestarts, kResidual, Spectra::SortRule::LargestAlge);
  } catch (const std::exception& error) {
    Fail("spectral grouping of {} channels: {}; use hierarchical or kmeans", n, error.what());
  }
  if (converged == 0)
    Fail("spectral grouping: no eigenvector of {} channels converged; use hierarchical or kmeans", n);
  if (converged < count) {
    LogWarning(
        "spectral grouping: {} of {} eigenvectors of {} channels converged in {} restarts; the others are "
        "left out",
        converged, count, n, kRestarts);
  }
  return solver.eigenvectors();
}

}  // namespace

Matrix<float> LeadingEigenvectors(MatrixView<const float> affinity, size_t count, uint64_t seed) {
  const size_t n = affinity.rows;
  MICA_CHECK(affinity.cols == n);
  MICA_CHECK(count >= 1);
  MICA_CHECK(count <= n);
  NormalisedAffinity matrix(affinity);
  if (matrix.Empty()) return Matrix<float>(n, count, 0.0f);
  const auto wanted = static_cast<Eigen::Index>(count);
  const Eigen::MatrixXd vectors = n <= kDense || count == n ? DenseEigenvectors(matrix, wanted)
                                                            : LanczosEigenvectors(matrix, wanted, seed);
  Matrix<float> out(n, static_cast<size_t>(vectors.cols()));
  for (size_t i = 0; i < n; ++i) {
    for (size_t c = 0; c < out.cols(); ++c) {
      out(i, c) = static_cast<float>(vectors(static_cast<Eigen::Index>(i), static_cast<Eigen::Index>(c)));
    }
  }
  return out;
}

}  // namespace mica
