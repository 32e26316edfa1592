#include "ops/rope/rope_cuda.h"

#include "ops/cuda_ops.h"

namespace mica::cuda {
namespace {

// The way back of SplitRows: a thread takes the two channels that turn together.
__global__ void __launch_bounds__(kRopeThreads)
    JoinRows(const float* by_head, size_t head_dim, Turns turns, View<float> out) {
  const size_t pairs = turns.Pairs(head_dim), heads = out.cols / head_dim;
  for (size_t t = blockIdx.y; t < out.rows; t += gridDim.y) {
    float* row = out.row(t);
    for (size_t i = blockIdx.x * size_t{kRopeThreads} + threadIdx.x; i < heads * pairs;
         i += size_t{gridDim.x} * kRopeThreads) {
      const size_t h = i / pairs;
      const Pair pair = turns.At(i % pairs, head_dim);
      const float* from = by_head + (h * out.rows + t) * head_dim;
      float a = from[pair.first], b = pair.alone ? 0.0f : from[pair.second];
      if (pair.turns) {
        const float cosine = turns.cosines[t % turns.window * turns.half + pair.first],
                    sine = turns.sines[t % turns.window * turns.half + pair.first];
        const float turned = a * cosine + b * sine;
        b = b * cosine - a * sine;
        a = turned;
      }
      row[h * head_dim + pair.first] = a;
      if (!pair.alone) row[h * head_dim + pair.second] = b;
    }
  }
}

}  // namespace

void SplitHeads(ConstTensor x, const RopeTable* rope, size_t window, Tensor by_head) {
  Split(x, nullptr, rope, window, by_head);
}

void JoinHeads(ConstTensor by_head, const RopeTable* rope, size_t window, Tensor out) {
  Launch(out.device, JoinRows, RopeGrid(out), kRopeThreads, 0, In<float>(by_head).data, by_head.cols,
         TurnsOf(rope, window), Out<float>(out));
}

}  // namespace mica::cuda
