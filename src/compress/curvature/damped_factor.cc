#include "compress/curvature/damped_factor.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "ops/linalg/arrange.h"
#include "ops/linalg/linalg.h"

namespace mica {
namespace {

// The share after 0. As much as the channel's energy itself and more, there is nothing left of the
// correlations.
constexpr double kFirstShare = 1e-6, kMostShare = 8;

// The power of two that brings a channel's energy to between 1/2 and 2.
float UnitScale(double energy) { return std::ldexp(1.0f, -((std::ilogb(energy) + 1) >> 1)); }

}  // namespace

DampedFactor::DampedFactor(ConstTensor h, std::vector<uint32_t> order, double share)
    : order_(std::move(order)), share_(share) {
  if (order_.empty()) {
    order_.resize(h.rows);
    std::iota(order_.begin(), order_.end(), 0u);
  }
  MICA_CHECK(h.cols == h.rows);
  MICA_CHECK(order_.size() == h.rows);
  MICA_CHECK(share >= 0);
  CheckFinite(h, fmt::format("second moments of {} channels", h.rows));
  const size_t n = channels();
  if (h.device.is_cuda()) {
    there_ = Array(n, n, DType::kF32, h.device);
  } else {
    u_ = Matrix<float>(n, n);
  }
  const std::vector<float> energies = DiagonalOf(h);
  std::vector<float> scale(n, 0.0f);
  for (uint32_t p = 0; p < n; ++p) {
    const double energy = energies[order_[p]];
    if (energy > 0) {
      scale[p] = UnitScale(energy);
    } else {
      dead_.push_back(p);
    }
  }
  for (;; ++raises_) {
    ArrangeSymmetric(h, order_, scale, share_, 1.0f, Values());
    if (CholeskyOfInverseUpper(Values())) break;
    share_ = std::max(2 * share_, kFirstShare);
    if (share_ > kMostShare)
      Fail("second moments of {} channels are not positive definite at any damping; calibrate on other text",
           n);
  }
  // (S H S)^-1 = V^T V gives H^-1 = (V S)^T (V S).
  for (const uint32_t p : dead_) scale[p] = 1;
  ScaleUpperColumns(scale, Values());
}

std::vector<float> DampedFactor::Alive() const {
  std::vector<float> alive(channels(), 1.0f);
  for (const uint32_t p : dead_) alive[p] = 0;
  return alive;
}

void DampedFactor::DampedMoments(ConstTensor h, Tensor out) const {
  ArrangeSymmetric(h, order_, Alive(), share_, 1.0f, out);
}

void DampedFactor::UndampedMoments(ConstTensor h, Tensor out) const {
  ArrangeSymmetric(h, order_, Alive(), 0.0, 0.0f, out);
}

std::vector<float> DampedFactor::Diagonal() const { return DiagonalOf(tensor()); }

std::vector<double> DampedFactor::InverseDiagonal() const {
  const std::vector<double> squares = UpperColumnSquares(tensor());
  std::vector<double> diagonal(channels());
  for (size_t p = 0; p < squares.size(); ++p) diagonal[order_[p]] = squares[p];
  for (const uint32_t p : dead_) diagonal[order_[p]] = 0;
  return diagonal;
}

std::vector<double> DampedFactor::Information(ConstTensor h) const {
  const std::vector<float> energies = DiagonalOf(h);
  std::vector<double> information = InverseDiagonal();
  for (size_t j = 0; j < information.size(); ++j) {
    const double ratio = energies[j] * (1 + share_) * information[j];
    information[j] = ratio > 1 ? 0.5 * std::log(ratio) : 0;
  }
  return information;
}

void DampedFactor::MultiplyByInverse(Tensor x, size_t slab_rows) const {
  const size_t n = channels();
  MICA_CHECK(x.cols == n);
  Array ordered(x.rows, n, DType::kF32, x.device);
  GatherColumns(x, order_, ordered.view());
  MultiplyByUpper(true, tensor(), slab_rows, ordered.view());
  MultiplyByUpper(false, tensor(), slab_rows, ordered.view());
  std::vector<uint32_t> positions(n);
  for (uint32_t p = 0; p < n; ++p) positions[order_[p]] = p;
  GatherColumns(ordered.view(), positions, x);
}

}  // namespace mica
