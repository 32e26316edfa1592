#include "compress/fisher.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/threads.h"
#include "model/backward.h"

namespace mica {
namespace {

constexpr size_t kRowBlock = 64;  // outputs whose squares one thread sums

// sums[r] += sum over tokens of gradient(t, r)^2, in token order.
void AddSquares(MatrixView<const float> gradient, std::vector<double>& sums) {
  ParallelFor((gradient.cols + kRowBlock - 1) / kRowBlock, [&](size_t block) {
    const size_t begin = block * kRowBlock, end = std::min(gradient.cols, begin + kRowBlock);
    for (size_t t = 0; t < gradient.rows; ++t) {
      const float* g = gradient.row(t);
      for (size_t r = begin; r < end; ++r) sums[r] += static_cast<double>(g[r]) * g[r];
    }
  });
}

}  // namespace

FisherInformation MeasureFisher(const ModelWeights& weights, const Calibration& calibration, size_t windows,
                                Precision precision, Progress& progress) {
  FisherInformation fisher;
  if (windows == 0) return fisher;
  const ModelConfig& config = weights.config();
  const Calibration part = calibration.Subset(windows);
  fisher.rows.resize(config.layers);
  for (auto& layer : fisher.rows) {
    for (const LinearKind kind : kLinearKinds)
      layer[static_cast<size_t>(kind)].assign(LinearShape(config, kind).rows, 0.0);
  }
  progress.Begin("fisher", 2 * config.layers * part.tokens(), "tokens");
  BackwardSettings settings;
  settings.precision = precision;
  settings.advance = [&](size_t tokens) { progress.Advance(tokens); };
  RunBackward(weights, part.ids, part.seqlen, settings, [&](const LinearGradient& gradient) {
    AddSquares(gradient.gradient, fisher.rows[gradient.layer][static_cast<size_t>(gradient.kind)]);
  });
  progress.End();
  for (auto& layer : fisher.rows) {
    for (std::vector<double>& rows : layer) {
      for (double& sum : rows) sum /= static_cast<double>(part.tokens());
    }
  }
  return fisher;
}

}  // namespace mica
