#include "device/cuda_kernel.h"
#include "ops/cuda_ops.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;

// The way back of SplitHeads: a thread takes the two channels that turn together.
__global__ void __launch_bounds__(kThreads)
    JoinRows(const float* by_head, size_t head_dim, const float* cosines, const float* sines, size_t window,
             View<float> out) {
  const size_t half = (head_dim + 1) / 2, heads = out.cols / head_dim, turn = head_dim / 2;
  for (size_t t = blockIdx.y; t < out.rows; t += gridDim.y) {
    float* row = out.row(t);
    for (size_t i = blockIdx.x * size_t{kThreads} + threadIdx.x; i < heads * half;
         i += size_t{gridDim.x} * kThreads) {
      const size_t h = i / half, k = i % half;
      const bool pair = k + half < head_dim;
      const float* from = by_head + (h * out.rows + t) * head_dim + k;
      float a = from[0], b = pair ? from[half] : 0.0f;
      if (cosines != nullptr) {
        const float cosine = cosines[t % window * turn + k], sine = sines[t % window * turn + k];
        const float turned = a * cosine + b * sine;
        b = b * cosine - a * sine;
        a = turned;
      }
      row[h * head_dim + k] = a;
      if (pair) row[h * head_dim + k + half] = b;
    }
  }
}

}  // namespace

void JoinHeads(ConstTensor by_head, const RopeTable* rope, size_t window, Tensor out) {
  const float* cosines = rope == nullptr ? nullptr : In<float>(rope->cosines()).data;
  const float* sines = rope == nullptr ? nullptr : In<float>(rope->sines()).data;
  const dim3 blocks(std::min(Blocks((out.cols + 1) / 2, kThreads), 64u),
                    static_cast<unsigned>(std::min<size_t>(out.rows, 32768)));
  Launch(out.device, JoinRows, blocks, kThreads, 0, In<float>(by_head).data, by_head.cols, cosines, sines,
         window, Out<float>(out));
}

}  // namespace mica::cuda
