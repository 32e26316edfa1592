#include "ops/rope/rope.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/threads.h"
#include "device/scratch.h"
#include "ops/cuda_ops.h"
#include "ops/tile/for_rows.h"
#include "ops/tile/kernels.h"

namespace mica {

void RopeTable::Extend(size_t positions) {
  if (cosines_.rows() >= positions) return;
  const size_t half = frequencies_.size();
  cosines_ = Matrix<float>(positions, half);
  sines_ = Matrix<float>(positions, half);
  ParallelFor(positions, [&](size_t position) {
    for (size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * frequencies_[i];
      cosines_(position, i) = static_cast<float>(std::cos(angle));
      sines_(position, i) = static_cast<float>(std::sin(angle));
    }
  });
  if (!device_.is_cuda()) return;
  on_device_ = {CopyTo(device_, cosines_), CopyTo(device_, sines_)};
}

void JoinHeads(ConstTensor by_head, const RopeTable* rope, size_t window, Tensor out) {
  const size_t tokens = out.rows, head_dim = by_head.cols, heads = out.cols / head_dim;
  MICA_CHECK(out.cols == heads * head_dim);
  MICA_CHECK(by_head.rows == heads * tokens);
  MICA_CHECK(tokens % window == 0);
  MICA_CHECK(rope == nullptr || rope->positions() >= std::min(window, tokens));
  if (out.device.is_cuda()) return Cuda().JoinHeads(by_head, rope, window, out);
  const MatrixView<const float> in = by_head.host<float>();
  const MatrixView<float> joined = out.host<float>();
  const KernelTable& kernels = Kernels(Backend::kCpu);
  ForRows(tokens, [&](size_t t) {
    float* negative_sines = Scratch<float, 62>(head_dim / 2 + 1);
    if (rope != nullptr) {
      for (size_t i = 0; i < head_dim / 2; ++i) negative_sines[i] = -rope->sines(t % window)[i];
    }
    for (size_t head = 0; head < heads; ++head) {
      const float* values = in.row(head * tokens + t);
      float* target = joined.row(t) + head * head_dim;
      if (rope != nullptr) {
        kernels.f32.rope(values, rope->cosines(t % window), negative_sines, head_dim, target);
      } else {
        std::copy_n(values, head_dim, target);
      }
    }
  });
}

}  // namespace mica
