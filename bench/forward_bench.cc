// The forward pass by stage and whole: tokens per second of wall time, the rate of its matrix products and
// the share of the time they take. Needs MICA_MODELS (the folder that holds bench/); MICA_THREADS sets the
// number of threads (default: one per processor).
//     forward_bench --benchmark_filter=Evaluate
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>

#include "base/threads.h"
#include "device/array.h"
#include "device/precision.h"
#include "model/backward.h"
#include "model/layer.h"
#include "ops/tile/tile_product.h"

namespace mica {
namespace {

constexpr size_t kWindow = 2048;

const ModelWeights* BenchModel() {
  static const std::unique_ptr<ModelWeights> weights = []() -> std::unique_ptr<ModelWeights> {
    const char* models = std::getenv("MICA_MODELS");
    const std::filesystem::path path = std::filesystem::path(models == nullptr ? "" : models) / "bench";
    if (models == nullptr || !std::filesystem::exists(path)) return nullptr;
    return std::make_unique<ModelWeights>(ModelWeights::Open(path));
  }();
  return weights.get();
}

std::vector<int32_t> Ids(size_t count, size_t vocab) {
  std::mt19937 generator(1);
  std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(vocab) - 1);
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = any(generator);
  return ids;
}

// Measures products while it lives and writes the counters of a run over `tokens` tokens per iteration.
class Meter {
 public:
  Meter(benchmark::State& state, size_t tokens) : state_(state), tokens_(tokens), before_(ProductsSoFar()) {}
  ~Meter() {
    const ProductCost after = ProductsSoFar();
    const double seconds = after.seconds - before_.seconds, flops = after.flops - before_.flops;
    state_.SetItemsProcessed(static_cast<int64_t>(tokens_) * state_.iterations());
    state_.counters["product_GFLOP/s"] = flops / seconds * 1e-9;
    state_.counters["product_seconds"] = benchmark::Counter(seconds, benchmark::Counter::kAvgIterations);
    state_.counters["MFLOP/token"] =
        flops * 1e-6 / static_cast<double>(tokens_) / static_cast<double>(state_.iterations());
  }

 private:
  benchmark::State& state_;
  size_t tokens_;
  ProductCost before_;
};

#define MICA_BENCH_MODEL(weights)             \
  const ModelWeights* weights = BenchModel(); \
  if (weights == nullptr) return state.SkipWithError("MICA_MODELS/bench is absent")

// Everything an evaluation does with `windows` windows: load and prepare each layer, pass all windows through
// it, score.
void Evaluate(benchmark::State& state, Precision precision) {
  MICA_BENCH_MODEL(weights);
  const size_t tokens = static_cast<size_t>(state.range(0)) * kWindow;
  const std::vector<int32_t> ids = Ids(tokens, weights->config().vocab);
  Matrix<float> x(tokens, weights->config().hidden);
  std::vector<float> nll(tokens);
  const OutputHead head(*weights, precision);
  const Meter meter(state, tokens);
  for (auto _ : state) {
    weights->Embed(ids, x);
    for (size_t layer = 0; layer < weights->config().layers; ++layer)
      DecoderLayer(*weights, layer, precision).Forward(x, kWindow);
    head.NegativeLogLikelihood(x, ids, nll);
    benchmark::DoNotOptimize(nll.data());
  }
}
BENCHMARK_CAPTURE(Evaluate, fp32, Precision::kFp32)
    ->Arg(4)
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime()
    ->UseRealTime();
BENCHMARK_CAPTURE(Evaluate, bf16, Precision::kBf16)
    ->Arg(4)
    ->Arg(16)
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime()
    ->UseRealTime();

// Forward and backward, as Fisher information needs it.
void Backward(benchmark::State& state, Precision precision) {
  MICA_BENCH_MODEL(weights);
  const size_t tokens = static_cast<size_t>(state.range(0)) * kWindow;
  const std::vector<int32_t> ids = Ids(tokens, weights->config().vocab);
  BackwardSettings settings;
  settings.arithmetic = precision;
  const Meter meter(state, tokens);
  for (auto _ : state) {
    RunBackward(*weights, ids, kWindow, size_t{2} << 30, settings,
                [](const LinearGradient& gradient) { benchmark::DoNotOptimize(gradient.gradient.data); });
  }
}
BENCHMARK_CAPTURE(Backward, fp32, Precision::kFp32)
    ->Arg(4)
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime()
    ->UseRealTime();
BENCHMARK_CAPTURE(Backward, bf16, Precision::kBf16)
    ->Arg(4)
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime()
    ->UseRealTime();

void Load(benchmark::State& state, Precision precision) {
  MICA_BENCH_MODEL(weights);
  for (auto _ : state) {
    const DecoderLayer layer(*weights, 0, precision);
    benchmark::DoNotOptimize(layer.weight_bytes());
  }
}
BENCHMARK_CAPTURE(Load, fp32, Precision::kFp32)
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime()
    ->UseRealTime();
BENCHMARK_CAPTURE(Load, bf16, Precision::kBf16)
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime()
    ->UseRealTime();

enum class Stage { kAttentionInput, kAttentionContext, kAddAttention, kMlpInput, kMlpHidden, kAddMlp };

void RunStage(benchmark::State& state, Stage stage, Precision precision) {
  MICA_BENCH_MODEL(weights);
  const DecoderLayer layer(*weights, 0, precision);
  Matrix<float> x(kWindow, weights->config().hidden);
  weights->Embed(Ids(kWindow, weights->config().vocab), x);
  Array normed, context, hidden;
  layer.AttentionInput(x, normed);
  layer.AttentionContext(normed.view(), kWindow, context);
  layer.MlpHidden(normed.view(), hidden);
  const Meter meter(state, kWindow);
  for (auto _ : state) {
    switch (stage) {
      case Stage::kAttentionInput:
        layer.AttentionInput(x, normed);
        break;
      case Stage::kAttentionContext:
        layer.AttentionContext(normed.view(), kWindow, context);
        break;
      case Stage::kAddAttention:
        layer.AddAttention(context.view(), x);
        break;
      case Stage::kMlpInput:
        layer.MlpInput(x, normed);
        break;
      case Stage::kMlpHidden:
        layer.MlpHidden(normed.view(), hidden);
        break;
      case Stage::kAddMlp:
        layer.AddMlp(hidden.view(), x);
        break;
    }
  }
}
#define MICA_BENCH_STAGE(stage)                                      \
  BENCHMARK_CAPTURE(RunStage, stage, Stage::stage, Precision::kBf16) \
      ->Unit(benchmark::kMillisecond)                                \
      ->MeasureProcessCPUTime()                                      \
      ->UseRealTime()
MICA_BENCH_STAGE(kAttentionInput);
MICA_BENCH_STAGE(kAttentionContext);
MICA_BENCH_STAGE(kAddAttention);
MICA_BENCH_STAGE(kMlpInput);
MICA_BENCH_STAGE(kMlpHidden);
MICA_BENCH_STAGE(kAddMlp);

void Head(benchmark::State& state, Precision precision) {
  MICA_BENCH_MODEL(weights);
  const std::vector<int32_t> ids = Ids(kWindow, weights->config().vocab);
  Matrix<float> x(kWindow, weights->config().hidden);
  weights->Embed(ids, x);
  std::vector<float> nll(kWindow);
  const OutputHead head(*weights, precision);
  head.NegativeLogLikelihood(x, ids, nll);
  const Meter meter(state, kWindow);
  for (auto _ : state) head.NegativeLogLikelihood(x, ids, nll);
}
BENCHMARK_CAPTURE(Head, bf16, Precision::kBf16)
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime()
    ->UseRealTime();

}  // namespace
}  // namespace mica

int main(int argc, char** argv) {
  const char* threads = std::getenv("MICA_THREADS");
  mica::SetThreads(threads == nullptr ? 0 : std::atoi(threads));
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
