// What a CUDA device can do at most, measured: the ceilings that other figures are held against. GFLOP/s of
// products, GB/s of copies (bytes that are moved; within a device each is read and written).
#include <benchmark/benchmark.h>

#include <vector>

#include "device/array.h"
#include "device/cuda.h"
#include "ops/convert/convert.h"
#include "ops/linalg/linalg.h"
#include "ops/product/product.h"

namespace mica {
namespace {

constexpr size_t kEdge = 8192;
constexpr size_t kCopied = size_t{1} << 31;  // bytes

bool There(benchmark::State& state) {
  if (CudaDevices() > 0) return true;
  state.SkipWithError(CudaAbsence().c_str());
  return false;
}

// [kEdge, kEdge] of some hundred different values: zeros would take less power.
Array Values(DType dtype) {
  std::vector<float> values(kEdge * kEdge);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(i * 2654435761u % 509) / 509.0f - 0.5f;
  const Array wide = CopyTo(Device::Cuda(), MatrixView<const float>(values.data(), kEdge, kEdge));
  Array converted(kEdge, kEdge, dtype, Device::Cuda());
  Convert(wide.view(), converted.view());
  return converted;
}

template <typename Work>
void Measure(benchmark::State& state, const char* unit, double count, const Work& work) {
  work();
  Synchronize(Device::Cuda());
  for (auto _ : state) {
    work();
    Synchronize(Device::Cuda());
  }
  state.counters[unit] = benchmark::Counter(count * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

constexpr double kFlop = 2.0 * kEdge * kEdge * kEdge;

void ProductBf16(benchmark::State& state) {
  if (!There(state)) return;
  const Array x = Values(DType::kBF16), w = Values(DType::kF32);
  const PreparedWeights prepared(w.view(), DType::kBF16);
  Array y(kEdge, kEdge, DType::kF32, Device::Cuda());
  Measure(state, "GFLOP/s", kFlop, [&] { Multiply(x.view(), prepared, {}, y.view()); });
}
BENCHMARK(ProductBf16)->UseRealTime();

void ProductFp32(benchmark::State& state, ProductPrecision precision) {
  if (!There(state)) return;
  const Array a = Values(DType::kF32), b = Values(DType::kF32);
  Array c(kEdge, kEdge, DType::kF32, Device::Cuda());
  Measure(state, "GFLOP/s", kFlop,
          [&] { GemmAt(precision, false, false, 1.0f, a.view(), b.view(), 0.0f, c.view()); });
}
BENCHMARK_CAPTURE(ProductFp32, fp32, ProductPrecision::kFp32)->UseRealTime();
BENCHMARK_CAPTURE(ProductFp32, 3xtf32, ProductPrecision::k3xTf32)->UseRealTime();

// From one place to another; a place is 'd'evice, 'p'age-locked or pageable 'h'ost memory.
void CopyBetween(benchmark::State& state, char from_place, char to_place) {
  if (!There(state)) return;
  constexpr size_t kRows = 1024, kCols = kCopied / kRows / sizeof(float);
  const auto make = [&](char place) {
    Array array = place == 'p'
                      ? Array::Pinned(kRows, kCols, DType::kF32)
                      : Array(kRows, kCols, DType::kF32, place == 'd' ? Device::Cuda() : Device::Cpu());
    FillZero(array.view());
    return array;
  };
  const Array from = make(from_place);
  Array to = make(to_place);
  Measure(state, "GB/s", static_cast<double>(kCopied), [&] {
    if (from_place == 'h') {
      UploadBytes(Device::Cuda(), to.view().data, from.view().data, kCopied);
    } else {
      Copy(from.view(), to.view());
    }
  });
}
BENCHMARK_CAPTURE(CopyBetween, device_to_device, 'd', 'd')->UseRealTime();
BENCHMARK_CAPTURE(CopyBetween, pinned_to_device, 'p', 'd')->UseRealTime();
BENCHMARK_CAPTURE(CopyBetween, device_to_pinned, 'd', 'p')->UseRealTime();
BENCHMARK_CAPTURE(CopyBetween, host_to_device, 'h', 'd')->UseRealTime();

}  // namespace
}  // namespace mica
