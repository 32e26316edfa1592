// Filling a symmetric matrix from a function of pairs.
#pragma once

#include <algorithm>
#include <cstddef>

#include "base/matrix.h"
#include "base/system.h"
#include "base/threads.h"

namespace mica {

// out[i, j] = out[j, i] = value(i, j) for j < i; diagonal 0. out: [n, n]. Spread over the threads in tiles,
// so that the mirrored writes stay in the cache; `value` is called once a pair, from several threads. Throws
// Interrupted after Ctrl-C.
template <typename Value>
void FillSymmetric(MatrixView<float> out, const Value& value) {
  constexpr size_t kTile = 64;
  const size_t n = out.rows;
  const size_t tiles = (n + kTile - 1) / kTile;
  ParallelFor(tiles, [&](size_t index) {
    ThrowIfInterrupted();
    const size_t tile = tiles - 1 - index;  // the longest rows first
    for (size_t first = 0; first <= tile * kTile; first += kTile) {
      for (size_t i = tile * kTile; i < std::min(n, (tile + 1) * kTile); ++i) {
        for (size_t j = first; j < std::min(i, first + kTile); ++j) {
          const float v = value(i, j);
          out(i, j) = v;
          out(j, i) = v;
        }
        out(i, i) = 0.0f;
      }
    }
  });
}

}  // namespace mica
