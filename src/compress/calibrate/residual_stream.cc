#include "compress/calibrate/residual_stream.h"

#include <algorithm>

#include "base/threads.h"

namespace mica {
namespace {

// Tokens that go through a layer together: enough work for every thread, small enough that the FP32
// temporaries stay in some hundred MB.
constexpr size_t kPortionTokens = 8192;
constexpr size_t kRowBlock = 256;  // tokens converted by one thread at a time

template <typename Body>
void ForRowBlocks(size_t rows, const Body& body) {
  ParallelFor((rows + kRowBlock - 1) / kRowBlock,
              [&](size_t block) { body(block * kRowBlock, std::min(rows, (block + 1) * kRowBlock)); });
}

}  // namespace

ResidualStream::ResidualStream(const ModelWeights& weights, const Calibration& calibration)
    : window_(calibration.seqlen), stream_(calibration.tokens(), weights.config().hidden) {
  const std::span<const int32_t> ids(calibration.ids);
  for (size_t portion = 0; portion < portions(); ++portion) {
    const size_t first = portion * portion_tokens();
    Matrix<float> x(std::min(portion_tokens(), tokens() - first), stream_.cols());
    weights.Embed(ids.subspan(first, x.rows()), x);
    Store(portion, x);
  }
}

size_t ResidualStream::portion_tokens() const {
  return std::max<size_t>(1, kPortionTokens / window_) * window_;
}

Matrix<float> ResidualStream::Load(size_t portion) const {
  const size_t first = portion * portion_tokens();
  Matrix<float> x(std::min(portion_tokens(), tokens() - first), stream_.cols());
  ForRowBlocks(x.rows(), [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      const BF16* from = stream_.row(first + t);
      for (size_t c = 0; c < x.cols(); ++c) x(t, c) = ToFloat(from[c]);
    }
  });
  return x;
}

void ResidualStream::Store(size_t portion, MatrixView<const float> x) {
  const size_t first = portion * portion_tokens();
  ForRowBlocks(x.rows, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      BF16* to = stream_.row(first + t);
      for (size_t c = 0; c < x.cols; ++c) to[c] = ToBF16(x(t, c));
    }
  });
}

}  // namespace mica
