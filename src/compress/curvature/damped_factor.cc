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

// The share after 0. As much as the channel's energy itself and more, there is nothing left of the
// correlations.
constexpr double kFirstShare = 1e-6, kMostShare = 8;

// The power of two that brings a channel's energy to between 1/2 and 2.
float UnitScale(double energy) { return std::ldexp(1.0f, -((std::ilogb(energy) + 1) >> 1)); }

}  // namespace

DampedFactor::DampedFactor(MatrixView<const float> h, std::vector<uint32_t> order, double share)
    : order_(std::move(order)), share_(share), u_(h.rows, h.rows) {
  if (order_.empty()) {
    order_.resize(h.rows);
    std::iota(order_.begin(), order_.end(), 0u);
  }
  MICA_CHECK(h.cols == h.rows);
  MICA_CHECK(order_.size() == h.rows);
  MICA_CHECK(share >= 0);
  CheckFinite(h, fmt::format("second moments of {} channels", h.rows));
  const size_t n = channels();
  std::vector<float> scale(n, 1.0f);
  for (uint32_t p = 0; p < n; ++p) {
    const double energy = h(order_[p], order_[p]);
    if (energy > 0) {
      scale[p] = UnitScale(energy);
    } else {
      dead_.push_back(p);
    }
  }
  for (;; ++raises_) {
    Permute(h, scale, 1.0f, share_, u_);
    if (CholeskyOfInverseUpper(u_)) break;
    share_ = std::max(2 * share_, kFirstShare);
    if (share_ > kMostShare)
      Fail("second moments of {} channels are not positive definite at any damping; calibrate on other text",
           n);
  }
  // (S H S)^-1 = V^T V gives H^-1 = (V S)^T (V S).
  ParallelFor(n, [&](size_t i) {
    float* row = u_.row(i);
    for (size_t j = i; j < n; ++j) row[j] *= scale[j];
  });
}

// out = S H S in the factor's order, damped.
void DampedFactor::Permute(MatrixView<const float> h, const std::vector<float>& scale, float dead_diagonal,
                           double share, MatrixView<float> out) const {
  const size_t n = channels();
  ParallelFor(n, [&](size_t i) {
    const float* from = h.row(order_[i]);
    float* to = out.row(i);
    for (size_t j = 0; j < n; ++j) to[j] = from[order_[j]] * scale[i] * scale[j];
    for (const uint32_t j : dead_) to[j] = 0.0f;
    to[i] = static_cast<float>(to[i] * (1 + share));
  });
  for (const uint32_t p : dead_) {
    std::fill_n(out.row(p), n, 0.0f);
    out(p, p) = dead_diagonal;
  }
}

void DampedFactor::DampedMoments(MatrixView<const float> h, MatrixView<float> out) const {
  Permute(h, std::vector<float>(channels(), 1.0f), 1.0f, share_, out);
}

void DampedFactor::UndampedMoments(MatrixView<const float> h, MatrixView<float> out) const {
  Permute(h, std::vector<float>(channels(), 1.0f), 0.0f, 0.0, out);
}

std::vector<double> DampedFactor::InverseDiagonal() const {
  constexpr size_t kColumns = 64;
  const size_t n = channels();
  std::vector<double> diagonal(n);
  // The squared norm of each column of U.
  ParallelFor((n + kColumns - 1) / kColumns, [&](size_t block) {
    const size_t first = block * kColumns, count = std::min(kColumns, n - first);
    double squares[kColumns] = {};
    for (size_t i = 0; i < first + count; ++i) {
      const float* row = u_.row(i) + first;
      for (size_t c = 0; c < count; ++c) squares[c] += double{row[c]} * row[c];
    }
    for (size_t c = 0; c < count; ++c) diagonal[order_[first + c]] = squares[c];
  });
  for (const uint32_t p : dead_) diagonal[order_[p]] = 0;
  return diagonal;
}

std::vector<double> DampedFactor::Information(MatrixView<const float> h) const {
  std::vector<double> information = InverseDiagonal();
  for (size_t j = 0; j < information.size(); ++j) {
    const double ratio = h(j, j) * (1 + share_) * information[j];
    information[j] = ratio > 1 ? 0.5 * std::log(ratio) : 0;
  }
  return information;
}

void DampedFactor::MultiplyByInverse(MatrixView<float> x) const {
  const size_t n = channels();
  MICA_CHECK(x.cols == n);
  Matrix<float> ordered(x.rows, n);
  ParallelFor(x.rows, [&](size_t r) {
    for (size_t p = 0; p < n; ++p) ordered(r, p) = x(r, order_[p]);
  });
  MultiplyByUpper(true, u_, ordered);
  MultiplyByUpper(false, u_, ordered);
  ParallelFor(x.rows, [&](size_t r) {
    for (size_t p = 0; p < n; ++p) x(r, order_[p]) = ordered(r, p);
  });
}

}  // namespace mica
