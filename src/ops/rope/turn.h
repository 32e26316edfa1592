// One head at one position, on the processor.
#pragma once

#include <cstddef>

#include "ops/rope/rope.h"
#include "ops/tile/kernels.h"

namespace mica {

// target = values turned by the angle of the position, rounded to T; without a table rounded alone. Both:
// [head_dim], of which what the table does not turn stays.
template <typename T>
void TurnHead(const OperandKernels<T>& kernels, const float* values, const RopeTable* rope, size_t position,
              size_t head_dim, T* target) {
  const size_t channels = rope == nullptr ? 0 : rope->channels();
  if (channels > 0) kernels.rope(values, rope->cosines(position), rope->sines(position), channels, target);
  if (channels < head_dim) kernels.from_f32(values + channels, head_dim - channels, target + channels);
}

}  // namespace mica
