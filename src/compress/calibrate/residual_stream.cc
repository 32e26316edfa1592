#include "compress/calibrate/residual_stream.h"

#include <algorithm>

#include "ops/convert/convert.h"

namespace mica {

ResidualStream::ResidualStream(const ModelWeights& weights, const Calibration& calibration,
                               size_t wanted_tokens, Device device)
    : window_(calibration.seqlen),
      portion_tokens_(std::max<size_t>(1, wanted_tokens / run_tokens()) * run_tokens()),
      stream_(calibration.tokens(), weights.config().hidden, DType::kBF16, device) {
  // On a GPU the whole table of embeddings goes there for each call.
  const size_t step = device.is_cuda() ? std::max(portion_tokens(), kPortionTokens * 8) / portion_tokens() : 1;
  const std::span<const int32_t> ids(calibration.ids);
  for (size_t portion = 0; portion < portions(); portion += step) {
    const size_t first = portion * portion_tokens();
    Array x(std::min(step * portion_tokens(), tokens() - first), stream_.cols(), DType::kF32, device);
    weights.Embed(ids.subspan(first, x.rows()), x.view());
    Store(portion, x.view());
  }
}

Array ResidualStream::Load(size_t portion) const {
  const size_t first = portion * portion_tokens();
  Array x(std::min(portion_tokens(), tokens() - first), stream_.cols(), DType::kF32, stream_.device());
  Convert(stream_.view().Rows(first, x.rows()), x.view());
  return x;
}

void ResidualStream::Store(size_t portion, ConstTensor x) {
  Convert(x, stream_.view().Rows(portion * portion_tokens(), x.rows));
}

}  // namespace mica
