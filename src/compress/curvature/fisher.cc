#include "compress/curvature/fisher.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "base/context.h"
#include "base/error.h"
#include "compress/calibrate/moments.h"
#include "compress/calibrate/ordered_sum.h"
#include "compress/calibrate/token_blocks.h"
#include "compress/curvature/output_information.h"
#include "device/array.h"
#include "device/cuda.h"
#include "device/precision.h"
#include "device/tensor.h"
#include "model/backward.h"
#include "ops/census/census.h"
#include "ops/convert/convert.h"
#include "ops/gram/block_gram.h"
#include "ops/linalg/arrange.h"

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

// What is known of the gradients of one matrix, run by run on all ranks.
class OutputGradients {
 public:
  // moments: whether products of different outputs are wanted.
  OutputGradients(size_t rows, size_t block, bool moments, Device device, const TokenBlocks& runs)
      : rows_(rows), block_(block), device_(device), squares_(runs) {
    if (moments) moments_.emplace(runs, rows, block, device);
  }

  // This rank's of a run; `operands`: the type that products are taken in.
  void Add(ConstTensor gradient, DType operands) {
    if (moments_) {
      if (!products_) products_.emplace(rows_, block_, device_);
      Array buffer;
      products_->Add(Converted(gradient, operands, buffer));
      return;
    }
    if (sums_.empty()) {
      sums_.Resize(1, rows_, DType::kF64, device_);
      FillZero(sums_.view());
    }
    AddColumnSquares(gradient, {}, sums_.view());
  }
  // After each run, on all ranks.
  void EndStep() {
    if (moments_) {
      Array sum;
      if (products_) {
        sum.Resize(rows_, block_, DType::kF32, device_);
        products_->TakeSums(sum.view());
      }
      Check();  // one run behind, so that the device need not wait for the host
      ended_ = std::exchange(products_, std::nullopt);
      moments_->Add(std::move(sum));
      return;
    }
    squares_.Add(sums_.empty() ? std::vector<double>() : DoublesOf(sums_.view()));
    sums_ = Array();
  }

  OutputInformation TakeMean(double tokens) {
    OutputInformation outputs;
    if (!moments_) {
      outputs.fisher = squares_.Sum();
      for (double& energy : outputs.fisher) energy /= tokens;
      return outputs;
    }
    Check();
    Array mean = moments_->Take();
    ScaleValues(static_cast<float>(1.0 / tokens), std::as_const(mean).view(), mean.view());
    outputs.moments = Matrix<float>(rows_, block_);
    if (device_.is_cuda()) {
      DownloadBytes(device_, outputs.moments.data(), mean.view().data, outputs.moments.size() * sizeof(float));
    } else {
      Copy(mean.view(), outputs.moments);
    }
    for (size_t r = 0; r < rows_; ++r) outputs.fisher.push_back(outputs.moments(r, r % block_));
    return outputs;
  }

 private:
  void Check() {
    if (ended_) ended_->Check();
    ended_.reset();
  }

  const size_t rows_, block_;
  const Device device_;
  std::optional<BlockGram> products_;   // of the run at hand
  std::optional<BlockGram> ended_;      // of the run before it, not checked yet
  std::optional<OrderedSum> moments_;
  Array sums_;  // [1, rows] FP64 of squares in the run at hand
  OrderedValues squares_;
};

// norms: [1, tokens of all ranks], each with its own tokens' and zeros -> those of all.
void ShareNorms(const Group& group, Array& norms) {
  if (group.alone()) return;
  std::vector<float> values(norms.cols());
  const MatrixView<float> row(values.data(), 1, values.size());
  Copy(norms.view(), row);
  const std::vector<double> mine(values.begin(), values.end());
  std::fill(values.begin(), values.end(), 0.0f);
  for (const std::vector<double>& of_rank : group.Gather(mine)) {
    for (size_t t = 0; t < values.size(); ++t) values[t] += static_cast<float>(of_rank[t]);
  }
  Copy(row, norms.view());
}

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
    const size_t rows = LinearShape(config, kind).rows;
    values += config.layers * rows * OutputBlock(config, rows);
  }
  return values * sizeof(float);
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
  const Group& group = *settings.arithmetic.group;
  const TokenBlocks runs(part.tokens(), part.seqlen, group, 0);  // a block each
  const Device device = settings.arithmetic.device;
  std::vector<std::vector<OutputGradients>> outputs(config.layers);
  // Squared norms of the tokens' gradients at the outputs of each matrix [1, tokens], FP32 on the device.
  std::vector<std::array<Array, kLinearKinds.size()>> norms(config.layers);
  for (size_t l = 0; l < config.layers; ++l) {
    for (const LinearKind kind : kLinearKinds) {
      const size_t rows = LinearShape(config, kind).rows;
      outputs[l].emplace_back(rows, OutputBlock(config, rows), settings.output_moments, device, runs);
      if (!settings.token_weights) continue;
      Array& of_matrix = norms[l][static_cast<size_t>(kind)];
      of_matrix.Resize(1, part.tokens(), DType::kF32, device);
      FillZero(of_matrix.view());
    }
  }
  progress.Begin("fisher", 2 * config.layers * part.tokens(), "tokens");
  BackwardSettings backward;
  backward.arithmetic = settings.arithmetic;
  backward.sample_labels = settings.sampled_labels;
  backward.seed = settings.seed;
  backward.most_runs = runs.steps();
  for (size_t step = 0; step < runs.steps(); ++step) {
    if (const TokenRange run = runs.Mine(step); !run.empty()) backward.places.push_back(run.first);
  }
  BlockMoments embedding(config.hidden, device, runs);
  const auto end_step = [&](size_t layer) {
    for (OutputGradients& of_matrix : outputs[layer]) of_matrix.EndStep();
    if (layer == 0) InContext("gradients at the embedding", [&] { embedding.EndStep(); });
  };
  backward.at_embedding = [&](size_t, ConstTensor gradient) {
    InContext("gradients at the embedding", [&] { embedding.Add(gradient); });
  };
  backward.run_done = end_step;
  backward.layer_done = [&](size_t layer, bool last) {
    if (last && runs.Mine(runs.steps() - 1).empty()) end_step(layer);
  };
  uint64_t done = 0, reported = 0;
  backward.advance = [&](size_t count) {
    done += count;
    const uint64_t now = done * part.tokens() / runs.MineTokens();  // other ranks are about as far
    progress.Advance(now - std::exchange(reported, now));
  };
  // Groups of runs are the same on all ranks.
  size_t stored_bytes = settings.stored_bytes;
  const std::vector<double> own{static_cast<double>(stored_bytes)};
  for (const std::vector<double>& of_rank : group.Gather(own))
    stored_bytes = std::min(stored_bytes, static_cast<size_t>(of_rank[0]));
  RunBackward(weights, runs.MineOf(std::span<const int32_t>(part.ids)), part.seqlen, stored_bytes, backward,
              [&](const LinearGradient& gradient) {
                const size_t kind = static_cast<size_t>(gradient.kind);
                outputs[gradient.layer][kind].Add(gradient.gradient, settings.arithmetic.operands());
                if (settings.token_weights)
                  RowSquares(gradient.gradient, norms[gradient.layer][kind].view().Cols(gradient.first_token,
                                                                                        gradient.gradient.rows));
              });
  progress.End();
  fisher.outputs.resize(config.layers);
  fisher.embedding = Matrix<float>(config.hidden, config.hidden);
  InContext("gradients at the embedding",
            [&] {
              const Array h = embedding.TakeSecondMoment();
              Copy(h.view(), fisher.embedding);
            });
  for (size_t l = 0; l < config.layers; ++l) {
    for (size_t kind = 0; kind < kLinearKinds.size(); ++kind) {
      fisher.outputs[l][kind] = outputs[l][kind].TakeMean(tokens);
      for (const double energy : fisher.outputs[l][kind].fisher) {
        if (std::isfinite(energy)) continue;
        Fail(
            "layer {}, gradients at the outputs of {}: their mean square is {}, expected a finite number; "
            "check the model's weights, or use --fisher-windows 0",
            l, LinearName(kLinearKinds[kind]), energy);
      }
    }
    outputs[l].clear();
    if (!settings.token_weights) continue;
    auto& weights = fisher.token_weights.emplace_back();
    for (Array& of_matrix : norms[l]) ShareNorms(group, of_matrix);
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
