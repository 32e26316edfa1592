// Second moments, products and factorisations on a CUDA device, at the sizes of a 13B model: FLOP/s, where a
// Gram matrix counts its lower triangle, and for products the largest error relative to the sum of
// magnitudes.
//     linalg_bench --benchmark_filter='Gram|Factor'
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "device/array.h"
#include "device/cuda.h"
#include "ops/convert/convert.h"
#include "ops/gram/block_gram.h"
#include "ops/gram/drift_sum.h"
#include "ops/gram/gram.h"
#include "ops/linalg/linalg.h"

namespace mica {
namespace {

// The device, or nothing to measure.
bool There(benchmark::State& state) {
  if (CudaDevices() > 0) return true;
  state.SkipWithError(CudaAbsence().c_str());
  return false;
}

size_t Argument(const benchmark::State& state, int i) { return static_cast<size_t>(state.range(i)); }

Matrix<float> Random(size_t rows, size_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> values(-1, 1);
  Matrix<float> out(rows, cols);
  for (size_t i = 0; i < out.size(); ++i) out.data()[i] = values(random);
  return out;
}

Array RandomThere(size_t rows, size_t cols, DType dtype, uint32_t seed) {
  const Array wide = CopyTo(Device::Cuda(), Random(rows, cols, seed));
  Array out(rows, cols, dtype, Device::Cuda());
  Convert(wide.view(), out.view());
  return out;
}

template <typename Work>
void Measure(benchmark::State& state, double flops, const Work& work) {
  work();  // libraries are loaded with their first call
  Synchronize(Device::Cuda());
  for (auto _ : state) {
    work();
    Synchronize(Device::Cuda());
  }
  state.counters["FLOP/s"] = benchmark::Counter(flops * static_cast<double>(state.iterations()),
                                                benchmark::Counter::kIsRate, benchmark::Counter::kIs1000);
}

// Arguments: columns, tokens of one addition.
void AddToGram(benchmark::State& state, DType dtype) {
  if (!There(state)) return;
  const size_t cols = Argument(state, 0), tokens = Argument(state, 1);
  const Array x = RandomThere(tokens, cols, dtype, 1);
  Gram gram(cols, Device::Cuda());
  Measure(state, static_cast<double>(tokens * cols) * static_cast<double>(cols), [&] { gram.Add(x.view()); });
}
BENCHMARK_CAPTURE(AddToGram, bf16, DType::kBF16)
    ->Args({5120, 2048})
    ->Args({13824, 2048})
    ->Args({13824, 8192})
    ->UseRealTime();
BENCHMARK_CAPTURE(AddToGram, fp32, DType::kF32)->Args({5120, 2048})->UseRealTime();

// Arguments: columns, columns of a block, tokens.
void AddToBlocks(benchmark::State& state) {
  if (!There(state)) return;
  const size_t cols = Argument(state, 0), block = Argument(state, 1), tokens = Argument(state, 2);
  const Array x = RandomThere(tokens, cols, DType::kBF16, 1);
  BlockGram gram(cols, block, Device::Cuda());
  Measure(state, static_cast<double>(tokens * cols * block), [&] { gram.Add(x.view()); });
}
BENCHMARK(AddToBlocks)->Args({5120, 128, 2048})->Args({13824, 128, 2048})->UseRealTime();

void CopyGram(benchmark::State& state) {
  if (!There(state)) return;
  const size_t cols = Argument(state, 0);
  const Gram gram(cols, Device::Cuda());
  Array out(cols, cols, DType::kF32, Device::Cuda());
  Measure(state, 0, [&] { gram.CopyScaled(1, out.view()); });
}
BENCHMARK(CopyGram)->Arg(5120)->Arg(13824)->UseRealTime();

// Arguments: rows and columns of the sum, tokens.
void AddDrift(benchmark::State& state) {
  if (!There(state)) return;
  const size_t cols = Argument(state, 0), tokens = Argument(state, 1);
  const Array a = RandomThere(tokens, cols, DType::kBF16, 1), b = RandomThere(tokens, cols, DType::kBF16, 2);
  Array sum(cols, cols, DType::kF32, Device::Cuda());
  FillZero(sum.view());
  Measure(state, 2.0 * static_cast<double>(tokens * cols) * static_cast<double>(cols),
          [&] { AddDriftSum(a.view(), b.view(), b.view(), sum.view()); });
}
BENCHMARK(AddDrift)->Args({5120, 2048})->Args({13824, 2048})->UseRealTime();

// Arguments: rows, columns and depth.
void ProductAt(benchmark::State& state, ProductPrecision precision) {
  if (!There(state)) return;
  const size_t m = Argument(state, 0), n = Argument(state, 1), k = Argument(state, 2);
  const Matrix<float> a = Random(m, k, 1), b = Random(k, n, 2);
  const Array a_there = CopyTo(Device::Cuda(), a), b_there = CopyTo(Device::Cuda(), b);
  Array c(m, n, DType::kF32, Device::Cuda());
  Measure(state, 2.0 * static_cast<double>(m * n) * static_cast<double>(k),
          [&] { GemmAt(precision, false, false, 1.0f, a_there.view(), b_there.view(), 0.0f, c.view()); });
  double worst = 0;
  for (size_t i = 0; i < 64; ++i) {
    const size_t row = i * 131 % m, col = i * 257 % n;
    const Array value = CopyTo(Device::Cpu(), c.view().Rows(row, 1).Cols(col, 1));
    double sum = 0, size = 0;
    for (size_t p = 0; p < k; ++p) {
      sum += double{a(row, p)} * b(p, col);
      size += std::fabs(double{a(row, p)} * b(p, col));
    }
    worst = std::max(worst, std::fabs(value.view().host<float>()(0, 0) - sum) / size);
  }
  state.counters["error"] = worst;
}
BENCHMARK_CAPTURE(ProductAt, fp32, ProductPrecision::kFp32)
    ->Args({5120, 5120, 5120})
    ->Args({5120, 13824, 13824})
    ->UseRealTime();
BENCHMARK_CAPTURE(ProductAt, 3xtf32, ProductPrecision::k3xTf32)
    ->Args({5120, 5120, 5120})
    ->Args({5120, 13824, 13824})
    ->UseRealTime();

// What is factored: symmetric, with a dominant diagonal.
Array Factorable(size_t n) {
  Matrix<float> h = Random(n, n, 3);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < i; ++j) h(j, i) = h(i, j);
    h(i, i) = static_cast<float>(n);
  }
  return CopyTo(Device::Cuda(), h);
}

// All of these copy their argument first. Argument: rows.
void Factor(benchmark::State& state, bool inverse) {
  if (!There(state)) return;
  const size_t n = Argument(state, 0);
  const double cube = std::pow(static_cast<double>(n), 3);
  const Array h = Factorable(n);
  Array u(n, n, DType::kF32, Device::Cuda());
  Measure(state, inverse ? 2 * cube / 3 : cube / 3, [&] {
    Copy(h.view(), u.view());
    const bool done = inverse ? CholeskyOfInverseUpper(u.view()) : CholeskyLower(u.view());
    if (!done) state.SkipWithError("not positive definite");
  });
}
BENCHMARK_CAPTURE(Factor, lower, false)->Arg(5120)->Arg(13824)->UseRealTime();
BENCHMARK_CAPTURE(Factor, of_inverse, true)->Arg(5120)->Arg(13824)->UseRealTime();

// Arguments: rows, columns.
void TimesUpper(benchmark::State& state) {
  if (!There(state)) return;
  const size_t m = Argument(state, 0), n = Argument(state, 1);
  const Array u = RandomThere(n, n, DType::kF32, 4);
  Array x = RandomThere(m, n, DType::kF32, 5);
  Measure(state, static_cast<double>(m * n) * static_cast<double>(n), [&] {
    FillZero(x.view());  // whose values would grow without an end
    MultiplyByUpper(true, u.view(), 1024, x.view());
  });
}
BENCHMARK(TimesUpper)->Args({5120, 5120})->Args({5120, 13824})->UseRealTime();

// Arguments: rows, columns.
void PlusProduct(benchmark::State& state) {
  if (!There(state)) return;
  const size_t m = Argument(state, 0), n = Argument(state, 1);
  const Array a = RandomThere(m, n, DType::kF32, 4), b = RandomThere(n, n, DType::kF32, 5);
  Array c(m, n, DType::kF32, Device::Cuda());
  FillZero(c.view());
  Measure(state, 2 * static_cast<double>(m * n) * static_cast<double>(n),
          [&] { AddProductBySlabs(a.view(), b.view(), 1024, c.view()); });
}
BENCHMARK(PlusProduct)->Args({5120, 5120})->Args({5120, 13824})->UseRealTime();

}  // namespace
}  // namespace mica
