#include "ops/rope/rope.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/threads.h"
#include "device/scratch.h"
#include "ops/cuda_ops.h"
#include "ops/rope/turn.h"
#include "ops/tile/dispatch.h"
#include "ops/tile/for_rows.h"
#include "ops/tile/kernels.h"

namespace mica {
namespace {

void CheckHeads(const ConstTensor& joined, const ConstTensor& by_head, const RopeTable* rope, size_t window) {
  const size_t tokens = joined.rows, head_dim = by_head.cols;
  MICA_CHECK(joined.cols % head_dim == 0);
  MICA_CHECK(by_head.rows == joined.cols / head_dim * tokens);
  MICA_CHECK(tokens % window == 0);
  MICA_CHECK(rope == nullptr || rope->positions() >= std::min(window, tokens));
  MICA_CHECK(rope == nullptr || rope->channels() <= head_dim);
}

}  // namespace

void RopeTable::Extend(size_t positions) {
  if (cosines_.rows() >= positions) return;
  const size_t half = frequencies_.size();
  cosines_ = Matrix<float>(positions, half);
  sines_ = Matrix<float>(positions, half);
  ParallelFor(positions, [&](size_t position) {
    const double amplitude = amplitude_ ? amplitude_(position) : 1.0;
    for (size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * frequencies_[i];
      cosines_(position, i) = static_cast<float>(amplitude * std::cos(angle));
      sines_(position, i) = static_cast<float>(amplitude * std::sin(angle));
    }
  });
  if (!device_.is_cuda()) return;
  on_device_ = {CopyTo(device_, cosines_), CopyTo(device_, sines_)};
}

void SplitHeads(ConstTensor x, const RopeTable* rope, size_t window, Tensor by_head) {
  CheckHeads(x, by_head, rope, window);
  if (x.device.is_cuda()) return Cuda().SplitHeads(x, rope, window, by_head);
  const size_t tokens = x.rows, head_dim = by_head.cols;
  const MatrixView<const float> in = x.host<float>();
  DispatchOperand(by_head.dtype, [&](auto type) {
    using T = decltype(type);
    const MatrixView<T> out = by_head.host<T>();
    ForRows(tokens, [&](size_t t) {
      for (size_t head = 0; head < in.cols / head_dim; ++head)
        TurnHead<T>(Kernels(Backend::kCpu).of<T>(), in.row(t) + head * head_dim, rope, t % window, head_dim,
                    out.row(head * tokens + t));
    });
  });
}

void JoinHeads(ConstTensor by_head, const RopeTable* rope, size_t window, Tensor out) {
  const size_t tokens = out.rows, head_dim = by_head.cols, heads = out.cols / head_dim;
  CheckHeads(out, by_head, rope, window);
  if (out.device.is_cuda()) return Cuda().JoinHeads(by_head, rope, window, out);
  const MatrixView<const float> in = by_head.host<float>();
  const MatrixView<float> joined = out.host<float>();
  const KernelTable& kernels = Kernels(Backend::kCpu);
  const size_t channels = rope == nullptr ? 0 : rope->channels();
  ForRows(tokens, [&](size_t t) {
    float* negative_sines = Scratch<float, 62>(channels / 2 + 1);
    for (size_t i = 0; i < channels / 2; ++i) negative_sines[i] = -rope->sines(t % window)[i];
    for (size_t head = 0; head < heads; ++head) {
      const float* values = in.row(head * tokens + t);
      float* target = joined.row(t) + head * head_dim;
      if (channels > 0)
        kernels.f32.rope(values, rope->cosines(t % window), negative_sines, channels, target);
      std::copy_n(values + channels, head_dim - channels, target + channels);
    }
  });
}

}  // namespace mica
