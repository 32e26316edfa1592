// SolveTiles on the first CUDA device: the tiles of one stage, blocks of G of one tile.
//   trellis_bench [--benchmark_filter=...]
// Arguments: tiles, columns, rows that are decided together, rows behind them that are searched before.
// Counters: ns/step is time over columns times both rows, by which a column follows the one before it; ns/step/window
// the same over the windows of all tiles. products: what the errors take, rows * columns^2 FLOP, in TFLOP; with
// few columns they are nothing, and the difference to many is theirs. back: ms for the integers to the host,
// which the time contains.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "base/system.h"
#include "device/array.h"
#include "device/cuda.h"
#include "ops/trellis/tile_solver.h"

namespace mica {
namespace {

Matrix<float> Normal(size_t rows, size_t cols, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> some(1 << 16);
  for (float& x : some) x = normal(generator);
  Matrix<float> values(rows, cols);
  for (size_t i = 0; i < values.size(); ++i) values.data()[i] = some[(i * 40503u) % some.size()];
  return values;
}

// Diagonal 1, what is right of it falls with the distance, zeros left of it.
Matrix<float> Factor(size_t rows, size_t block) {
  Matrix<float> factor = Normal(rows, block, 7);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < block; ++c) {
      const size_t diagonal = r % block;
      float& x = factor(r, c);
      x = c < diagonal    ? 0.0f
          : c == diagonal ? 1.0f
                          : 0.1f * x / (1 + 0.1f * static_cast<float>(c - diagonal));
    }
  }
  return factor;
}

// ms from the device to the host for so many bytes.
double CopyBack(Device device, void* to, size_t bytes) {
  void* const memory = AllocateOnDevice(device, bytes);
  FillBytes(device, memory, 0, bytes);
  Synchronize(device);
  const double start = MonotonicSeconds();
  CopyBytes(Device::Cpu(), to, bytes, device, memory, bytes, bytes, 1);
  const double seconds = MonotonicSeconds() - start;
  FreeOnDevice(device, memory, bytes);
  return seconds * 1e3;
}

void BM_SolveTiles(benchmark::State& state) {
  if (CudaDevices() == 0) return state.SkipWithError(CudaAbsence().c_str());
  const Device device = Device::Cuda();
  const auto tiles = static_cast<size_t>(state.range(0)), cols = static_cast<size_t>(state.range(1)),
             window = static_cast<size_t>(state.range(2)), ahead = static_cast<size_t>(state.range(3));
  const size_t rows = tiles * kCodedTileRows;
  const Array w = CopyTo(device, Normal(rows, cols, 1)), u = CopyTo(device, Factor(cols, cols)),
              v = CopyTo(device, Factor(rows, kCodedTileRows));
  Array weights(rows, cols, DType::kF32, device);
  std::vector<uint32_t> order(cols), row_order(rows);
  std::iota(order.begin(), order.end(), 0u);
  std::iota(row_order.begin(), row_order.end(), 0u);
  const EntropyRates rates(DefaultEntropyTables(kTrellisStates));
  // Steps of half a standard deviation.
  const std::vector<int16_t> row_step(rows, -8), col_step(cols, 0), row_class(rows, 28), col_class(cols, 0);
  Matrix<int16_t> n(rows, cols);
  std::vector<double> row_loss(rows);
  std::vector<TileTally> tallies(tiles);
  const TileTask task = {.w = w.view(),
                         .u = u.view(),
                         .v = v.view(),
                         .order = order,
                         .dead = {},
                         .row_order = row_order,
                         .row_step = row_step,
                         .col_step = col_step,
                         .rates = &rates,
                         .row_class = row_class,
                         .col_class = col_class,
                         .n = n,
                         .weights = weights.view(),
                         .row_loss = row_loss,
                         .tallies = tallies};
  const StepPrices prices = {.trellis = window > 0, .window = window, .ahead = ahead, .lambda = 0.25};
  double seconds = 0;
  SolveTiles({&task, 1}, prices);
  for (auto _ : state) {
    const double start = MonotonicSeconds();
    SolveTiles({&task, 1}, prices);
    seconds += MonotonicSeconds() - start;
  }
  const double searched = window > 0 ? static_cast<double>(std::min(kCodedTileRows, window + ahead)) : 32;
  const double ns =
      seconds / static_cast<double>(state.iterations()) / (static_cast<double>(cols) * searched) * 1e9;
  const double windows =
      static_cast<double>(tiles) *
      (window > 0
           ? std::max(1.0,
                      std::ceil(static_cast<double>(kCodedTileRows - std::min(ahead, kCodedTileRows - 1)) /
                                static_cast<double>(window)))
           : 4);
  state.counters["ns/step"] = ns;
  state.counters["ns/step/window"] = ns / windows;
  state.counters["windows"] = windows;
  state.counters["products"] =
      static_cast<double>(rows) * static_cast<double>(cols) * static_cast<double>(cols) * 1e-12;
  state.counters["back"] = CopyBack(device, n.data(), n.size() * sizeof(int16_t));
  state.counters["zeros"] =
      static_cast<double>(tallies[0].widths[0]) / static_cast<double>(kCodedTileRows * cols);
}
// Stages of LLaMA 13B: o, q k v, gate and up, down; before them few columns, where products are nothing.
BENCHMARK(BM_SolveTiles)
    ->ArgNames({"tiles", "cols", "window", "ahead"})
    ->ArgsProduct({{1, 40, 120, 216, 528}, {256}, {16}, {32}})
    ->Args({120, 256, 8, 24})
    ->Args({120, 256, 32, 0})
    ->Args({120, 256, 0, 0})
    ->ArgsProduct({{40, 120, 216}, {5120}, {16}, {32}})
    ->Args({40, 13824, 16, 32})
    ->Iterations(2)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace mica
