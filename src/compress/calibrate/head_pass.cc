#include "compress/calibrate/head_pass.h"

#include <cmath>
#include <optional>

#include "base/context.h"
#include "base/error.h"
#include "base/system.h"
#include "compress/calibrate/drift.h"
#include "compress/calibrate/moments.h"
#include "model/layer.h"
#include "model/window.h"
#include "ops/norm/norm.h"

namespace mica {

std::vector<float> HeadTokenWeights(const ModelWeights& weights, std::span<const int32_t> ids,
                                    const ResidualStream& stream, const Arithmetic& arithmetic) {
  MICA_CHECK(ids.size() == stream.tokens());
  const OutputHead head(weights, arithmetic);
  std::vector<float> of_tokens(stream.tokens());
  for (size_t portion = 0; portion < stream.portions(); ++portion) {
    ThrowIfInterrupted();
    const Array x = stream.Load(portion);
    const size_t first = portion * stream.portion_tokens();
    std::vector<int32_t> targets(x.rows(), -1);
    for (size_t t = 0; t < x.rows(); ++t) {
      if ((first + t + 1) % stream.window() != 0) targets[t] = ids[first + t + 1];
    }
    const std::span<float> losses = std::span(of_tokens).subspan(first, x.rows());
    head.NegativeLogLikelihood(x.view(), targets, losses);
    for (float& value : losses) value = -std::expm1(-value);
  }
  return of_tokens;
}

HeadMoments MeasureHeadInputs(const ModelWeights& model, const ResidualStream& stream,
                              const Original& original, std::span<const float> weights,
                              const Arithmetic& arithmetic, const TokenProgress& progress) {
  MICA_CHECK(weights.empty() || weights.size() == stream.tokens());
  const ModelConfig& config = model.config();
  const Device device = arithmetic.device;
  const Array norm = CopyTo(device, model.HeadNorm());
  const auto normed = [&](const Array& x) {
    Array out(x.rows(), x.cols(), arithmetic.operands(), device);
    RmsNorm(x.view(), norm.view(), config.norm_epsilon, out.view());
    return out;
  };
  std::optional<PortionsTaken> of_original;
  if (original.stream != nullptr) of_original = PortionsTaken::Of(original, stream);
  Moments moments(config.hidden, device);
  std::optional<Drift> drift;
  if (of_original) drift.emplace(config.hidden, config.hidden, device);
  for (size_t portion = 0; portion < stream.portions(); ++portion) {
    ThrowIfInterrupted();
    const Array moved = normed(stream.Load(portion));
    const size_t begin = portion * stream.portion_tokens();
    ForRuns(moved.rows(), stream.run_tokens(), [&](size_t first, size_t count) {
      const std::span<const float> of_run =
          weights.empty() ? weights : weights.subspan(begin + first, count);
      Array scaled[2];  // keep what the views below show
      const ConstTensor x = Weighted(moved.view().Rows(first, count), of_run, scaled[0]);
      InContext("inputs of the output head", [&] { moments.Add(x); });
      const size_t run = (begin + first) / stream.run_tokens();
      if (!of_original || !of_original->Takes(run)) return;
      const Array from = normed(original.stream->Load(run));
      drift->Add(Weighted(from.view(), of_run, scaled[1]), x, x);
    });
    progress(moved.rows());
  }
  HeadMoments result;
  result.h = Array(config.hidden, config.hidden, DType::kF32, device);
  moments.SecondMoment(result.h.view());
  if (drift) result.drift = drift->TakeMean();
  return result;
}

}  // namespace mica
