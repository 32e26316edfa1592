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
#include <span>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "device/array.h"
#include "ops/census/pairs.h"

namespace mica {
namespace {

constexpr size_t kDense = 256;
constexpr int kRestarts = 300;
constexpr double kResidual = 1e-5;

// y = D^-1/2 A D^-1/2 x, in the form that Spectra asks for.
class NormalisedAffinity {
 public:
  using Scalar = double;

  explicit NormalisedAffinity(ConstTensor affinity)
      : affinity_(affinity), root_(affinity.rows), scaled_(affinity.rows) {
    std::vector<double> degree(affinity.rows);
    MultiplyOffDiagonal(affinity_, std::vector<double>(affinity.rows, 1.0), degree);
    for (size_t i = 0; i < degree.size(); ++i) root_[i] = degree[i] > 0 ? 1.0 / std::sqrt(degree[i]) : 0.0;
  }

  Eigen::Index rows() const { return static_cast<Eigen::Index>(affinity_.rows); }
  Eigen::Index cols() const { return rows(); }

  void perform_op(const double* x, double* y) const {
    for (size_t j = 0; j < root_.size(); ++j) scaled_[j] = root_[j] * x[j];
    MultiplyOffDiagonal(affinity_, scaled_, std::span(y, root_.size()));
    for (size_t i = 0; i < root_.size(); ++i) y[i] *= root_[i];
  }

  bool Empty() const {
    return std::all_of(root_.begin(), root_.end(), [](double root) { return root == 0; });
  }

  Eigen::MatrixXd Dense() const {
    const Array here = CopyTo(Device::Cpu(), affinity_);
    const MatrixView<const float> values = here.view().host<float>();
    Eigen::MatrixXd dense(rows(), rows());
    for (size_t i = 0; i < root_.size(); ++i) {
      for (size_t j = 0; j < root_.size(); ++j)
        dense(static_cast<Eigen::Index>(i), static_cast<Eigen::Index>(j)) =
            i == j ? 0.0 : root_[i] * values(i, j) * root_[j];
    }
    return dense;
  }

 private:
  ConstTensor affinity_;
  std::vector<double> root_;  // [n] D^-1/2, 0 for channels without affinity
  mutable std::vector<double>
      scaled_;  // [n] D^-1/2 x; Spectra holds the operator const and calls it from one thread
};

Eigen::MatrixXd DenseEigenvectors(const NormalisedAffinity& matrix, Eigen::Index count) {
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(matrix.Dense());
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
  LogDebug("spectral grouping of {} channels: {} products with the affinities, {} restarts", n,
           solver.num_operations(), solver.num_iterations());
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

Matrix<float> LeadingEigenvectors(ConstTensor affinity, size_t count, uint64_t seed) {
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
