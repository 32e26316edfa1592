// Second moments H damped until they can be factored, and their factor: the one place where that is done. The
// letters are those of the solvers (compress/fixed/solver.h): H^-1 = U^T U, U upper.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "base/matrix.h"

namespace mica {

// What is kept of the damped H.
enum class FactorForm {
  kUpperOfInverse,     // U
  kInverse,            // H^-1
  kScaledLowerInverse  // L^-1, L lower, L L^T = S H S with S_jj = (H_jj + damping)^-1/2 and a diagonal of
                       // ones
};

// How channels without energy (H_jj = 0: inputs that are always zero) become factorable, and how the sum on
// the diagonal is rounded. Scaled moments need no choice: a diagonal of ones makes them uncorrelated.
enum class DeadChannels {
  kMeanEnergy,  // get the mean energy; H_jj and the damping are added in FP32
  kApart  // uncorrelated with all others, mean energy and damping; H_jj and the damping are added in FP64
};

// How much is added to the diagonal, in shares of `mean`: `share` first; while there is no factor, twice as
// much.
struct DampingPolicy {
  double share = 0.01;
  double mean = 1;            // energy of a channel, as a rule the mean of H's diagonal
  double first_raise = 1e-6;  // the share after 0
  double least_raise = 0;     // a raised share is at least this
  double most_share = std::numeric_limits<double>::infinity();
  int most_raises = std::numeric_limits<int>::max();
  DeadChannels dead = DeadChannels::kMeanEnergy;
  std::string failure = "";  // message of the Error when nothing helps
};

class DampedFactor {
 public:
  // h: [n, n] symmetric. order: [n] position -> channel, rows and columns of the factor; empty: as they are.
  // Memory: 4 n^2 bytes. Throws Error when h is not finite, and Error(policy.failure).
  DampedFactor(MatrixView<const float> h, std::vector<uint32_t> order, FactorForm form,
               const DampingPolicy& policy);

  MatrixView<const float> matrix() const { return matrix_.view(); }  // [n, n], as `form` says
  Matrix<float> Release() { return std::move(matrix_); }             // the same; nothing is left here
  const std::vector<uint32_t>& order() const { return order_; }
  const std::vector<uint32_t>& dead() const { return dead_; }  // positions of channels without energy, rising
  double mean() const { return mean_; }
  double damping() const { return share_ * mean_; }  // what was added
  double share() const { return share_; }
  int raises() const { return raises_; }

  // out [n, n] = the damped H that was factored, in the factor's order (not scaled).
  void DampedMoments(MatrixView<const float> h, MatrixView<float> out) const;
  // out [n, n] = H itself in the factor's order, dead channels zero.
  void UndampedMoments(MatrixView<const float> h, MatrixView<float> out) const;

 private:
  void ScaledMoments(MatrixView<const float> h, MatrixView<float> out) const;

  std::vector<uint32_t> order_, dead_;
  DeadChannels treatment_;
  double mean_, share_;
  int raises_ = 0;
  Matrix<float> matrix_;
};

// Mean of H's diagonal; 1 when that is 0 or no number.
double MeanEnergy(MatrixView<const float> h);

}  // namespace mica
