// The loop that all ops on a head share.
#pragma once

#include <algorithm>
#include <cstddef>

#include "base/matrix.h"
#include "base/threads.h"
#include "device/scratch.h"
#include "ops/head/head.h"
#include "ops/tile/kernels.h"

namespace mica {

// Calls use(first token, normed inputs [tokens, hidden] as T) for each tile of tokens, on the threads; tiles
// for which wanted(first token, tokens) is false are left out.
template <typename T, typename Wanted, typename Use>
void ForNormedTiles(const HeadInputs& in, const Wanted& wanted, const Use& use) {
  const MatrixView<const float> x = in.x.host<float>();
  const float* weight = in.norm.host<float>().data;
  const auto norm = Kernels(Backend::kCpu).of<T>().rms_norm;
  ParallelFor((x.rows + kTileTokens - 1) / kTileTokens, [&](size_t tile) {
    const size_t first = tile * kTileTokens, tokens = std::min(kTileTokens, x.rows - first);
    if (!wanted(first, tokens)) return;
    T* normed = Scratch<T, 30>(tokens * x.cols);
    for (size_t t = 0; t < tokens; ++t) {
      norm(x.row(first + t), weight, x.cols, in.epsilon, normed + t * x.cols);
    }
    use(first, MatrixView<const T>(normed, tokens, x.cols));
  });
}

}  // namespace mica
