// Decoding on a CUDA device, from the host's memory to weights there. `upload` moves the same bytes and does
// nothing more: what `decode` takes beyond it is the decoder's time.
#include <benchmark/benchmark.h>

#include <map>
#include <memory>
#include <numeric>
#include <vector>

#include "device/array.h"
#include "device/cuda.h"
#include "ops/codes/codes.h"
#include "ops/codes/entropy_model.h"
#include "tests/ops/codes/testing.h"

namespace mica {
namespace {

struct Shape {
  size_t rows, cols;
};
constexpr Shape kLayerOf13B[] = {{5120, 5120},  {5120, 5120},  {5120, 5120}, {5120, 5120},
                                 {13824, 5120}, {13824, 5120}, {5120, 13824}};
// One that is decoded alone.
constexpr Shape kOne[] = {{5120, 5120}};

// A matrix whose tiles are copies of one another, 32 lanes, 8 states; deviation of the integers in quarter
// octaves.
class CopiedTiles {
 public:
  CopiedTiles(const Shape& shape, int64_t quarters) {
    EntropyMatrix tile = RandomEntropy(kCodedTileRows, shape.cols, 8, static_cast<double>(quarters) / 4, 1);
    FitEntropyModel(tile);
    packed_ = Pack(tile, kMostLanes);
    parts_ = OpenedEntropy(packed_);
    parts_.rows = shape.rows;
    const std::vector<std::byte> stream(parts_.codes.begin(), parts_.codes.end());
    for (size_t t = 1; t < parts_.tiles(); ++t) {
      parts_.tile_begin.push_back(parts_.tile_begin.back() + stream.size());
      parts_.row_step.insert(parts_.row_step.end(), tile.row_step.begin(), tile.row_step.end());
      parts_.row_class.insert(parts_.row_class.end(), tile.row_class.begin(), tile.row_class.end());
    }
    for (size_t t = 0; t < parts_.tiles(); ++t) codes_.insert(codes_.end(), stream.begin(), stream.end());
    parts_.codes = codes_;
    parts_.order.resize(shape.rows);
    std::iota(parts_.order.begin(), parts_.order.end(), 0u);
  }
  CopiedTiles(const CopiedTiles&) = delete;
  CopiedTiles& operator=(const CopiedTiles&) = delete;
  const EntropyParts& parts() const { return parts_; }

 private:
  PackedMatrix packed_;
  EntropyParts parts_;
  std::vector<std::byte> codes_;
};

// Arguments: deviation of the integers in quarter octaves; 1: one matrix, 7: the layer.
void BM_DecodeEntropyOnCuda(benchmark::State& state, bool decode) {
  if (CudaDevices() == 0) return state.SkipWithError(CudaAbsence().c_str());
  std::vector<Shape> shapes(std::begin(kOne), std::end(kOne));
  if (state.range(1) > 1) shapes.assign(std::begin(kLayerOf13B), std::end(kLayerOf13B));
  std::map<std::pair<size_t, size_t>, std::unique_ptr<CopiedTiles>> made;
  std::vector<Array> weights;
  std::vector<RowsOf<EntropyParts>> all;
  size_t count = 0, bytes = 0;
  for (const Shape& shape : shapes) {
    auto& matrix = made[{shape.rows, shape.cols}];
    if (matrix == nullptr) matrix = std::make_unique<CopiedTiles>(shape, state.range(0));
    weights.emplace_back(shape.rows, shape.cols, DType::kBF16, Device::Cuda());
    all.push_back({&matrix->parts(), 0, weights.back().view()});
    count += shape.rows * shape.cols;
    bytes += matrix->parts().codes.size();
  }
  Array there(1, bytes, DType::kU8, Device::Cuda());
  for (auto _ : state) {
    if (decode) {
      DecodeEntropy(all);
    } else {
      for (const RowsOf<EntropyParts>& rows : all) {
        const std::span<const std::byte> codes = rows.parts->codes;
        UploadBytes(Device::Cuda(), there.view().data, codes.data(), codes.size());
      }
    }
    Synchronize(Device::Cuda());
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(count));
  state.counters["bits_per_weight"] = 8 * static_cast<double>(bytes) / static_cast<double>(count);
}
BENCHMARK_CAPTURE(BM_DecodeEntropyOnCuda, decode, true)
    ->ArgsProduct({{0, 4, 8}, {1, 7}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_DecodeEntropyOnCuda, upload, false)
    ->ArgsProduct({{0, 4, 8}, {1, 7}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

// Seven matrices of 2048 x 5120. Arguments: width; row of kMaskKinds.
void BM_DecodeFixedOnCuda(benchmark::State& state) {
  if (CudaDevices() == 0) return state.SkipWithError(CudaAbsence().c_str());
  const PackedMatrix packed = Pack(RandomFixed(2048, {{static_cast<int>(state.range(0)), 5120}}, 128,
                                               kMaskKinds[static_cast<size_t>(state.range(1))], 1));
  const FixedParts parts = OpenedFixed(packed);
  std::vector<Array> weights;
  std::vector<RowsOf<FixedParts>> all;
  for (int i = 0; i < 7; ++i) {
    weights.emplace_back(parts.rows, parts.cols, DType::kBF16, Device::Cuda());
    all.push_back({&parts, 0, weights.back().view()});
  }
  for (auto _ : state) {
    DecodeFixed(all);
    Synchronize(Device::Cuda());
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(7 * parts.rows * parts.cols));
}
BENCHMARK(BM_DecodeFixedOnCuda)
    ->ArgsProduct({{2, 4, 8}, {0, 1}})
    ->Args({16, 1})
    ->Args({4, 2})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace mica
