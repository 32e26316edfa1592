// Decoding and packing rates of the packed format: bytes are FP32 weights, so 400 MB/s are 100 million
// weights a second.
#include <benchmark/benchmark.h>

#include <variant>
#include <vector>

#include "base/threads.h"
#include "format/mask/mask_kind.h"
#include "io/packed/packed_checkpoint.h"
#include "io/packed/stored_matrix.h"
#include "model/packed.h"
#include "ops/codes/codes.h"
#include "ops/codes/decode_tile.h"
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

// One thread and one tile at a time, each instruction set of this machine. Argument: lanes.
void BM_DecodeTile(benchmark::State& state, bool (*decode)(const EntropyParts&, const TileRows&)) {
  EntropyMatrix matrix = RandomEntropy(kRows, kCols, 8, 0.5, 1);
  FitEntropyModel(matrix);
  TemporaryDirectory scratch;
  PackedShard shard;
  shard.Add("L", Pack(matrix, static_cast<size_t>(state.range(0))));
  shard.Write(scratch / "model.safetensors");
  const Checkpoint checkpoint = Checkpoint::Open(scratch.path());
  const StoredMatrix stored = OpenPacked(checkpoint, "L");
  const EntropyParts& parts = std::get<EntropyParts>(stored.parts);
  Matrix<float> out(kRows, kCols);
  for (auto _ : state) {
    for (size_t tile = 0; tile < parts.tiles(); ++tile)
      MICA_CHECK(decode(parts, TileRows(parts, tile, 0, out)));
    benchmark::ClobberMemory();
  }
  SetRate(state);
}
[[maybe_unused]] const bool kDecodersRegistered = [] {
  std::vector<TileDecoder> decoders = TileDecodersOfAllTargets();
  decoders.push_back({"plain", DecodeTile, DecodeTile});
  for (const TileDecoder& decoder : decoders) {
    benchmark::RegisterBenchmark(("BM_DecodeTile/" + decoder.name).c_str(), BM_DecodeTile, decoder.decode)
        ->Arg(4)
        ->Arg(8)
        ->Arg(16)
        ->Arg(32);
  }
  return true;
}();

// What the chosen lanes add to the code lengths. Arguments: rows, columns, deviation in hundredths of an
// octave.
void BM_LaneOverhead(benchmark::State& state) {
  const size_t rows = static_cast<size_t>(state.range(0)), cols = static_cast<size_t>(state.range(1));
  EntropyMatrix matrix = RandomEntropy(rows, cols, 8, static_cast<double>(state.range(2)) / 100, 1);
  FitEntropyModel(matrix);
  const double ideal = EntropyCodeBits(matrix);
  for (auto _ : state) {
    const PackedMatrix packed = Pack(matrix);
    const double weights = static_cast<double>(rows * cols), stored = static_cast<double>(packed.code_bits());
    state.counters["bits_per_weight"] = static_cast<double>(packed.bits()) / weights;
    state.counters["lanes"] = static_cast<double>(std::get<EntropyFacts>(packed.facts).lanes);
    state.counters["overhead_percent"] = 100 * (stored - ideal) / static_cast<double>(packed.bits());
  }
}
BENCHMARK(BM_LaneOverhead)
    ->ArgsProduct({{5120}, {5120, 13824}, {-120, 45, 145}})
    ->Args({13824, 5120, 45})
    ->ArgsProduct({{512}, {512, 1024, 2048, 4096}, {45}})
    ->Iterations(1);

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
