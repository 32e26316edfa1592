#include "eval/measure/perplexity.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/system.h"
#include "base/units.h"
#include "device/array.h"
#include "device/cuda.h"
#include "device/precision.h"
#include "model/head_divergence.h"
#include "model/layer.h"
#include "model/read_ahead.h"

namespace mica {
namespace {

// Tokens scored in one call: the head's slices are converted (or decoded) anew in each, which at this many
// tokens costs a few percent.
constexpr size_t kHeadTokens = 16384;

// Bytes of the residual stream of a chunk where no number is given: on a processor what leaves the memory to
// others, on a GPU a third of what is free there, for reading the weights anew costs more.
uint64_t ActivationBytes(const PerplexitySettings& settings) {
  if (settings.activation_bytes) return *settings.activation_bytes;
  const Device device = settings.arithmetic.device;
  return device.is_cuda() ? AvailableMemory(device) / 3 : uint64_t{512} << 20;
}

size_t ChunkWindows(const ModelConfig& config, size_t window, size_t windows, uint64_t activation_bytes) {
  const uint64_t window_bytes = uint64_t{window} * config.hidden * sizeof(float);
  if (windows == 0) return 0;
  const size_t most = std::clamp<uint64_t>(activation_bytes / window_bytes, 1, windows);
  const size_t chunks = (windows + most - 1) / most;
  return (windows + chunks - 1) / chunks;  // chunks of nearly equal size
}

// Of a chunk. as_reference: of a model beside the one that chunks are cut for.
uint64_t StreamBytes(const ModelConfig& config, size_t window, size_t windows,
                     const PerplexitySettings& settings, bool as_reference) {
  const uint64_t bytes = ActivationBytes(settings);
  if (as_reference) return bytes;
  return uint64_t{ChunkWindows(config, window, windows, bytes)} * window * config.hidden * sizeof(float);
}

// Windows that pass through a layer between two looks at the clock and at Ctrl-C.
size_t StepWindows(size_t window, Device device) {
  return std::max<size_t>(1, PortionTokens(device) / window);
}

// Multiplications per token, the unit in which progress is counted.
struct Work {
  double layer = 0;
  double head = 0;
};

Work WorkPerToken(const ModelConfig& config, size_t window) {
  Work work;
  for (const LinearKind kind : kLinearKinds) {
    const MatrixShape shape = LinearShape(config, kind);
    work.layer += static_cast<double>(shape.rows) * static_cast<double>(shape.cols);
  }
  work.layer += static_cast<double>(config.heads * config.head_dim) * static_cast<double>(window);
  work.head = static_cast<double>(config.vocab) * static_cast<double>(config.hidden);
  return work;
}

// Turns work done into whole tokens.
class TokenMeter {
 public:
  TokenMeter(double work_per_token, const TokensDone& report) : per_token_(work_per_token), report_(report) {}
  void Add(double work, const std::string& detail) {
    if (!report_) return;
    done_ += work;
    const uint64_t tokens = static_cast<uint64_t>(done_ / per_token_ + 1e-6);
    report_(tokens - reported_, detail);
    reported_ = tokens;
  }

 private:
  double per_token_;
  const TokensDone& report_;
  double done_ = 0;
  uint64_t reported_ = 0;
};

}  // namespace

const char* ConventionName(Convention convention) {
  return convention == Convention::kGptq ? "gptq" : "llamacpp";
}

Convention ParseConvention(const std::string& name) {
  if (name == "gptq") return Convention::kGptq;
  if (name == "llamacpp") return Convention::kLlamacpp;
  Fail("convention '{}' is not known; use gptq or llamacpp", name);
}

int32_t Windows::Target(size_t w, size_t t) const {
  return t + 1 < window && t + 1 >= first_scored ? ids[w * window + t + 1] : -1;
}

BosPlace PlaceIn(Convention convention, BosPlace place) {
  return convention == Convention::kLlamacpp && place == BosPlace::kText ? BosPlace::kWindow : place;
}

Windows CutWindows(const std::vector<int32_t>& text_ids, const Bos& bos, size_t window, Convention convention,
                   size_t max_windows, const std::string& where) {
  Windows windows;
  windows.window = window;
  windows.first_scored = convention == Convention::kGptq ? 1 : window / 2 + 1;
  if (window <= windows.first_scored) {
    Fail("--seqlen {} leaves nothing to score in convention {}; use at least {}", window,
         ConventionName(convention), convention == Convention::kGptq ? 2 : 3);
  }
  windows.text_tokens = text_ids.size() + bos.before_text();
  size_t count = windows.text_tokens / window;
  if (count == 0) {
    Fail(
        "{}: has {} tokens{}, fewer than one window of {}; give a longer text or a --seqlen of "
        "{} or less",
        where, windows.text_tokens, bos.before_text() != 0 ? " (BOS included)" : "", window,
        windows.text_tokens);
  }
  if (max_windows != 0) count = std::min(count, max_windows);
  windows.ids.reserve(count * window);
  windows.ids.assign(bos.before_text(), bos.id);
  windows.ids.insert(windows.ids.end(), text_ids.begin(),
                     text_ids.begin() + static_cast<ptrdiff_t>(count * window - windows.ids.size()));
  if (PlaceIn(convention, bos.place) == BosPlace::kWindow) bos.BeginWindows(windows.ids, window);
  return windows;
}

MemoryPlan PlanEvaluation(const ModelConfig& config, size_t window, size_t windows,
                          const PerplexitySettings& settings, const ModelConfig* reference) {
  const Arithmetic& arithmetic = settings.arithmetic;
  const bool on_gpu = arithmetic.device.is_cuda();
  MemoryPlan plan(arithmetic.device);
  if (reference != nullptr) {
    // One model's layer at a time; streams and heads of both, and their logits.
    plan.Add("the larger of both models",
             std::max(PlanEvaluation(config, window, windows, settings).total(),
                      PlanEvaluation(*reference, window, windows, settings).total()));
    plan.Add("the other's activations", StreamBytes(*reference, window, windows, settings, true));
    plan.Add("logits of both", kDivergenceBytes);
    plan.Add("the other's head",
             std::max(KeptHeadBytes(config, arithmetic), KeptHeadBytes(*reference, arithmetic)));
    return plan;
  }
  const uint64_t value_bytes = PreparedWeights::ValueBytes(arithmetic.operands(), arithmetic.device);
  uint64_t layer = 0, largest = 0;
  for (const LinearKind kind : kLinearKinds) {
    const MatrixShape shape = LinearShape(config, kind);
    layer += uint64_t{shape.rows} * shape.cols;
    largest = std::max(largest, uint64_t{shape.rows} * shape.cols);
  }
  const uint64_t in_layer = layer * value_bytes * (on_gpu ? 2 : 1) + largest * sizeof(float);
  const uint64_t step_tokens = uint64_t{std::min(StepWindows(window, arithmetic.device), windows)} * window;
  const uint64_t step = step_tokens * (3 * config.hidden + 2 * config.ffn + config.q_width()) * sizeof(float);
  const uint64_t slice = uint64_t{std::min(config.vocab, OutputHead::kSliceRows)} * config.hidden;
  const uint64_t in_head = slice * (sizeof(float) + value_bytes);
  const uint64_t table = on_gpu ? uint64_t{config.vocab} * config.hidden * 2 * sizeof(float) : 0;
  plan.Add("a layer and its work", std::max({in_layer + step, in_head, table}));
  plan.Add("the head", KeptHeadBytes(config, arithmetic));
  plan.Add("activations", StreamBytes(config, window, windows, settings, false));
  return plan;
}

void CheckEvaluation(const ModelConfig& config, const Windows& windows, const PerplexitySettings& settings,
                     const ModelConfig* reference) {
  if (reference != nullptr) {
    if (reference->vocab != config.vocab) {
      Fail("the reference has a vocabulary of {} tokens and the model one of {}; expected the same",
           reference->vocab, config.vocab);
    }
  }
  CheckTokens(config, windows.ids);
  const MemoryPlan plan = PlanEvaluation(config, windows.window, windows.count(), settings, reference);
  LogDebug("evaluation takes about {}", plan.Describe());
  plan.Check(fmt::format("evaluation in windows of {} tokens", windows.window),
             "use a smaller --activation-memory or --seqlen");
}

namespace {

// Adds the seconds since it was made, or since the last call.
class Stopwatch {
 public:
  void AddTo(double& seconds) {
    const double now = MonotonicSeconds();
    seconds += now - since_;
    since_ = now;
  }

 private:
  double since_ = MonotonicSeconds();
};

// Takes the windows of a chunk through all layers. x: [tokens, hidden], overwritten with the residual stream.
// Adds to the seconds that reading weights and passing took.
void PassLayers(const ModelWeights& weights, std::span<const int32_t> ids, size_t window,
                const Arithmetic& arithmetic, bool as_running, const std::string& what, double layer_work, TokenMeter& meter,
                Tensor x, double& reading, double& passing) {
  Stopwatch watch;
  weights.Embed(ids, x);
  const size_t layers = weights.config().layers, step = StepWindows(window, arithmetic.device) * window;
  ReadAhead<const DecoderLayer> layers_ahead(layers, arithmetic.device, [&](size_t index) {
    if (as_running)
      return std::make_unique<const DecoderLayer>(DecoderLayer::Resident(weights, index, arithmetic.device));
    return std::make_unique<const DecoderLayer>(weights, index, arithmetic);
  });
  for (size_t index = 0; index < layers; ++index) {
    ThrowIfInterrupted();
    const std::unique_ptr<const DecoderLayer> layer = layers_ahead.Next();
    watch.AddTo(reading);
    const std::string detail = fmt::format("{}layer {}/{}", what, index + 1, layers);
    for (size_t t = 0; t < x.rows; t += step) {
      ThrowIfInterrupted();
      const size_t tokens = std::min(step, x.rows - t);
      layer->Forward(x.Rows(t, tokens), window);
      meter.Add(layer_work * static_cast<double>(tokens), detail);
    }
    Synchronize(arithmetic.device);
    watch.AddTo(passing);
  }
}

// The values of all ranks, in the order of their windows.
template <typename Value>
void GatherWindows(const Group& group, std::vector<Value>& values) {
  if (group.alone()) return;
  const std::vector<double> mine(values.begin(), values.end());
  values.clear();
  for (const std::vector<double>& part : group.Gather(mine)) values.insert(values.end(), part.begin(), part.end());
}

double MeanOf(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

}  // namespace

Perplexity EvaluatePerplexity(const ModelWeights& weights, const Windows& windows,
                              const PerplexitySettings& settings, const TokensDone& tokens_done,
                              const ModelWeights* reference) {
  const ModelConfig& config = weights.config();
  MICA_CHECK(windows.count() > 0);
  MICA_CHECK(windows.window > windows.first_scored);
  CheckEvaluation(config, windows, settings, reference != nullptr ? &reference->config() : nullptr);

  const Group& group = *settings.arithmetic.group;
  const size_t window = windows.window;
  // Ranks have whole steps of windows, which pass together wherever they are.
  const size_t step_windows = StepWindows(window, settings.arithmetic.device);
  const Part steps = PartOf((windows.count() + step_windows - 1) / step_windows, group.rank(), group.size());
  const size_t begin = steps.first * step_windows;
  const size_t end = std::min(windows.count(), begin + steps.count * step_windows), count = end - begin;
  const size_t chunk_windows = ChunkWindows(config, window, count, ActivationBytes(settings));
  const size_t head_windows = std::max<size_t>(1, kHeadTokens / window);
  const Work work = WorkPerToken(config, window);
  PassedStream* const kept = settings.model_stream;
  PassedStream* const kept_reference = settings.reference_stream;
  MICA_CHECK(group.alone() || (kept == nullptr && kept_reference == nullptr));
  const bool reference_passed = kept_reference != nullptr && kept_reference->complete();
  Work reference_work;
  double token_work = work.layer * static_cast<double>(config.layers) + work.head;
  if (reference != nullptr) {
    reference_work = WorkPerToken(reference->config(), window);
    if (reference_passed) reference_work.layer = 0;
    reference_work.head += work.head;  // the model's logits once more
    token_work +=
        reference_work.layer * static_cast<double>(reference->config().layers) + reference_work.head;
  }
  // What this rank has done stands for what all have.
  const auto all = static_cast<double>(windows.count());
  TokenMeter meter(token_work * static_cast<double>(count) / all, tokens_done);

  Perplexity result;
  result.window_nll.reserve(count);
  const Arithmetic& arithmetic = settings.arithmetic;
  const OutputHead head(weights, arithmetic);
  // The residual stream of a chunk.
  Array stream(chunk_windows * window, config.hidden, DType::kF32, arithmetic.device), reference_stream;
  std::optional<OutputHead> reference_head;
  if (reference != nullptr) {
    reference_head.emplace(*reference, arithmetic);
    reference_stream.Resize(chunk_windows * window, reference->config().hidden, DType::kF32,
                            arithmetic.device);
  }
  uint64_t same_tops = 0;
  if (kept != nullptr) kept->Begin(arithmetic.device);
  if (kept_reference != nullptr && !reference_passed) kept_reference->Begin(arithmetic.device);
  for (size_t first = begin; first < end; first += chunk_windows) {
    const size_t chunk = std::min(chunk_windows, end - first);
    const Tensor x = stream.view().Rows(0, chunk * window);
    const auto ids = std::span(windows.ids).subspan(first * window, chunk * window);
    PassSeconds& seconds = result.seconds;
    PassLayers(weights, ids, window, arithmetic, settings.as_running, "", work.layer, meter, x, seconds.weights, seconds.pass);
    if (kept != nullptr) kept->Keep(x);

    Stopwatch watch;
    for (size_t w = 0; w < chunk; w += head_windows) {
      ThrowIfInterrupted();
      const size_t scored = std::min(head_windows, chunk - w);
      std::vector<int32_t> targets(scored * window);
      for (size_t i = 0; i < targets.size(); ++i)
        targets[i] = windows.Target(first + w + i / window, i % window);
      std::vector<float> nll(targets.size(), std::numeric_limits<float>::quiet_NaN());
      head.NegativeLogLikelihood(x.Rows(w * window, scored * window), targets, nll);
      for (size_t s = 0; s < scored; ++s) {
        double sum = 0;
        for (size_t t = windows.first_scored; t < window; ++t) sum += nll[s * window + t - 1];
        if (!std::isfinite(sum)) {
          Fail(
              "{}: the likelihood of window {} is not finite; the weights give values beyond the range of {}",
              weights.checkpoint().directory().string(), first + w + s, PrecisionName(arithmetic.precision));
        }
        const auto from = nll.begin() + static_cast<ptrdiff_t>(s * window + windows.first_scored - 1);
        result.token_nll.insert(result.token_nll.end(), from,
                                from + static_cast<ptrdiff_t>(windows.scored_per_window()));
        result.window_nll.push_back(sum / static_cast<double>(windows.scored_per_window()));
      }
      meter.Add(work.head * static_cast<double>(scored * window), "head");
    }
    watch.AddTo(seconds.pass);

    if (reference == nullptr) continue;
    const Tensor y = reference_stream.view().Rows(0, chunk * window);
    watch = Stopwatch();
    if (reference_passed) {
      kept_reference->Load((first - begin) * window, y);
      watch.AddTo(seconds.reference);
    } else {
      PassLayers(*reference, ids, window, arithmetic, false, "reference, ", reference_work.layer, meter, y,
                 seconds.reference, seconds.reference);
      if (kept_reference != nullptr) kept_reference->Keep(y);
    }
    watch = Stopwatch();
    const size_t scored = windows.scored_per_window();
    std::vector<float> kl(scored);
    std::vector<uint8_t> same_top(scored);
    for (size_t w = 0; w < chunk; ++w) {
      ThrowIfInterrupted();
      const size_t row = w * window + windows.first_scored - 1;  // the first that predicts a scored token
      OutputDivergence(*reference_head, y.Rows(row, scored), head, x.Rows(row, scored), kl, same_top);
      double sum = 0;
      for (const float nats : kl) sum += nats;
      if (!std::isfinite(sum)) {
        Fail("{}: the divergence of window {} is not finite; the weights give values beyond the range of {}",
             reference->checkpoint().directory().string(), first + w, PrecisionName(arithmetic.precision));
      }
      result.window_kl.push_back(sum / static_cast<double>(scored));
      same_tops += static_cast<uint64_t>(std::count(same_top.begin(), same_top.end(), 1));
      meter.Add(reference_work.head * static_cast<double>(window), "divergence");
    }
    watch.AddTo(seconds.divergence);
  }

  GatherWindows(group, result.window_nll);
  GatherWindows(group, result.token_nll);
  result.nll = MeanOf(result.window_nll);
  result.perplexity = std::exp(result.nll);
  if (reference != nullptr) {
    GatherWindows(group, result.window_kl);
    std::vector<double> same{static_cast<double>(same_tops)};
    GatherWindows(group, same);
    result.kl = MeanOf(result.window_kl);
    result.same_top = std::accumulate(same.begin(), same.end(), 0.0) / (all * static_cast<double>(windows.scored_per_window()));
  }
  return result;
}

}  // namespace mica
