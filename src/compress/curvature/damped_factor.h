// Second moments H damped until they can be factored, and their factor: the one place where that is done. The
// letters are those of the solvers (compress/fixed/solver.h): H^-1 = U^T U, U upper. One factor serves
// information, step plan, drift and feedback.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/matrix.h"
#include "device/array.h"
#include "device/tensor.h"

namespace mica {

// Damping is relative to each channel's own energy, H_jj (1 + share), so that a channel x_j times any power
// of two gives the same factor with its column divided by it, bit by bit: no channel's damping depends on how
// large others are. Channels without energy (H_jj = 0: inputs that are always zero) are uncorrelated with all
// others.
class DampedFactor {
 public:
  // h: [n, n] symmetric, FP32; the factor lies on its device. order: [n] position -> channel, rows and
  // columns of the factor; empty: as they are. share: of its energy that is added to each channel's, doubled
  // while there is no factor. Memory: 4 n^2 bytes, 2/3 n^3 operations. Throws Error when h is not finite or
  // not positive definite at any damping.
  DampedFactor(ConstTensor h, std::vector<uint32_t> order, double share);

  size_t channels() const { return order_.size(); }
  Device device() const { return there_.empty() ? Device::Cpu() : there_.device(); }
  ConstTensor tensor() const {  // U [n, n] on the device, zeros below the diagonal
    return there_.empty() ? ConstTensor(u_) : there_.view();
  }
  MatrixView<const float> u() const { return tensor().host<float>(); }  // U, which lies on the processor
  Matrix<float> Release() { return std::move(u_); }                     // the same; nothing is left here
  std::vector<float> Diagonal() const;                                  // [n] U_pp by position
  const std::vector<uint32_t>& order() const { return order_; }
  const std::vector<uint32_t>& dead() const { return dead_; }  // positions of channels without energy, rising
  double share() const { return share_; }                      // that was added
  int raises() const { return raises_; }                       // how often the share was doubled

  // [n] by channel, of the damped H: [H^-1]_jj, and what that says with its energy, the information of a
  // channel with all the others, 1/2 ln(H_jj [H^-1]_jj) nats; both 0 for channels without energy.
  std::vector<double> InverseDiagonal() const;
  std::vector<double> Information(ConstTensor h) const;
  // x [rows, n] by channel, FP32 on the device <- x H^-1, slab_rows rows at a time (ops/linalg/linalg.h).
  void MultiplyByInverse(Tensor x, size_t slab_rows) const;

  // out [n, n] = the damped H that was factored, in the factor's order; 1 on the diagonal of channels without
  // energy.
  void DampedMoments(ConstTensor h, Tensor out) const;
  // out [n, n] = H itself in the factor's order, channels without energy zero.
  void UndampedMoments(ConstTensor h, Tensor out) const;

 private:
  Tensor Values() { return there_.empty() ? Tensor(u_) : there_.view(); }
  // [n] by position: 1, and 0 for channels without energy.
  std::vector<float> Alive() const;

  std::vector<uint32_t> order_, dead_;
  double share_;
  int raises_ = 0;
  Matrix<float> u_;  // on the processor
  Array there_;      // elsewhere
};

}  // namespace mica
