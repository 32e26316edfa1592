#include "ops/packed_product/fixed_form.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/threads.h"
#include "device/scratch.h"

namespace mica {
namespace {

// Tokens that a tile is multiplied with at once: its codes are unpacked once for them, and sums of 64 rows
// stay in the second-level cache.
constexpr size_t kTokensTogether = 256;
// That kernels may read behind the last tile.
constexpr size_t kBehind = 128;

class FixedOnProcessor : public ResidentForm {
 public:
  explicit FixedOnProcessor(FixedWeights w) : w_(std::move(w)), kernel_(BestFixedKernel()) {}

  const char* name() const override { return "fixed"; }
  size_t outputs() const override { return w_.layout.rows; }
  size_t inputs() const override { return w_.layout.cols; }
  Device device() const override { return Device::Cpu(); }
  size_t bytes() const override { return w_.memory(); }

  void Multiply(ConstTensor x_tensor, ConstTensor bias_tensor, Tensor y_tensor) const override {
    const MatrixView<const float> x = x_tensor.host<float>();
    const MatrixView<float> y = y_tensor.host<float>();
    MICA_CHECK(x.cols == inputs() && y.cols == outputs() && y.rows == x.rows);
    const float* bias = bias_tensor.empty() ? nullptr : bias_tensor.host<float>().data;
    static thread_local DigitInputs of_thread;
    DigitInputs& digits = of_thread;  // this thread's, for all
    for (size_t first = 0; first < x.rows; first += kTokensTogether) {
      const size_t tokens = std::min(kTokensTogether, x.rows - first);
      RoundInputs(w_, x.Rows(first, tokens), digits);
      ParallelFor(w_.layout.tiles(), [&](size_t tile) {
        float* sums = Scratch<float, 74>(tokens * kFixedTile);
        kernel_(w_, tile, digits, {sums, tokens, kFixedTile});
        const size_t rows = w_.layout.RowsOf(tile), first_row = tile * kFixedTile;
        for (size_t t = 0; t < tokens; ++t) {
          float* const to = y.row(first + t) + first_row;
          const float* const of_token = sums + t * kFixedTile;
          for (size_t r = 0; r < rows; ++r)
            to[r] = bias == nullptr ? of_token[r] : of_token[r] + bias[first_row + r];
        }
      });
    }
  }

  void Rows(std::span<const int32_t> ids, Tensor out_tensor) const override {
    const MatrixView<float> out = out_tensor.host<float>();
    MICA_CHECK(out.rows == ids.size() && out.cols == inputs());
    ParallelFor(ids.size(), [&](size_t i) {
      MICA_CHECK(ids[i] >= 0 && static_cast<size_t>(ids[i]) < outputs());
      Row(static_cast<size_t>(ids[i]), out.row(i));
    });
  }

 private:
  void Row(size_t row, float* out) const {
    const FixedLayout& layout = w_.layout;
    const size_t tile = row / kFixedTile, rows = layout.RowsOf(tile), in_tile = row % kFixedTile;
    const float unit = std::ldexp(1.0f, w_.exponent);
    std::fill_n(out, layout.cols, 0.0f);
    int16_t integers[kFixedBlock];
    for (size_t k = 0; k < layout.blocks.size(); ++k) {
      const FixedBlock& block = layout.blocks[k];
      const uint8_t* const begin = w_.Block(tile, k);
      UnpackBlockRow(layout, block, rows, begin, in_tile, integers);
      const float scale = ToFloat(ScaleCode{FixedBlockBytes(block, rows, begin).scales[in_tile]}) * unit;
      for (size_t j = 0; j < block.count; ++j) {
        const size_t p = block.start + j;
        float weight = static_cast<float>(integers[j]) * scale;
        if (!w_.exponents.empty()) weight *= std::ldexp(1.0f, w_.exponents[p] - w_.exponent);
        out[w_.order.empty() ? p : w_.order[p]] = weight;
      }
    }
  }

  FixedWeights w_;
  FixedKernel kernel_;
};

}  // namespace

size_t FixedWeights::memory() const {
  return bytes.size() + order.size() * sizeof(uint16_t) + exponents.size() +
         layout.blocks.size() * sizeof(FixedBlock) + tile_begin.size() * sizeof(uint64_t) +
         block_begin.size() * sizeof(uint32_t);
}

FixedWeights MakeFixedWeights(const FixedParts& parts) {
  FixedWeights w;
  w.layout = LayoutOf(parts);
  w.exponent = parts.exponent;
  w.order.assign(parts.columns.begin(), parts.columns.end());
  for (const int8_t e : parts.exponents) w.exponents.push_back(static_cast<int8_t>(parts.exponent + e));
  const size_t tiles = w.layout.tiles();
  std::vector<FixedTile> made(tiles);
  ParallelFor(tiles, [&](size_t tile) { made[tile] = MakeFixedTile(parts, w.layout, tile); });
  uint64_t size = 0;
  for (const FixedTile& tile : made) {
    w.tile_begin.push_back(size);
    w.block_begin.insert(w.block_begin.end(), tile.begin.begin(), tile.begin.end());
    size += tile.bytes.size();
  }
  w.bytes = Matrix<uint8_t>(1, size + kBehind);
  std::memset(w.bytes.data() + size, 0, kBehind);
  ParallelFor(tiles, [&](size_t tile) {
    std::copy(made[tile].bytes.begin(), made[tile].bytes.end(), w.bytes.data() + w.tile_begin[tile]);
    made[tile] = {};
  });
  return w;
}

void RoundInputs(const FixedWeights& w, MatrixView<const float> x, DigitInputs& out) {
  static_assert(kDigitBlock == kFixedBlock);
  std::vector<DigitColumns> columns;
  for (const FixedBlock& block : w.layout.blocks) columns.push_back({block.start, block.count});
  RoundToDigits(x, w.order, w.exponents, w.exponent, columns, out);
}

std::unique_ptr<const ResidentForm> FixedForm(const FixedParts& parts) {
  return std::make_unique<FixedOnProcessor>(MakeFixedWeights(parts));
}

FixedKernel BestFixedKernel() {
  static const FixedKernel kBest = FixedKernelsOfAllTargets().back().multiply;
  return kBest;
}

}  // namespace mica
