#include "compress/residual_stream.h"

#include <algorithm>

#include "base/system.h"
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
  Matrix<float> x(PortionTokens(), stream_.cols());
  for (size_t first = 0; first < tokens(); first += PortionTokens()) {
    const size_t count = std::min(PortionTokens(), tokens() - first);
    const MatrixView<float> portion = x.view().Rows(0, count);
    weights.Embed(ids.subspan(first, count), portion);
    Store(first, portion);
  }
}

size_t ResidualStream::PortionTokens() const {
  return std::max<size_t>(1, kPortionTokens / window_) * window_;
}

void ResidualStream::Load(size_t first_token, MatrixView<float> x) const {
  ForRowBlocks(x.rows, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      const BF16* from = stream_.row(first_token + t);
      for (size_t c = 0; c < x.cols; ++c) x(t, c) = ToFloat(from[c]);
    }
  });
}

void ResidualStream::Store(size_t first_token, MatrixView<const float> x) {
  ForRowBlocks(x.rows, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      BF16* to = stream_.row(first_token + t);
      for (size_t c = 0; c < x.cols; ++c) to[c] = ToBF16(x(t, c));
    }
  });
}

void ResidualStream::Read(const std::function<void(size_t, MatrixView<const float>)>& body) const {
  Matrix<float> x(PortionTokens(), stream_.cols());
  for (size_t first = 0; first < tokens(); first += PortionTokens()) {
    ThrowIfInterrupted();
    const MatrixView<float> portion = x.view().Rows(0, std::min(PortionTokens(), tokens() - first));
    Load(first, portion);
    body(first, portion);
  }
}

void ResidualStream::Update(const std::function<void(size_t, MatrixView<float>)>& body) {
  Matrix<float> x(PortionTokens(), stream_.cols());
  for (size_t first = 0; first < tokens(); first += PortionTokens()) {
    ThrowIfInterrupted();
    const MatrixView<float> portion = x.view().Rows(0, std::min(PortionTokens(), tokens() - first));
    Load(first, portion);
    body(first, portion);
    Store(first, portion);
  }
}

}  // namespace mica
