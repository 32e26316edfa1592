#include "compress/inform/statistics.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <future>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>

#include "base/context.h"
#include "base/error.h"
#include "base/log.h"
#include "base/system.h"
#include "compress/calibrate/head_pass.h"
#include "compress/calibrate/layer_pass.h"
#include "compress/calibrate/moments.h"
#include "compress/calibrate/residual_stream.h"
#include "compress/curvature/fisher.h"
#include "compress/curvature/score_histogram.h"
#include "compress/inform/column_exponents.h"
#include "compress/inform/statistics_fields.h"
#include "device/background_work.h"
#include "device/cuda.h"
#include "device/device.h"
#include "device/memory_plan.h"
#include "device/precision.h"
#include "device/tensor.h"
#include "model/read_ahead.h"
#include "ops/census/census.h"
#include "ops/census/pairs.h"
#include "ops/convert/convert.h"
#include "ops/instruction_set.h"
#include "ops/linalg/arrange.h"

namespace mica {
namespace {

Array OnHost(ConstTensor x) { return CopyTo(Device::Cpu(), x); }

// Rows of a linear layer's inputs picked at a fixed stride, spread evenly over the calibration windows.
class TokenSample {
 public:
  TokenSample(size_t tokens, size_t cols, size_t picked)
      : stride_(std::max<size_t>(1, tokens / picked)), rows_(std::min(tokens, picked), cols) {}

  void Add(size_t first_token, ConstTensor x) {
    const size_t first = (stride_ - first_token % stride_) % stride_;
    const size_t row = (first_token + first) / stride_;  // of the sample
    if (first >= x.rows || row >= rows_.rows()) return;
    const size_t count = std::min((x.rows - first + stride_ - 1) / stride_, rows_.rows() - row);
    ConstTensor picked = x.Rows(first, count);
    picked.stride *= stride_;
    Convert(OnHost(picked).view(), rows_.view().Rows(row, count));
  }
  // Every rank gets what each has picked of its blocks.
  void Share(const TokenBlocks& blocks) {
    const Group& group = blocks.group();
    for (size_t block = 0; !group.alone() && block < blocks.count(); ++block) {
      const TokenRange tokens = blocks.Block(block);
      const auto row = [&](size_t token) { return std::min((token + stride_ - 1) / stride_, rows_.rows()); };
      const size_t first = row(tokens.first), count = row(tokens.first + tokens.count) - first;
      group.Broadcast(block % group.size(), Tensor(rows_.view().Rows(first, count)));
    }
  }
  MatrixView<const float> view() const { return rows_.view(); }

 private:
  size_t stride_;
  Matrix<float> rows_;
};

void Summarise(ConstTensor h, const DampedFactor& factor, InputStatistics& statistics) {
  const std::vector<float> diagonal = DiagonalOf(h);
  statistics.energy.assign(diagonal.begin(), diagonal.end());
  statistics.information = factor.Information(h);
  statistics.inverse_diagonal = factor.InverseDiagonal();
}

// What the groups of an input's channels come from.
struct PairSource {
  Array second_moment;
  std::vector<double> mean;
  std::optional<TokenSample> sample;  // for estimators that look at tokens
};

// Groups the channels of an input. The matrix of second moments becomes that of the affinities: nothing else
// of its size is made, where it is on a device.
void GroupInput(PairSource source, const StatisticsSettings& settings, InputStatistics& statistics) {
  const InformationSettings& information = settings.information;
  const Tensor pairs = source.second_moment.view();
  if (source.sample.has_value()) {
    SampledInformation(source.sample->view(), information.estimator, settings.seed, pairs);
    source.sample.reset();
  } else {
    GaussianInformation(pairs, source.mean, pairs);
  }
  statistics.mean_pair_information = MeanOverPairs(pairs);
  NormaliseInformation(pairs);
  Grouping grouping = GroupChannels(pairs, information.grouping, information.groups, settings.seed);
  statistics.group = std::move(grouping.group);
  statistics.groups = grouping.groups;
  statistics.silhouette = grouping.silhouette;
}

// Work on the inputs of a layer that nothing waits for: beside the next layer's sweep where a GPU computes,
// each on a thread and a queue of its own; at once on the processor, whose threads all compute.
class Beside {
 public:
  explicit Beside(Device device) : device_(device) {}

  template <typename Work>
  void Start(Work work) {
    if (!device_.is_cuda()) return work();
    Synchronize(device_);  // another thread goes on with what this one has made
    running_.push_back(std::async(std::launch::async, std::move(work)));
  }
  void Wait() {
    const double since = MonotonicSeconds();
    for (std::future<void>& work : running_) work.get();
    running_.clear();
    waited_ += MonotonicSeconds() - since;
  }
  double waited() const { return waited_; }  // seconds

 private:
  Device device_;
  double waited_ = 0;
  std::vector<std::future<void>> running_;  // whose destruction waits
};

// What a failure is about: "layer 2, inputs of mlp.down_proj".
std::string InputPlace(size_t layer, InputKind input) {
  return fmt::format("layer {}, inputs of {}", layer, InputName(input));
}

// A layer whose tokens have all been summed.
struct LayerSums {
  std::unique_ptr<LayerWeights> weights;
  std::vector<Array> second;               // of each input: E[x x^T]
  std::vector<std::vector<double>> means;  // and E[x]
  std::vector<TokenSample> samples;        // and tokens, for estimators that look at them
};

// sum of f_r w_rc^2 H_cc over the weights of a matrix.
double SignalOf(const InputStatistics& input, const LinearStatistics& linear) {
  return std::inner_product(input.energy.begin(), input.energy.end(), linear.weight_energy.begin(), 0.0);
}

// What the weights of a matrix say of it; its Fisher information is there.
void MeasureWeights(ConstTensor w, LinearStatistics& linear) {
  const std::vector<int8_t> exponents = ColumnExponents(w);
  linear.col_exponents.assign(exponents.begin(), exponents.end());
  linear.weight_energy = ColumnSquares(w, linear.outputs.fisher);
  linear.score_shares = ScoreShares(w, RowImportance(linear.outputs.fisher));
}

// Whether weights are wanted once the sums are there.
bool WantsWeights(const StatisticsSettings& settings) { return settings.step_sizes || settings.measure_grids; }

// What follows from the sums of a layer, and from its weights where these are wanted. Uses the sums up.
void MeasureLayer(size_t l, LayerSums& sums, const StatisticsSettings& settings, Device device,
                  std::array<InputStatistics, kInputKinds.size()>& inputs,
                  std::array<LinearStatistics, kLinearKinds.size()>& linears) {
  // The processor plans rows while a GPU factors. [kLinearKinds]
  std::shared_future<std::shared_ptr<std::vector<StepPlan>>> planning;
  if (settings.step_sizes) {
    planning = std::async(device.is_cuda() ? std::launch::async : std::launch::deferred, [&] {
      auto plans = std::make_shared<std::vector<StepPlan>>();
      for (const LinearKind kind : kLinearKinds) {
        plans->push_back(InContext(InputPlace(l, InputOf(kind)), [&] {
          return PlanRowSteps(linears[static_cast<size_t>(kind)].outputs, 0, {});
        }));
      }
      return plans;
    });
  }
  const auto measure = [&](InputKind input) {
    const size_t k = static_cast<size_t>(input);
    const ConstTensor h = std::as_const(sums.second[k]).view();
    const auto factor = InContext(InputPlace(l, input), [&] {
      return std::make_shared<const DampedFactor>(h, std::vector<uint32_t>(), settings.damping);
    });
    InContext(InputPlace(l, input), [&] { Summarise(h, *factor, inputs[k]); });
    // Steps in the order of the channels: their product, and nearly the rates, are those of any other order.
    std::shared_ptr<const ColumnSteps> columns;
    if (settings.step_sizes) columns = std::make_shared<const ColumnSteps>(PlanColumns(factor));
    for (const LinearKind kind : kLinearKinds) {
      if (InputOf(kind) != input || !WantsWeights(settings)) continue;
      LinearStatistics& linear = linears[static_cast<size_t>(kind)];
      const Array matrix = sums.weights->Take(kind);
      const ConstTensor w = matrix.view();
      MeasureWeights(w, linear);
      const double signal = SignalOf(inputs[k], linear);
      if (settings.measure_grids)
        linear.grids = settings.measure_grids({l, kind, w, h, *factor, linear.outputs.fisher, signal});
      if (!settings.step_sizes) continue;
      StepPlan plan = std::move((*std::shared_future(planning).get())[static_cast<size_t>(kind)]);
      WeighBySignal(signal, plan);
      plan.columns = columns;
      linear.sizes = MeasureSizes(w, plan);
    }
  };
  const auto group = [&](InputKind input) {
    const size_t k = static_cast<size_t>(input);
    PairSource source{std::move(sums.second[k]), std::move(sums.means[k]), {}};
    if (!sums.samples.empty()) source.sample = std::move(sums.samples[k]);
    InContext(InputPlace(l, input), [&] { GroupInput(std::move(source), settings, inputs[k]); });
  };
  const bool grouped = settings.information.grouping != GroupingMethod::kWaterfill;
  Beside measuring(device), grouping(device);  // last: they use the others
  for (const InputKind input : kInputKinds) {
    ThrowIfInterrupted();
    if (settings.inputs_at_once) {
      measuring.Start([&measure, &group, grouped, input] {
        measure(input);
        if (grouped) group(input);
      });
      continue;
    }
    measure(input);
    if (grouped) grouping.Start([&group, input] { group(input); });
  }
  measuring.Wait();
  grouping.Wait();
}

// Rows of a vocabulary that stand for all.
constexpr size_t kEndRows = 512;

// What embedding and head lose on the grids, by the mean over some of their rows: each token's embedding is
// fed in as often as it occurs, and the shares of all tokens sum up to 1; a row v of the head weighs p_v (1 -
// p_v), whose sum is in the weights of the tokens.
void MeasureEnds(const ModelWeights& weights, const Calibration& calibration, const ResidualStream& stream,
                 const StatisticsSettings& settings, const Arithmetic& arithmetic, EndStatistics& ends) {
  const ModelConfig& config = weights.config();
  const Device device = arithmetic.device;
  const size_t count = std::min(config.vocab, kEndRows), step = config.vocab / count;
  std::vector<int32_t> ids;
  for (size_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>(step / 2 + i * step));
  const std::vector<double> alike(count, 1.0);
  const auto measure = [&](const char* what, ConstTensor rows, ConstTensor h) {
    const DampedFactor factor =
        InContext(what, [&] { return DampedFactor(h, std::vector<uint32_t>(), settings.damping); });
    const std::vector<double> squares = ColumnSquares(rows);
    const std::vector<float> energy = DiagonalOf(h);
    const double signal =
        std::inner_product(squares.begin(), squares.end(), energy.begin(), 0.0) / static_cast<double>(count);
    return settings.measure_ends({0, LinearKind::kQ, rows, h, factor, alike, signal});
  };
  Array rows(count, config.hidden, DType::kF32, device);
  weights.EmbeddingRows(ids, rows.view());
  if (!ends.embedding.empty() || !ends.head.empty()) {
    const Array h = CopyTo(device, EmbeddingMoments(ends));
    ends.embedding_losses = measure("gradients at the embedding", std::as_const(rows).view(), h.view());
  }
  if (config.tied_head) return;
  const std::vector<float> of_tokens = HeadTokenWeights(weights, calibration.ids, stream, arithmetic);
  const HeadMoments moments = MeasureHeadInputs(weights, stream, {}, of_tokens, arithmetic, [](uint64_t) {});
  for (size_t i = 0; i < count; ++i) {
    const Array row = weights.HeadOn(device, static_cast<size_t>(ids[i]), 1, DType::kF32);
    Copy(row.view(), rows.view().Rows(i, 1));
  }
  ends.head_losses = measure("inputs of the output head", std::as_const(rows).view(), moments.h.view());
}

// Layers were measured by one rank each, l by rank l % size; all get them.
void ShareLayers(const Group& group, Statistics& statistics) {
  if (group.alone()) return;
  const size_t layers = statistics.inputs.size();
  std::vector<double> mine;
  for (size_t l = group.rank(); l < layers; l += group.size()) {
    VisitNumbers(std::as_const(statistics), l, [&](const auto& values) {
      mine.push_back(static_cast<double>(values.size()));
      mine.insert(mine.end(), values.begin(), values.end());
    });
  }
  const std::vector<std::vector<double>> all = group.Gather(mine);
  std::vector<const double*> next;
  for (const std::vector<double>& of_rank : all) next.push_back(of_rank.data());
  for (size_t l = 0; l < layers; ++l) {
    const double*& from = next[l % group.size()];
    VisitNumbers(statistics, l, [&](auto& values) {
      using Value = typename std::remove_reference_t<decltype(values)>::value_type;
      values.resize(static_cast<size_t>(*from++));
      for (Value& value : values) value = static_cast<Value>(*from++);
    });
  }
}

}  // namespace

Matrix<float> EmbeddingMoments(const EndStatistics& statistics) {
  const size_t hidden = std::max(statistics.embedding.rows(), statistics.head.rows());
  Matrix<float> h(hidden, hidden, 0.0f);
  const auto add = [&](const Matrix<float>& part) {
    for (size_t i = 0; i < part.size(); ++i) h.data()[i] += part.data()[i];
  };
  add(statistics.embedding);
  double trace = 0;
  for (size_t j = 0; j < hidden; ++j) trace += h(j, j);
  for (size_t j = 0; j < hidden; ++j) h(j, j) += static_cast<float>(trace / static_cast<double>(hidden));
  add(statistics.head);
  return h;
}

Identity StatisticsIdentity(const std::string& model, const Calibration& calibration,
                            const StatisticsSettings& settings, const Arithmetic& arithmetic) {
  Identity identity;
  identity.Add("version of the file", kStatisticsVersion);
  identity.Add("model", model);
  identity.Add(CalibrationIdentity(calibration.provenance));
  identity.Add("--samples", calibration.provenance.samples);
  identity.Add("--seqlen", calibration.provenance.seqlen);
  identity.Add("--grouping", GroupingMethodName(settings.information.grouping));
  identity.Add("--estimator", EstimatorName(settings.information.estimator));
  identity.Add("--groups", settings.information.groups);
  identity.Add("--damping", settings.damping);
  identity.Add("--statistics-windows", settings.information.windows);
  identity.Add("--fisher-windows", settings.fisher.windows);
  identity.Add("moments of outputs", settings.fisher.output_moments);
  identity.Add("--token-weights", settings.fisher.token_weights);
  identity.Add("--sampled-labels", settings.fisher.sampled_labels);
  identity.Add("sizes in steps", settings.step_sizes);
  identity.Add("losses of embedding and head", settings.measure_ends != nullptr);
  identity.Add("losses on grids", fmt::format("{}", fmt::join(settings.grids, " ")));
  identity.Add("--seed", settings.seed);
  identity.Add("--dtype", PrecisionName(arithmetic.precision));
  identity.Add("device", arithmetic.device.Describe());
  identity.Add("instruction set", InstructionSet());
  return identity;
}

double SignalOf(const Statistics& statistics, size_t layer, LinearKind kind) {
  return SignalOf(statistics.inputs[layer][static_cast<size_t>(InputOf(kind))],
                  statistics.linears[layer][static_cast<size_t>(kind)]);
}

std::vector<double> UseOfChannels(const Statistics& statistics, size_t layer, InputKind input) {
  std::vector<double> use(statistics.inputs[layer][static_cast<size_t>(input)].energy.size(), 0.0);
  for (const LinearKind kind : kLinearKinds) {
    const double signal = InputOf(kind) == input ? SignalOf(statistics, layer, kind) : 0;
    if (!(signal > 0)) continue;
    const std::vector<double>& weights = statistics.linears[layer][static_cast<size_t>(kind)].weight_energy;
    for (size_t j = 0; j < use.size(); ++j) use[j] += weights[j] / signal;
  }
  return use;
}

Statistics CollectStatistics(const ModelWeights& weights, const Calibration& all_windows,
                             const StatisticsSettings& settings, const Arithmetic& arithmetic,
                             Progress& progress) {
  const ModelConfig& config = weights.config();
  const Calibration calibration = all_windows.Subset(settings.information.windows);
  Statistics statistics;
  statistics.inputs.resize(config.layers);
  statistics.linears.resize(config.layers);
  const bool grouped = settings.information.grouping != GroupingMethod::kWaterfill,
             sampled = grouped && settings.information.estimator != Estimator::kGaussian;

  FisherSettings fisher_settings = settings.fisher;
  fisher_settings.seed = settings.seed;
  // On a GPU what is free, for reading the weights again costs more.
  if (arithmetic.device.is_cuda()) fisher_settings.stored_bytes = AvailableMemory(arithmetic.device) / 3;
  fisher_settings.arithmetic = arithmetic;
  FisherInformation fisher = MeasureFisher(weights, all_windows, fisher_settings, progress);
  statistics.ends.embedding = std::move(fisher.embedding);
  if (settings.embedding_known && !config.tied_head) settings.embedding_known(statistics.ends);
  progress.Begin("calibrate", config.layers * calibration.tokens(), "tokens");
  const Device device = arithmetic.device;
  ResidualStream stream(weights, calibration, ResidualStream::kPortionTokens, arithmetic, settings.rest);
  ReadAhead<LayerWeights> ahead(config.layers, device, [&](size_t layer) {
    auto matrices = std::make_unique<LayerWeights>(weights, layer, device);
    matrices->ReadAhead();
    return matrices;
  });
  const Group& group = *arithmetic.group;
  Beside measuring(device);
  const BackgroundWork sweeps(device);  // give way to what is measured
  uint64_t done = 0, reported = 0;      // tokens of this rank, and of all
  for (size_t l = 0; l < config.layers; ++l) {
    auto measured = std::make_shared<LayerSums>();
    measured->weights = ahead.Next();
    LayerWeights& layer_weights = *measured->weights;
    const size_t owner = l % group.size();  // of what follows from the sums
    const bool mine = owner == group.rank();
    std::optional<DecoderLayer> layer(std::in_place, layer_weights, arithmetic);
    for (const LinearKind kind : kLinearKinds) {
      LinearStatistics& linear = statistics.linears[l][static_cast<size_t>(kind)];
      if (fisher.outputs.empty()) {
        linear.outputs.fisher.assign(LinearShape(config, kind).rows, 1.0);
      } else {
        linear.outputs = std::move(fisher.outputs[l][static_cast<size_t>(kind)]);
      }
      layer->SetLinear(kind, layer_weights.Linear(kind).view());
      if (mine && WantsWeights(settings)) continue;
      if (mine) MeasureWeights(layer_weights.Linear(kind).view(), linear);
      layer_weights.Take(kind);  // its last use
    }
    std::vector<BlockMoments> moments;
    for (const InputKind kind : kInputKinds) {
      moments.emplace_back(InputCols(config, kind), device, stream.blocks());
      if (sampled)
        measured->samples.emplace_back(calibration.tokens(), InputCols(config, kind),
                                       SampleTokens(settings.information.estimator));
    }
    size_t index = 0;
    for (size_t step = 0; step < stream.blocks().steps(); ++step) {
      for (; index < stream.portions().size() && stream.portions()[index].step == step; ++index) {
        ThrowIfInterrupted();
        const StreamPortion& portion = stream.portions()[index];
        Array x = stream.Load(portion);
        layer->Forward(x.view(), stream.window(), [&](InputKind kind, ConstTensor inputs) {
          InContext(InputPlace(l, kind), [&] {
            ForRuns(inputs.rows, stream.run_tokens(), [&](size_t first, size_t count) {
              moments[static_cast<size_t>(kind)].Add(inputs.Rows(first, count));
            });
          });
          if (sampled) measured->samples[static_cast<size_t>(kind)].Add(portion.place, inputs);
        });
        stream.Store(portion, x.view());
        done += x.rows();
        const uint64_t now = done * calibration.tokens() / stream.tokens();  // other ranks are about as far
        progress.Advance(now - std::exchange(reported, now), fmt::format("layer {}/{}", l + 1, config.layers));
      }
      for (const InputKind kind : kInputKinds)
        InContext(InputPlace(l, kind), [&] { moments[static_cast<size_t>(kind)].EndStep(); });
    }
    for (TokenSample& sample : measured->samples) sample.Share(stream.blocks());
    layer.reset();
    if (mine) measuring.Wait();  // one layer of its own behind at most, for the memory of its sums
    for (const InputKind input : kInputKinds) {
      BlockMoments& of_input = moments[static_cast<size_t>(input)];
      measured->second.push_back(InContext(InputPlace(l, input), [&] { return of_input.TakeSecondMoment(owner); }));
      measured->means.push_back(of_input.Mean());
      if (settings.fisher.token_weights) {
        statistics.inputs[l][static_cast<size_t>(input)].token_weights =
            std::move(fisher.token_weights[l][static_cast<size_t>(input)]);
      }
    }
    if (!mine) continue;
    measuring.Start([&settings, device, l, measured = std::move(measured), &inputs = statistics.inputs[l],
                     &linears = statistics.linears[l]] {
      MeasureLayer(l, *measured, settings, device, inputs, linears);
    });
  }
  measuring.Wait();
  if (device.is_cuda()) LogDebug("{:.2f} s waited for what follows from the layers' sums", measuring.waited());
  ShareLayers(group, statistics);
  if (config.tied_head) {
    const std::vector<float> of_tokens = HeadTokenWeights(weights, calibration.ids, stream, arithmetic);
    const HeadMoments moments =
        MeasureHeadInputs(weights, stream, {}, of_tokens, arithmetic, [](uint64_t) {});
    statistics.ends.head = Matrix<float>(config.hidden, config.hidden);
    Copy(moments.h.view(), statistics.ends.head);
  }
  if (settings.measure_ends) MeasureEnds(weights, calibration, stream, settings, arithmetic, statistics.ends);
  progress.End();
  return statistics;
}

}  // namespace mica
