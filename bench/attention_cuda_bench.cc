// Attention of BF16 heads and its gradient on the first CUDA device; arguments: windows, window, heads,
// kv_heads, head_dim. FLOPs count the visible half of two products forward and of five backward, whatever
// the device computes again.
//     attention_cuda_bench
#include <benchmark/benchmark.h>

#include <cmath>
#include <random>
#include <vector>

#include "device/array.h"
#include "device/cuda.h"
#include "ops/attention/attention.h"

namespace mica {
namespace {

const Device kDevice = Device::Cuda();

Array RandomRows(size_t rows, size_t cols, DType dtype, float scale) {
  // A block of random values again and again: the device's power, and so its clock, depends on bits.
  std::mt19937 generator(7);
  std::normal_distribution<float> normal(0.0f, scale);
  Matrix<float> wide(rows, cols);
  for (size_t i = 0; i < wide.size(); ++i)
    wide.data()[i] = i < 65521 ? normal(generator) : wide.data()[i - 65521];
  if (dtype == DType::kF32) return CopyTo(kDevice, wide);
  Matrix<BF16> narrow(rows, cols);
  for (size_t i = 0; i < wide.size(); ++i) narrow.data()[i] = ToBF16(wide.data()[i]);
  return CopyTo(kDevice, narrow);
}

void OnCuda(benchmark::State& state, bool backward) {
  if (CudaDevices() == 0) {
    state.SkipWithError(CudaAbsence().c_str());
    return;
  }
  const auto arg = [&](int i) { return static_cast<size_t>(state.range(i)); };
  const AttentionShape shape = {arg(0) * arg(1), arg(1), arg(2), arg(3), arg(4)};
  const size_t width = shape.heads * shape.head_dim;
  const Array q = RandomRows(shape.heads * shape.tokens, shape.head_dim, DType::kBF16, 1.0f),
              k = RandomRows(shape.kv_heads * shape.tokens, shape.head_dim, DType::kBF16, 1.0f),
              v = RandomRows(shape.kv_heads * shape.tokens, shape.head_dim, DType::kBF16, 1.0f),
              felt = RandomRows(shape.tokens, width, DType::kF32, 1.0f);
  Array out(shape.tokens, width, DType::kBF16, kDevice),
      log_sums(shape.heads, shape.tokens, DType::kF32, kDevice),
      grad_q(q.rows(), q.cols(), DType::kF32, kDevice), grad_k(k.rows(), k.cols(), DType::kF32, kDevice),
      grad_v(v.rows(), v.cols(), DType::kF32, kDevice);
  const AttentionInputs in = {q.view(), k.view(), v.view(),
                              1.0f / std::sqrt(static_cast<float>(shape.head_dim))};
  const auto run = [&] {
    if (backward) {
      AttentionGradient(shape, in, {out.view(), log_sums.view(), felt.view()},
                        {grad_q.view(), grad_k.view(), grad_v.view()});
    } else {
      Attention(shape, in, out.view(), log_sums.view());
    }
  };
  Attention(shape, in, out.view(), log_sums.view());
  run();
  Synchronize(kDevice);
  // Some at a time, so that starting them costs nothing.
  constexpr int kRuns = 8;
  for (auto _ : state) {
    for (int i = 0; i < kRuns; ++i) run();
    Synchronize(kDevice);
  }
  const double pairs =
      static_cast<double>(shape.heads * shape.tokens) * static_cast<double>(shape.window + 1) / 2;
  state.counters["FLOP/s"] =
      benchmark::Counter((backward ? 10.0 : 4.0) * pairs * static_cast<double>(shape.head_dim) * kRuns *
                             static_cast<double>(state.iterations()),
                         benchmark::Counter::kIsRate, benchmark::Counter::kIs1000);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  bench->Args({1, 4096, 40, 40, 128})
      ->Args({2, 2048, 40, 40, 128})
      ->Args({16, 2048, 40, 40, 128})
      ->Args({4, 2048, 32, 8, 128})
      ->Args({4, 2048, 32, 32, 64})
      ->Args({4, 2048, 32, 32, 96})
      ->Args({4, 2048, 16, 8, 256})
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}
BENCHMARK_CAPTURE(OnCuda, forward, false)->Apply(Shapes);
BENCHMARK_CAPTURE(OnCuda, backward, true)->Apply(Shapes);

}  // namespace
}  // namespace mica
