#include "compress/curvature/fisher.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/threads.h"
#include "compress/curvature/output_information.h"
#include "device/array.h"
#include "device/precision.h"
#include "device/tensor.h"
#include "model/backward.h"
#include "ops/convert/convert.h"
#include "ops/gram/block_gram.h"

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

// norms[t] = |gradient at token t|^2.
void SquaredNorms(MatrixView<const float> gradient, float* norms) {
  ParallelFor((gradient.rows + kRowBlock - 1) / kRowBlock, [&](size_t block) {
    for (size_t t = block * kRowBlock; t < std::min(gradient.rows, (block + 1) * kRowBlock); ++t) {
      const float* g = gradient.row(t);
      double sum = 0;
      for (size_t r = 0; r < gradient.cols; ++r) sum += static_cast<double>(g[r]) * g[r];
      norms[t] = static_cast<float>(sum);
    }
  });
}

// weights += norms over their mean.
void AddRelative(const std::vector<float>& norms, std::vector<float>& weights) {
  double sum = 0;
  for (const float norm : norms) sum += norm;
  if (!(sum > 0)) return;
  const auto factor = static_cast<float>(static_cast<double>(norms.size()) / sum);
  for (size_t t = 0; t < norms.size(); ++t) weights[t] += factor * norms[t];
}

// Squared norms -> weights of mean 1; no token loses all its weight.
void FinishWeights(std::vector<float>& weights) {
  constexpr double kFloor = 1e-3;  // of the mean, under the root
  double mean = 0;
  for (const float weight : weights) mean += weight;
  mean /= static_cast<double>(weights.size());
  double sum = 0;
  for (float& weight : weights) {
    weight = mean > 0 ? static_cast<float>(std::sqrt(weight + kFloor * mean)) : 1.0f;
    sum += weight;
  }
  for (float& weight : weights) weight *= static_cast<float>(static_cast<double>(weights.size()) / sum);
}

// The moments of one matrix's gradients, block by block.
class OutputGram {
 public:
  OutputGram(size_t rows, size_t block, Device device) : grams_(rows, block, device) {}

  // gradient: [tokens, rows] on the device; its products are taken with operands of this type.
  void Add(ConstTensor gradient, DType operands) {
    Array buffer;
    grams_.Add(Converted(gradient, operands, buffer));
  }

  OutputInformation Mean(double tokens) const {
    OutputInformation outputs;
    outputs.moments = Matrix<float>(grams_.cols(), grams_.block());
    grams_.CopyScaled(1.0 / tokens, outputs.moments);
    outputs.fisher = grams_.Diagonal();
    for (double& energy : outputs.fisher) energy /= tokens;
    return outputs;
  }

 private:
  BlockGram grams_;
};

}  // namespace

size_t OutputBlock(const ModelConfig& config, size_t rows) {
  size_t all_rows = 0;
  for (const LinearKind kind : kLinearKinds) all_rows += config.layers * LinearShape(config, kind).rows;
  constexpr size_t kUnit = 128;  // whole tiles of rows
  const size_t block = kOutputMomentBytes / sizeof(float) / all_rows / kUnit * kUnit;
  return std::min(rows, std::max(block, kUnit));
}

FisherInformation MeasureFisher(const ModelWeights& weights, const Calibration& calibration,
                                const FisherSettings& settings, Progress& progress) {
  FisherInformation fisher;
  if (settings.token_weights && settings.windows < calibration.samples) {
    Fail("token weights need the gradients of all {} calibration windows, but --fisher-windows is {}",
         calibration.samples, settings.windows);
  }
  if (settings.windows == 0) return fisher;
  const ModelConfig& config = weights.config();
  const Calibration part = calibration.Subset(settings.windows);
  const double tokens = static_cast<double>(part.tokens());
  fisher.outputs.resize(config.layers);
  std::vector<std::vector<OutputGram>> grams(config.layers);
  std::vector<std::array<std::vector<float>, kLinearKinds.size()>> norms(config.layers);
  for (size_t l = 0; l < config.layers; ++l) {
    for (const LinearKind kind : kLinearKinds) {
      const size_t rows = LinearShape(config, kind).rows;
      if (settings.output_moments) {
        grams[l].emplace_back(rows, OutputBlock(config, rows), settings.arithmetic.device);
      } else {
        fisher.outputs[l][static_cast<size_t>(kind)].fisher.assign(rows, 0.0);
      }
      if (settings.token_weights) norms[l][static_cast<size_t>(kind)].resize(part.tokens());
    }
  }
  progress.Begin("fisher", 2 * config.layers * part.tokens(), "tokens");
  BackwardSettings backward;
  backward.arithmetic = settings.arithmetic;
  backward.sample_labels = settings.sampled_labels;
  backward.seed = settings.seed;
  backward.advance = [&](size_t done) { progress.Advance(done); };
  RunBackward(weights, part.ids, part.seqlen, settings.stored_bytes, backward,
              [&](const LinearGradient& gradient) {
                const size_t kind = static_cast<size_t>(gradient.kind);
                if (settings.output_moments) {
                  grams[gradient.layer][kind].Add(gradient.gradient, settings.arithmetic.operands());
                } else {
                  AddSquares(CopyTo(Device::Cpu(), gradient.gradient).view().host<float>(), fisher.outputs[gradient.layer][kind].fisher);
                }
                if (settings.token_weights)
                  SquaredNorms(CopyTo(Device::Cpu(), gradient.gradient).view().host<float>(),
                               norms[gradient.layer][kind].data() + gradient.first_token);
              });
  progress.End();
  for (size_t l = 0; l < config.layers; ++l) {
    for (size_t kind = 0; kind < kLinearKinds.size(); ++kind) {
      if (settings.output_moments) {
        fisher.outputs[l][kind] = grams[l][kind].Mean(tokens);
      } else {
        for (double& sum : fisher.outputs[l][kind].fisher) sum /= tokens;
      }
      for (const double energy : fisher.outputs[l][kind].fisher) {
        if (std::isfinite(energy)) continue;
        Fail(
            "layer {}, gradients at the outputs of {}: their mean square is {}, expected a finite number; "
            "check the model's weights, or use --fisher-windows 0",
            l, LinearName(kLinearKinds[kind]), energy);
      }
    }
    grams[l].clear();
    if (!settings.token_weights) continue;
    auto& weights = fisher.token_weights.emplace_back();
    for (const InputKind input : kInputKinds) {
      std::vector<float>& of_input = weights[static_cast<size_t>(input)];
      of_input.assign(part.tokens(), 0.0f);
      for (const LinearKind kind : kLinearKinds) {
        if (InputOf(kind) == input) AddRelative(norms[l][static_cast<size_t>(kind)], of_input);
      }
      FinishWeights(of_input);
    }
    norms[l] = {};
  }
  return fisher;
}

}  // namespace mica
