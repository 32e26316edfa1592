#include "compress/curvature/damped_factor.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/finite.h"
#include "base/threads.h"
#include "ops/linalg/linalg.h"

namespace mica {
namespace {

bool FactorInPlace(FactorForm form, MatrixView<float> a) {
  switch (form) {
    case FactorForm::kUpperOfInverse:
      return CholeskyOfInverseUpper(a);
    case FactorForm::kInverse:
      return InvertPositiveDefinite(a);
    case FactorForm::kScaledLowerInverse:
      if (!CholeskyLower(a)) return false;
      InvertLowerTriangle(a);
      return true;
  }
  MICA_CHECK(false);
}

// out = h in another order, with `damping` added to the diagonal. Dead channels become uncorrelated with all
// others and get `dead_diagonal`.
void PermuteApart(MatrixView<const float> h, const std::vector<uint32_t>& order,
                  const std::vector<uint32_t>& dead, float dead_diagonal, double damping,
                  MatrixView<float> out) {
  ParallelFor(order.size(), [&](size_t i) {
    const float* from = h.row(order[i]);
    float* to = out.row(i);
    for (size_t j = 0; j < order.size(); ++j) to[j] = from[order[j]];
    for (const uint32_t j : dead) to[j] = 0.0f;
    to[i] = static_cast<float>(double{from[order[i]]} + damping);
  });
  for (const uint32_t i : dead) {
    std::fill_n(out.row(i), order.size(), 0.0f);
    out(i, i) = dead_diagonal;
  }
}

}  // namespace

double MeanEnergy(MatrixView<const float> h) {
  double trace = 0;
  for (size_t j = 0; j < h.rows; ++j) trace += h(j, j);
  return trace > 0 ? trace / static_cast<double>(h.rows) : 1.0;
}

DampedFactor::DampedFactor(MatrixView<const float> h, std::vector<uint32_t> order, FactorForm form,
                           const DampingPolicy& policy)
    : order_(std::move(order)),
      treatment_(policy.dead),
      mean_(policy.mean),
      share_(policy.share),
      matrix_(h.rows, h.rows) {
  if (order_.empty()) {
    order_.resize(h.rows);
    std::iota(order_.begin(), order_.end(), 0u);
  }
  MICA_CHECK(h.cols == h.rows);
  MICA_CHECK(order_.size() == h.rows);
  CheckFinite(h, fmt::format("second moments of {} channels", h.rows));
  for (uint32_t p = 0; p < order_.size(); ++p) {
    if (!(h(order_[p], order_[p]) > 0)) dead_.push_back(p);
  }
  for (;; ++raises_) {
    form == FactorForm::kScaledLowerInverse ? ScaledMoments(h, matrix_) : DampedMoments(h, matrix_);
    if (FactorInPlace(form, matrix_)) return;
    share_ = share_ > 0 ? std::max(2 * share_, policy.least_raise) : policy.first_raise;
    if (raises_ >= policy.most_raises || share_ > policy.most_share) throw Error(policy.failure);
  }
}

void DampedFactor::DampedMoments(MatrixView<const float> h, MatrixView<float> out) const {
  if (treatment_ == DeadChannels::kApart)
    return PermuteApart(h, order_, dead_, static_cast<float>(mean_ + damping()), damping(), out);
  const auto added = static_cast<float>(damping());
  ParallelFor(order_.size(), [&](size_t i) {
    const float* from = h.row(order_[i]);
    float* to = out.row(i);
    for (size_t j = 0; j < order_.size(); ++j) to[j] = from[order_[j]];
    to[i] += to[i] > 0 ? added : static_cast<float>(mean_);
  });
}

void DampedFactor::UndampedMoments(MatrixView<const float> h, MatrixView<float> out) const {
  PermuteApart(h, order_, dead_, 0.0f, 0.0, out);
}

void DampedFactor::ScaledMoments(MatrixView<const float> h, MatrixView<float> out) const {
  const size_t n = order_.size();
  std::vector<double> inverse_root(n);
  // A channel without energy goes with no other.
  for (size_t j = 0; j < n; ++j) {
    const double energy = h(order_[j], order_[j]);
    inverse_root[j] = energy > 0 ? 1.0 / std::sqrt(energy + damping()) : 0.0;
  }
  ParallelFor(n, [&](size_t i) {
    for (size_t j = 0; j < n; ++j)
      out(i, j) = static_cast<float>(h(order_[i], order_[j]) * inverse_root[i] * inverse_root[j]);
    out(i, i) = 1.0f;  // damping included
  });
}

}  // namespace mica
