// The kernels alone, on one thread: matrix products in GFLOP/s by shape and precision, row functions in GB/s
// read and written for every instruction set of this processor, attention by window.
//     kernels_bench --benchmark_filter='Product|Attention'
#include <benchmark/benchmark.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/threads.h"
#include "ops/attention/attention.h"
#include "ops/product/prepared_weights.h"
#include "ops/tile/dispatch.h"
#include "ops/tile/kernels.h"
#include "ops/tile/tables.h"

namespace mica {
namespace {

void SetRate(benchmark::State& state, double flops) {
  state.counters["FLOP/s"] = benchmark::Counter(flops * static_cast<double>(state.iterations()),
                                                benchmark::Counter::kIsRate, benchmark::Counter::kIs1000);
}

// One tile of tokens times one block of prepared weights, with operands of type T; arguments: outputs,
// inputs.
template <typename T>
void Product(benchmark::State& state) {
  const size_t outputs = static_cast<size_t>(state.range(0)), inputs = static_cast<size_t>(state.range(1));
  const Matrix<float> weights(outputs, inputs, 0.5f);
  const Matrix<T> x(kTileTokens, inputs, Narrow<T>(0.25f));
  Matrix<float> y(kTileTokens, outputs);
  const PreparedWeights prepared(weights, kDTypeOf<T>, outputs);
  for (auto _ : state) prepared.MultiplyTile(x, 0, y.data());
  SetRate(state, 2.0 * kTileTokens * static_cast<double>(outputs * inputs));
}
BENCHMARK(Product<float>)->Args({512, 640})->Args({512, 1792})->Args({512, 5120})->Args({512, 13824});
BENCHMARK(Product<BF16>)->Args({512, 640})->Args({512, 1792})->Args({512, 5120})->Args({512, 13824});

// Rows of one query block against one key block, as attention does it; argument: head_dim.
void AttentionProduct(benchmark::State& state, bool second) {
  const size_t head_dim = static_cast<size_t>(state.range(0)), queries = 128, keys = 512;
  const Matrix<BF16> q(queries, head_dim, ToBF16(0.5f)), k(keys, head_dim, ToBF16(0.5f)),
      p(queries, keys, ToBF16(0.5f));
  Matrix<float> out(queries, keys, 0.0f);
  const KernelTable& kernels = Kernels(Backend::kCpu);
  for (auto _ : state) {
    if (second) {
      kernels.bf16.product(p.data(), k.data(), false, queries, head_dim, keys, true, out.data());
    } else {
      kernels.bf16.product(q.data(), k.data(), true, queries, keys, head_dim, false, out.data());
    }
  }
  SetRate(state, 2.0 * static_cast<double>(queries * keys * head_dim));
}
BENCHMARK_CAPTURE(AttentionProduct, scores, false)->Arg(64)->Arg(128);
BENCHMARK_CAPTURE(AttentionProduct, values, true)->Arg(64)->Arg(128);

// Ten heads of 64 over one window; arguments: window. FLOPs count the visible half only.
void AttentionOfWindow(benchmark::State& state) {
  const size_t window = static_cast<size_t>(state.range(0)), heads = 10, head_dim = 64;
  const AttentionShape shape = {window, window, heads, heads, head_dim};
  const Matrix<BF16> q(heads * window, head_dim, ToBF16(0.1f));
  Matrix<BF16> out(window, heads * head_dim);
  for (auto _ : state) {
    Attention(shape, {q, q, q, 0.125f}, out, {});
  }
  SetRate(state,
          4.0 * static_cast<double>(heads * head_dim) * static_cast<double>(window * (window + 1) / 2));
}
BENCHMARK(AttentionOfWindow)->Arg(512)->Arg(2048)->Arg(8192)->Unit(benchmark::kMillisecond);

// A row that fits the first-level cache, so that the rate is that of the arithmetic.
constexpr size_t kRow = 1024;

void RegisterRows(const KernelTable& table) {
  const auto add = [&](const std::string& name, size_t bytes_per_value, auto function) {
    benchmark::RegisterBenchmark((name + "/" + table.name).c_str(), [=](benchmark::State& state) {
      std::vector<float> a(kRow, 0.5f), b(kRow, 0.25f), out(kRow);
      std::vector<BF16> half(kRow);
      for (auto _ : state) {
        function(a.data(), b.data(), out.data(), half.data());
        benchmark::ClobberMemory();
      }
      state.SetBytesProcessed(static_cast<int64_t>(kRow * bytes_per_value) * state.iterations());
    });
  };
  add("f32_to_bf16", 6,
      [table](float* a, float*, float*, BF16* half) { table.bf16.from_f32(a, kRow, half); });
  add("add", 12, [table](float* a, float*, float* out, BF16*) { table.add(a, kRow, out); });
  add("rms_norm_bf16", 10,
      [table](float* a, float* b, float*, BF16* half) { table.bf16.rms_norm(a, b, kRow, 1e-5f, half); });
  add("rope_bf16", 6,
      [table](float* a, float* b, float*, BF16* half) { table.bf16.rope(a, b, b + kRow / 2, kRow, half); });
  add("swiglu_bf16", 10,
      [table](float* a, float* b, float*, BF16* half) { table.bf16.gated(Activation::kSilu, a, b, kRow, half); });
  add("softmax_step_bf16", 6, [table](float* a, float*, float*, BF16* half) {
    RunningSum state;
    table.bf16.softmax_step(a, kRow, 0.125f, &state, half);
  });
  add("log_sum_step", 4, [table](float* a, float*, float*, BF16*) {
    RunningSum state;
    table.log_sum_step(a, kRow, &state);
  });
}

}  // namespace
}  // namespace mica

int main(int argc, char** argv) {
  mica::SetThreads(1);
  mica::RegisterRows(mica::Kernels(mica::Backend::kRef));
  for (const mica::KernelTable& table : mica::RowTablesOfAllTargets()) mica::RegisterRows(table);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
