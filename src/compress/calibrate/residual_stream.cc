#include "compress/calibrate/residual_stream.h"

#include <algorithm>

#include "ops/convert/convert.h"

namespace mica {

ResidualStream::ResidualStream(const ModelWeights& weights, const Calibration& calibration,
                               size_t wanted_tokens, const Arithmetic& arithmetic, Device rest)
    : ResidualStream([&](std::span<const int32_t> ids, Tensor out) { weights.Embed(ids, out); },
                     weights.config().hidden, calibration, wanted_tokens, arithmetic, rest) {}

ResidualStream::ResidualStream(const Embedding& embed, size_t hidden, const Calibration& calibration,
                               size_t wanted_tokens, const Arithmetic& arithmetic, Device rest)
    : blocks_(calibration.tokens(), calibration.seqlen, *arithmetic.group),
      window_(calibration.seqlen),
      device_(arithmetic.device),
      stream_(NewResting(blocks_.MineTokens(), hidden, DType::kBF16, device_, rest)) {
  const size_t whole = std::max<size_t>(1, wanted_tokens / run_tokens()) * run_tokens();
  size_t row = 0;
  for (size_t step = 0; step < blocks_.steps(); ++step) {
    const TokenRange block = blocks_.Mine(step);
    for (size_t first = 0; first < block.count; first += whole) {
      const size_t count = std::min(whole, block.count - first);
      portions_.push_back({row, count, block.first + first, step});
      row += count;
    }
  }
  // On a GPU the whole table of embeddings goes there for each call.
  const size_t at_once = device_.is_cuda() ? std::max(whole, kPortionTokens * 8) : whole;
  const std::vector<int32_t> ids = blocks_.MineOf(std::span<const int32_t>(calibration.ids));
  for (size_t first = 0; first < ids.size(); first += at_once) {
    StreamPortion part{first, std::min(at_once, ids.size() - first)};
    Array x(part.tokens, hidden, DType::kF32, device_);
    embed(std::span<const int32_t>(ids).subspan(part.first, part.tokens), x.view());
    Store(part, x.view());
  }
}

Array ResidualStream::Load(const StreamPortion& portion) const {
  Array x(portion.tokens, stream_.cols(), DType::kF32, device_);
  const ConstTensor part = stream_.view().Rows(portion.first, portion.tokens);
  if (rest() == device_) {
    Convert(part, x.view());
  } else {
    const Array there = CopyTo(device_, part);
    Convert(there.view(), x.view());
  }
  return x;
}

void ResidualStream::Store(const StreamPortion& portion, ConstTensor x) {
  const Tensor part = stream_.view().Rows(portion.first, x.rows);
  if (rest() == device_) {
    Convert(x, part);
    return;
  }
  Array rounded(x.rows, x.cols, part.dtype, device_);
  Convert(x, rounded.view());
  Copy(rounded.view(), part);
}

}  // namespace mica
