// What calibration costs beside the forward pass: moments, information between channels, groups of channels.
// The first argument is the number of channels (640 and 1792 are the inputs of the bench checkpoint, 5120 and
// 13824 those of a 13B model).
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "base/system.h"
#include "compress/calibrate/moments.h"
#include "compress/curvature/damped_factor.h"
#include "compress/inform/grouping.h"
#include "compress/inform/information.h"
#include "device/tensor.h"

namespace mica {
namespace {

// Cheap uniform noise in [-1, 1).
class Noise {
 public:
  float operator()() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<float>(static_cast<int32_t>(state_ >> 32)) * 0x1p-31f;
  }

 private:
  uint64_t state_ = 1;
};

Matrix<float> Tokens(size_t tokens, size_t cols) {
  Noise noise;
  Matrix<float> x(tokens, cols);
  for (size_t t = 0; t < tokens; ++t) {
    const float common[4] = {noise(), noise(), noise(), noise()};
    for (size_t c = 0; c < cols; ++c) x(t, c) = noise() + common[c % 4];
  }
  return x;
}

template <typename T>
void MomentsOf(benchmark::State& state, bool weighted) {
  const auto cols = static_cast<size_t>(state.range(0));
  constexpr size_t kTokens = 8192;
  const Matrix<float> fp32 = Tokens(kTokens, cols);
  Matrix<BF16> bf16(kTokens, cols);
  for (size_t i = 0; i < fp32.size(); ++i) bf16.data()[i] = ToBF16(fp32.data()[i]);
  const ConstTensor view = std::is_same_v<T, float> ? ConstTensor(fp32) : ConstTensor(bf16);
  const std::vector<float> weights(weighted ? kTokens : 0, 0.5f);
  Moments moments(cols);
  for (auto _ : state) moments.Add(view, weights);
  const double tokens = static_cast<double>(state.iterations()) * kTokens;
  state.counters["tokens/s"] = benchmark::Counter(tokens, benchmark::Counter::kIsRate);
  // Two operations for each entry on and below the diagonal.
  state.counters["FLOP/s"] = benchmark::Counter(
      tokens * static_cast<double>(cols) * static_cast<double>(cols + 1), benchmark::Counter::kIsRate);
}

void MomentsBf16(benchmark::State& state) { MomentsOf<BF16>(state, false); }
void MomentsFp32(benchmark::State& state) { MomentsOf<float>(state, false); }
void MomentsWeighted(benchmark::State& state) { MomentsOf<BF16>(state, true); }
BENCHMARK(MomentsBf16)
    ->Arg(640)
    ->Arg(1792)
    ->Arg(5120)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime()
    ->MeasureProcessCPUTime();
BENCHMARK(MomentsFp32)
    ->Arg(640)
    ->Arg(1792)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime()
    ->MeasureProcessCPUTime();
BENCHMARK(MomentsWeighted)
    ->Arg(640)
    ->Arg(1792)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime()
    ->MeasureProcessCPUTime();

// H of channels in eight families with noise between them, without the cost of measuring it.
Matrix<float> SecondMoment(size_t cols) {
  Noise noise;
  const float amplitude = 1.0f / std::sqrt(static_cast<float>(cols));  // keeps H positive definite
  Matrix<float> h(cols, cols);
  for (size_t i = 0; i < cols; ++i) {
    for (size_t j = 0; j < i; ++j) h(i, j) = h(j, i) = (i % 8 == j % 8 ? 0.3f : 0.0f) + amplitude * noise();
    h(i, i) = 2.0f;
  }
  return h;
}

void PairInformation(benchmark::State& state) {
  const auto cols = static_cast<size_t>(state.range(0));
  const Matrix<float> h = SecondMoment(cols);
  const std::vector<double> mean(cols, 0.0);
  Matrix<float> information(cols, cols);
  for (auto _ : state) GaussianInformation(h, mean, information);
}
BENCHMARK(PairInformation)
    ->Arg(640)
    ->Arg(1792)
    ->Arg(5120)
    ->Arg(13824)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime()
    ->MeasureProcessCPUTime();

void OneWithAllOthers(benchmark::State& state) {
  const Matrix<float> h = SecondMoment(static_cast<size_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(DampedFactor(h, {}, 0.01).Information(h));
}
BENCHMARK(OneWithAllOthers)
    ->Arg(640)
    ->Arg(1792)
    ->Arg(5120)
    ->Arg(13824)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime()
    ->MeasureProcessCPUTime();

void Sampled(benchmark::State& state) {
  const auto estimator = static_cast<Estimator>(state.range(1));
  const Matrix<float> sample = Tokens(SampleTokens(estimator), static_cast<size_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(SampledInformation(sample, estimator, 0));
  state.SetLabel(EstimatorName(estimator));
}
BENCHMARK(Sampled)
    ->ArgsProduct({{640, 1792}, {0, 1, 2, 3}})
    ->Unit(benchmark::kMillisecond)
    ->Iterations(1)
    ->UseRealTime()
    ->MeasureProcessCPUTime();

// The second argument is the method, the third the number of groups, 0 for a choice between 2 and 20.
void Group(benchmark::State& state) {
  const auto cols = static_cast<size_t>(state.range(0));
  const auto method = static_cast<GroupingMethod>(state.range(1));
  Matrix<float> affinity = SecondMoment(cols);
  GaussianInformation(affinity, std::vector<double>(cols, 0.0), affinity);
  NormaliseInformation(affinity);
  Grouping grouping;
  for (auto _ : state) grouping = GroupChannels(affinity, method, static_cast<size_t>(state.range(2)), 0);
  state.SetLabel(GroupingMethodName(method));
  state.counters["groups"] = static_cast<double>(grouping.groups);
  state.counters["silhouette"] = grouping.silhouette;
  state.counters["affinity GB"] = static_cast<double>(cols) * static_cast<double>(cols) * 4e-9;
  state.counters["peak GB"] = static_cast<double>(PeakResidentBytes()) * 1e-9;
}
BENCHMARK(Group)
    ->ArgsProduct({{1792, 13824}, {0, 1, 2}, {5, 0}})
    ->Unit(benchmark::kMillisecond)
    ->Iterations(1)
    ->UseRealTime()
    ->MeasureProcessCPUTime();

}  // namespace
}  // namespace mica
