// Heads split and turned on a CUDA device, for all who do it.
#pragma once

#include <algorithm>

#include "device/cuda_kernel.h"
#include "ops/rope/rope.h"
#include "ops/tile/dispatch.h"

namespace mica::cuda {

inline constexpr int kRopeThreads = 256;

inline dim3 RopeGrid(const ConstTensor& joined) {
  return dim3(std::min(Blocks((joined.cols + 1) / 2, kRopeThreads), 64u),
              static_cast<unsigned>(std::min<size_t>(joined.rows, 32768)));
}

// Two channels of a head that one thread takes; the last one of an odd number is alone.
struct Pair {
  size_t first, second;
  bool turns, alone;
};

// The angles of a table, or none.
struct Turns {
  const float* cosines;  // [window, half]
  const float* sines;
  size_t window;
  size_t half;  // pairs that turn: channels i and half + i

  __device__ static size_t Pairs(size_t head_dim) { return (head_dim + 1) / 2; }
  // Pair k of (head_dim + 1) / 2: first those that turn, then neighbours of what stays.
  __device__ Pair At(size_t k, size_t head_dim) const {
    if (k < half) return {k, half + k, true, false};
    const size_t first = 2 * k;
    return {first, first + 1, false, first + 1 >= head_dim};
  }
};

inline Turns TurnsOf(const RopeTable* rope, size_t window) {
  if (rope == nullptr) return {nullptr, nullptr, window, 0};
  return {In<float>(rope->cosines()).data, In<float>(rope->sines()).data, window, rope->channels() / 2};
}

// out[h * tokens + t, i] = head h of (y[t] + bias), turned where there are angles.
template <typename T>
__global__ void __launch_bounds__(kRopeThreads)
    SplitRows(View<const float> y, const float* bias, Turns turns, size_t head_dim, T* out) {
  const size_t pairs = turns.Pairs(head_dim), heads = y.cols / head_dim;
  for (size_t t = blockIdx.y; t < y.rows; t += gridDim.y) {
    const float* row = y.row(t);
    for (size_t i = blockIdx.x * size_t{kRopeThreads} + threadIdx.x; i < heads * pairs;
         i += size_t{gridDim.x} * kRopeThreads) {
      const size_t h = i / pairs;
      const Pair pair = turns.At(i % pairs, head_dim);
      const size_t first = h * head_dim + pair.first, second = h * head_dim + pair.second;
      float a = row[first], b = pair.alone ? 0.0f : row[second];
      if (bias != nullptr) {
        a += bias[first];
        if (!pair.alone) b += bias[second];
      }
      if (pair.turns) {
        const float cosine = turns.cosines[t % turns.window * turns.half + pair.first],
                    sine = turns.sines[t % turns.window * turns.half + pair.first];
        const float turned = a * cosine - b * sine;
        b = b * cosine + a * sine;
        a = turned;
      }
      T* to = out + (h * y.rows + t) * head_dim;
      to[pair.first] = FromFloat<T>(a);
      if (!pair.alone) to[pair.second] = FromFloat<T>(b);
    }
  }
}

// bias: [heads * head_dim] on the device, or null.
inline void Split(ConstTensor y, const float* bias, const RopeTable* rope, size_t window, Tensor by_head) {
  DispatchOperand(by_head.dtype, [&](auto type) {
    using T = decltype(type);
    Launch(y.device, SplitRows<OnDevice<T>>, RopeGrid(y), kRopeThreads, 0, In<float>(y), bias,
           TurnsOf(rope, window), by_head.cols, Out<T>(by_head).data);
  });
}

}  // namespace mica::cuda
