#include "compress/curvature/fisher.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/context.h"
#include "base/error.h"
#include "compress/calibrate/moments.h"
#include "compress/curvature/output_information.h"
#include "device/array.h"
#include "device/precision.h"
#include "device/tensor.h"
#include "model/backward.h"
#include "ops/census/census.h"
#include "ops/convert/convert.h"
#include "ops/gram/block_gram.h"

namespace mica {
namespace {

// weights += norms over their mean. norms_there: [1, tokens] FP32.
void AddRelative(ConstTensor norms_there, std::vector<float>& weights) {
  std::vector<float> norms(norms_there.cols);
  Copy(norms_there, MatrixView<float>(norms.data(), 1, norms.size()));
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

uint64_t OutputSumBytes(const ModelConfig& config) {
  uint64_t values = 0;
  for (const LinearKind kind : kLinearKinds) {
    const size_t rows = LinearShape(config, kind).rows, block = OutputBlock(config, rows);
    const uint64_t edge = (block + Gram::kTile - 1) / Gram::kTile, blocks = (rows + block - 1) / block;
    values += config.layers * blocks * (edge * (edge + 1) / 2) * Gram::kTile * Gram::kTile;
  }
  return values * sizeof(double);
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
  // Of the gradients of each matrix, on the device: sums over tokens of squares [1, rows], FP64; squared
  // norms of tokens [1, tokens], FP32.
  std::vector<std::array<Array, kLinearKinds.size()>> squares(config.layers), norms(config.layers);
  const Device device = settings.arithmetic.device;
  for (size_t l = 0; l < config.layers; ++l) {
    for (const LinearKind kind : kLinearKinds) {
      const size_t rows = LinearShape(config, kind).rows;
      if (settings.output_moments) {
        grams[l].emplace_back(rows, OutputBlock(config, rows), device);
      } else {
        Array& sums = squares[l][static_cast<size_t>(kind)];
        sums.Resize(1, rows, DType::kF64, device);
        FillZero(sums.view());
      }
      if (settings.token_weights)
        norms[l][static_cast<size_t>(kind)].Resize(1, part.tokens(), DType::kF32, device);
    }
  }
  progress.Begin("fisher", 2 * config.layers * part.tokens(), "tokens");
  BackwardSettings backward;
  backward.arithmetic = settings.arithmetic;
  backward.sample_labels = settings.sampled_labels;
  backward.seed = settings.seed;
  Moments embedding(config.hidden, device);
  backward.at_embedding = [&](size_t, ConstTensor gradient) {
    InContext("gradients at the embedding", [&] { embedding.Add(gradient); });
  };
  backward.advance = [&](size_t done) { progress.Advance(done); };
  RunBackward(
      weights, part.ids, part.seqlen, settings.stored_bytes, backward, [&](const LinearGradient& gradient) {
        const size_t kind = static_cast<size_t>(gradient.kind);
        if (settings.output_moments) {
          grams[gradient.layer][kind].Add(gradient.gradient, settings.arithmetic.operands());
        } else {
          AddColumnSquares(gradient.gradient, {}, squares[gradient.layer][kind].view());
        }
        if (settings.token_weights)
          RowSquares(gradient.gradient,
                     norms[gradient.layer][kind].view().Cols(gradient.first_token, gradient.gradient.rows));
      });
  progress.End();
  fisher.embedding = InContext("gradients at the embedding", [&] { return embedding.SecondMoment(); });
  for (size_t l = 0; l < config.layers; ++l) {
    for (size_t kind = 0; kind < kLinearKinds.size(); ++kind) {
      if (settings.output_moments) {
        fisher.outputs[l][kind] = grams[l][kind].Mean(tokens);
      } else {
        fisher.outputs[l][kind].fisher = DoublesOf(squares[l][kind].view());
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
        if (InputOf(kind) == input) AddRelative(norms[l][static_cast<size_t>(kind)].view(), of_input);
      }
      FinishWeights(of_input);
    }
    norms[l] = {};
  }
  return fisher;
}

}  // namespace mica
