#include "compress/calibrate/residual_stream.h"

#include <algorithm>

#include "ops/convert/convert.h"

namespace mica {
ResidualStream::ResidualStream(const ModelWeights& weights, const Calibration& calibration,
                               size_t wanted_tokens)
    : window_(calibration.seqlen),
      portion_tokens_(std::max<size_t>(1, wanted_tokens / run_tokens()) * run_tokens()),
      stream_(calibration.tokens(), weights.config().hidden) {
  const std::span<const int32_t> ids(calibration.ids);
  for (size_t portion = 0; portion < portions(); ++portion) {
    const size_t first = portion * portion_tokens();
    Matrix<float> x(std::min(portion_tokens(), tokens() - first), stream_.cols());
    weights.Embed(ids.subspan(first, x.rows()), x);
    Store(portion, x);
  }
}

Matrix<float> ResidualStream::Load(size_t portion) const {
  const size_t first = portion * portion_tokens();
  Matrix<float> x(std::min(portion_tokens(), tokens() - first), stream_.cols());
  Convert(stream_.view().Rows(first, x.rows()), x);
  return x;
}

void ResidualStream::Store(size_t portion, MatrixView<const float> x) {
  Convert(x, stream_.view().Rows(portion * portion_tokens(), x.rows));
}

}  // namespace mica
