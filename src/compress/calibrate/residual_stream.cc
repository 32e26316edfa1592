#include "compress/calibrate/residual_stream.h"

#include <algorithm>

#include "ops/convert/convert.h"

namespace mica {

ResidualStream::ResidualStream(const ModelWeights& weights, const Calibration& calibration,
                               size_t wanted_tokens, Device device, Device rest)
    : ResidualStream([&](std::span<const int32_t> ids, Tensor out) { weights.Embed(ids, out); },
                     weights.config().hidden, calibration, wanted_tokens, device, rest) {}

ResidualStream::ResidualStream(const Embedding& embed, size_t hidden, const Calibration& calibration,
                               size_t wanted_tokens, Device device, Device rest)
    : window_(calibration.seqlen),
      portion_tokens_(std::max<size_t>(1, wanted_tokens / run_tokens()) * run_tokens()),
      device_(device),
      stream_(NewResting(calibration.tokens(), hidden, DType::kBF16, device, rest)) {
  // On a GPU the whole table of embeddings goes there for each call.
  const size_t step =
      device.is_cuda() ? std::max(portion_tokens(), kPortionTokens * 8) / portion_tokens() : 1;
  const std::span<const int32_t> ids(calibration.ids);
  for (size_t portion = 0; portion < portions(); portion += step) {
    const size_t first = portion * portion_tokens();
    Array x(std::min(step * portion_tokens(), tokens() - first), stream_.cols(), DType::kF32, device);
    embed(ids.subspan(first, x.rows()), x.view());
    Store(portion, x.view());
  }
}

Array ResidualStream::Load(size_t portion) const {
  const size_t first = portion * portion_tokens();
  Array x(std::min(portion_tokens(), tokens() - first), stream_.cols(), DType::kF32, device_);
  const ConstTensor part = stream_.view().Rows(first, x.rows());
  if (rest() == device_) {
    Convert(part, x.view());
  } else {
    const Array there = CopyTo(device_, part);
    Convert(there.view(), x.view());
  }
  return x;
}

void ResidualStream::Store(size_t portion, ConstTensor x) {
  const Tensor part = stream_.view().Rows(portion * portion_tokens(), x.rows);
  if (rest() == device_) {
    Convert(x, part);
    return;
  }
  Array rounded(x.rows, x.cols, part.dtype, device_);
  Convert(x, rounded.view());
  Copy(rounded.view(), part);
}

}  // namespace mica
