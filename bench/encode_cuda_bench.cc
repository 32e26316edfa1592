// Encoding and packing integers that lie on a CUDA device, down to the streams in the host's memory, and
// fitting their model.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "device/array.h"
#include "device/cuda.h"
#include "ops/codes/codes.h"
#include "ops/codes/entropy_model.h"
#include "ops/codes/integers.h"
#include "tests/format/entropy/testing.h"
#include "tests/format/fixed/testing.h"

namespace mica {
namespace {

// 8 states; a tile of random integers again and again. Arguments: rows, columns, deviation in quarter
// octaves.
EntropyMatrix Repeated(const benchmark::State& state) {
  const size_t rows = static_cast<size_t>(state.range(0)), cols = static_cast<size_t>(state.range(1));
  const EntropyMatrix tile =
      RandomEntropy(kCodedTileRows, cols, 8, static_cast<double>(state.range(2)) / 4, 1);
  EntropyMatrix matrix;
  matrix.rows = rows;
  matrix.cols = cols;
  matrix.states = tile.states;
  matrix.col_step = tile.col_step;
  matrix.n = Matrix<int16_t>(rows, cols);
  for (size_t r = 0; r < rows; ++r) {
    std::copy_n(tile.n.row(r % kCodedTileRows), cols, matrix.n.row(r));
    matrix.row_step.push_back(tile.row_step[r % kCodedTileRows]);
  }
  return matrix;
}

void BM_EncodeEntropyOnCuda(benchmark::State& state, bool encode) {
  if (CudaDevices() == 0) return state.SkipWithError(CudaAbsence().c_str());
  EntropyMatrix matrix = Repeated(state);
  const Array n = CopyTo(Device::Cuda(), IntegersOf(matrix));
  // Classes to start from, without which fitting copies the integers.
  matrix.row_class.assign(matrix.rows, 24);
  matrix.col_class.assign(matrix.cols, 0);
  FitEntropyModel(matrix, n.view());
  size_t bytes = 0;
  for (auto _ : state) {
    if (encode) {
      bytes = EncodeEntropy(matrix, n.view(), kMostLanes).codes.size();
    } else {
      FitEntropyModel(matrix, n.view());
    }
  }
  const size_t count = matrix.rows * matrix.cols;
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(count));
  state.counters["bits_per_weight"] = 8 * static_cast<double>(bytes) / static_cast<double>(count);
}
BENCHMARK_CAPTURE(BM_EncodeEntropyOnCuda, encode, true)
    ->Args({5120, 5120, 4})
    ->ArgsProduct({{13824}, {5120}, {0, 4, 8}})
    ->Args({5120, 13824, 4})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_EncodeEntropyOnCuda, fit, false)
    ->Args({13824, 5120, 4})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

// Coding `fixed`, integers by column on the device: packed there, down to the streams in the host's memory.
// Arguments: rows, columns of each of three widths, row of the mask in kMaskKinds.
void BM_PackFixedOnCuda(benchmark::State& state) {
  if (CudaDevices() == 0) return state.SkipWithError(CudaAbsence().c_str());
  const auto rows = static_cast<size_t>(state.range(0)), cols = static_cast<size_t>(state.range(1));
  const FixedMatrix matrix = RandomFixed(rows, {{4, cols}, {3, cols}, {2, cols}}, 128,
                                         kMaskKinds[static_cast<size_t>(state.range(2))], 1);
  const auto on_device = [](const auto& integers, DType dtype, bool by_column) {
    const size_t count = by_column ? integers.cols() : integers.rows(),
                 length = by_column ? integers.rows() : integers.cols();
    Array host(count, length, dtype);
    auto* values = reinterpret_cast<std::remove_cvref_t<decltype(*integers.data())>*>(host.view().data);
    for (size_t i = 0; i < count; ++i) {
      for (size_t j = 0; j < length; ++j) *values++ = by_column ? integers(j, i) : integers(i, j);
    }
    return CopyTo(Device::Cuda(), host.view());
  };
  const Array codes = on_device(matrix.codes, DType::kU16, true),
              keep = on_device(matrix.keep, DType::kU8, true),
              scales = on_device(matrix.scales, DType::kU8, false),
              zeros = on_device(matrix.zeros, DType::kU8, false);
  uint64_t bits = 0;
  for (auto _ : state) bits = Pack(matrix, {codes.view(), keep.view(), scales.view(), zeros.view()}).bits();
  const size_t count = rows * matrix.cols;
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(count));
  state.counters["bits_per_weight"] = static_cast<double>(bits) / static_cast<double>(count);
}
BENCHMARK(BM_PackFixedOnCuda)
    ->ArgsProduct({{13824}, {1706}, {0, 1, 2}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace mica
