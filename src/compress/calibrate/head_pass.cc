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
  MICA_CHECK(ids.size() == stream.blocks().tokens());
  const OutputHead head(weights, arithmetic);
  std::vector<float> of_tokens(stream.tokens());
  for (const StreamPortion& portion : stream.portions()) {
    ThrowIfInterrupted();
    const Array x = stream.Load(portion);
    std::vector<int32_t> targets(x.rows(), -1);
    for (size_t t = 0; t < x.rows(); ++t) {
      const size_t next = portion.place + t + 1;
      if (next % stream.window() != 0) targets[t] = ids[next];
    }
    const std::span<float> losses = std::span(of_tokens).subspan(portion.first, x.rows());
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
  std::optional<RunsTaken> of_original;
  if (original.stream != nullptr) of_original = RunsTaken::Of(original, stream);
  const TokenBlocks& blocks = stream.blocks();
  BlockMoments moments(config.hidden, device, blocks);
  std::optional<BlockDrift> drift;
  if (of_original) drift.emplace(config.hidden, config.hidden, device, blocks);
  auto portion = stream.portions().begin();
  for (size_t step = 0; step < blocks.steps(); ++step) {
    for (; portion != stream.portions().end() && portion->step == step; ++portion) {
      ThrowIfInterrupted();
      const Array moved = normed(stream.Load(*portion));
      ForRuns(moved.rows(), stream.run_tokens(), [&](size_t first, size_t count) {
        const std::span<const float> of_run =
            weights.empty() ? weights : weights.subspan(portion->first + first, count);
        Array scaled[2];  // keep what the views below show
        const ConstTensor x = Weighted(moved.view().Rows(first, count), of_run, scaled[0]);
        InContext("inputs of the output head", [&] { moments.Add(x); });
        if (!of_original || !of_original->Takes((portion->place + first) / stream.run_tokens())) return;
        // Its portions are this rank's runs.
        const Array from =
            normed(original.stream->Load(original.stream->portions()[(portion->first + first) / stream.run_tokens()]));
        drift->Add(Weighted(from.view(), of_run, scaled[1]), x, x);
      });
      progress(moved.rows() * blocks.tokens() / stream.tokens());
    }
    InContext("inputs of the output head", [&] { moments.EndStep(); });
    if (drift) drift->EndStep(!blocks.Mine(step).empty());
  }
  HeadMoments result;
  result.h = moments.TakeSecondMoment();
  if (drift) result.drift = drift->TakeMean();
  return result;
}

}  // namespace mica
