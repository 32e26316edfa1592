// Decoding and packing rates of the packed format: bytes are FP32 weights, so 400 MB/s are 100 million
// weights a second.
#include <benchmark/benchmark.h>

#include "base/threads.h"
#include "format/mask/mask_kind.h"
#include "io/packed/packed_checkpoint.h"
#include "model/packed.h"
#include "ops/codes/codes.h"
#include "ops/codes/entropy_model.h"
#include "tests/format/entropy/testing.h"
#include "tests/format/fixed/testing.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

constexpr size_t kRows = 1024;
constexpr size_t kCols = 4096;

void SetRate(benchmark::State& state) {
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kRows * kCols * sizeof(float)));
}

// Argument 0: width; argument 1: row of kMaskKinds.
FixedMatrix Sample(const benchmark::State& state) {
  return RandomFixed(kRows, {{static_cast<int>(state.range(0)), kCols}}, 128,
                     kMaskKinds[static_cast<size_t>(state.range(1))], 1);
}

void BM_DecodeFixed(benchmark::State& state) {
  SetThreads(1);
  TemporaryDirectory scratch;
  PackedShard shard;
  shard.Add("L", Pack(Sample(state)));
  shard.Write(scratch / "model.safetensors");
  const Checkpoint checkpoint = Checkpoint::Open(scratch.path());
  Matrix<float> out(kRows, kCols);
  for (auto _ : state) {
    DecodePacked(checkpoint, "L", 0, out);
    benchmark::ClobberMemory();
  }
  SetRate(state);
}
BENCHMARK(BM_DecodeFixed)->ArgsProduct({{2, 3, 4, 6, 8}, {0}})->Args({16, 0})->ArgsProduct({{4}, {1, 2, 3}});

void BM_PackFixed(benchmark::State& state) {
  SetThreads(1);
  const FixedMatrix matrix = Sample(state);
  for (auto _ : state) {
    PackedShard shard;
    shard.Add("L", Pack(matrix));
    benchmark::DoNotOptimize(shard.data_bytes());
  }
  SetRate(state);
}
BENCHMARK(BM_PackFixed)->Args({4, 0})->Args({4, 1});

// Arguments: states of the trellis; deviation of the integers in quarter octaves.
EntropyMatrix EntropySample(const benchmark::State& state) {
  EntropyMatrix matrix = RandomEntropy(kRows, kCols, static_cast<int>(state.range(0)),
                                       static_cast<double>(state.range(1)) / 4, 1);
  FitEntropyModel(matrix);
  return matrix;
}

void BM_DecodeEntropy(benchmark::State& state) {
  SetThreads(1);
  TemporaryDirectory scratch;
  PackedShard shard;
  const EntropyMatrix matrix = EntropySample(state);
  shard.Add("L", Pack(matrix));
  shard.Write(scratch / "model.safetensors");
  const Checkpoint checkpoint = Checkpoint::Open(scratch.path());
  Matrix<float> out(kRows, kCols);
  for (auto _ : state) {
    DecodePacked(checkpoint, "L", 0, out);
    benchmark::ClobberMemory();
  }
  SetRate(state);
  state.counters["bits_per_weight"] =
      static_cast<double>(Pack(matrix).bits()) / static_cast<double>(kRows * kCols);
}
BENCHMARK(BM_DecodeEntropy)->ArgsProduct({{1, 4, 8}, {0, 4}})->Args({1, 8});

void BM_PackEntropy(benchmark::State& state) {
  SetThreads(1);
  const EntropyMatrix matrix = EntropySample(state);
  for (auto _ : state) {
    PackedShard shard;
    shard.Add("L", Pack(matrix));
    benchmark::DoNotOptimize(shard.data_bytes());
  }
  SetRate(state);
}
BENCHMARK(BM_PackEntropy)->Args({1, 0})->Args({8, 0});

void BM_FitEntropyModel(benchmark::State& state) {
  SetThreads(1);
  EntropyMatrix matrix = EntropySample(state);
  for (auto _ : state) FitEntropyModel(matrix);
  SetRate(state);
}
BENCHMARK(BM_FitEntropyModel)->Args({1, 0})->Args({8, 0});

}  // namespace
}  // namespace mica
