// Decoding and packing rates of the packed format: bytes are FP32 weights, so 400 MB/s are 100 million
// weights a second.
#include <benchmark/benchmark.h>

#include "../tests/io/packed_testing.h"
#include "base/threads.h"

namespace mica {
namespace {

constexpr size_t kRows = 1024;
constexpr size_t kCols = 4096;

void SetRate(benchmark::State& state) {
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kRows * kCols * sizeof(float)));
}

// Argument 0: width; argument 1: mask kind.
FixedMatrix Sample(const benchmark::State& state) {
  return RandomFixed(kRows, {{static_cast<int>(state.range(0)), kCols}}, 128,
                     static_cast<MaskKind>(state.range(1)), 1);
}

void BM_DecodeFixed(benchmark::State& state) {
  SetThreads(1);
  ScratchDirectory scratch;
  PackedShard shard;
  shard.Add("L", Sample(state));
  shard.Write(scratch.weights());
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
    shard.Add("L", matrix);
    benchmark::DoNotOptimize(shard.data_bytes());
  }
  SetRate(state);
}
BENCHMARK(BM_PackFixed)->Args({4, 0})->Args({4, 1});

}  // namespace
}  // namespace mica
