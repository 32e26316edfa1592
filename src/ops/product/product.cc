#include "ops/product/product.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "device/precision.h"
#include "device/scratch.h"
#include "ops/tile/kernels.h"
#include "ops/tile/tile_product.h"

namespace mica {
namespace {

// Rows of x one behind the other, copied only when they are not so already.
template <typename T>
const T* Dense(MatrixView<const T> x) {
  if (x.stride == x.cols || x.rows == 1) return x.data;
  T* copy = Scratch<T, 10>(x.rows * x.cols);
  for (size_t r = 0; r < x.rows; ++r) std::memcpy(copy + r * x.cols, x.row(r), x.cols * sizeof(T));
  return copy;
}

size_t Tiles(size_t tokens) { return (tokens + kTileTokens - 1) / kTileTokens; }

}  // namespace

Precision FastestPrecision() { return NativeBf16() ? Precision::kBf16 : Precision::kFp32; }

struct PreparedWeights::State {
  size_t outputs = 0, inputs = 0, block_outputs = kBlockOutputs;
  Precision precision = Precision::kFp32;
  std::vector<PackedOperand> blocks;
};

PreparedWeights::PreparedWeights() : state_(std::make_unique<State>()) {}
PreparedWeights::~PreparedWeights() = default;
PreparedWeights::PreparedWeights(PreparedWeights&&) noexcept = default;
PreparedWeights& PreparedWeights::operator=(PreparedWeights&&) noexcept = default;

PreparedWeights::PreparedWeights(MatrixView<const float> weights, Precision precision, size_t block_outputs)
    : state_(std::make_unique<State>()) {
  MICA_CHECK(weights.rows > 0 && weights.cols > 0 && block_outputs > 0);
  const size_t count = (weights.rows + block_outputs - 1) / block_outputs;
  state_->outputs = weights.rows;
  state_->inputs = weights.cols;
  state_->block_outputs = block_outputs;
  state_->precision = precision;
  std::vector<std::unique_ptr<PackedOperand>> packed(count);
  ParallelFor(count, [&](size_t block) {
    const size_t first = block * block_outputs;
    const auto rows = weights.Rows(first, std::min(block_outputs, weights.rows - first));
    if (precision == Precision::kFp32) {
      packed[block] = std::make_unique<PackedOperand>(Dense(rows), rows.rows, rows.cols);
      return;
    }
    BF16* rounded = Scratch<BF16, 11>(rows.rows * rows.cols);
    for (size_t r = 0; r < rows.rows; ++r) {
      Kernels(Backend::kCpu).f32_to_bf16(rows.row(r), rows.cols, rounded + r * rows.cols);
    }
    packed[block] = std::make_unique<PackedOperand>(rounded, rows.rows, rows.cols);
  });
  for (auto& block : packed) state_->blocks.push_back(std::move(*block));
}

size_t PreparedWeights::outputs() const { return state_->outputs; }
size_t PreparedWeights::inputs() const { return state_->inputs; }
Precision PreparedWeights::precision() const { return state_->precision; }
size_t PreparedWeights::bytes() const {
  size_t bytes = 0;
  for (const PackedOperand& block : state_->blocks) bytes += block.bytes();
  return bytes;
}

size_t PreparedWeights::blocks() const { return state_->blocks.size(); }
size_t PreparedWeights::block_first(size_t block) const { return block * state_->block_outputs; }
size_t PreparedWeights::block_outputs(size_t block) const { return state_->blocks[block].n(); }

void PreparedWeights::MultiplyTile(MatrixView<const float> x, size_t block, float* y) const {
  const PackedOperand& operand = state_->blocks[block];
  MICA_CHECK(x.cols == inputs() && precision() == Precision::kFp32);
  operand.Multiply(Dense(x), x.rows, y);
}

void PreparedWeights::MultiplyTile(MatrixView<const BF16> x, size_t block, float* y) const {
  const PackedOperand& operand = state_->blocks[block];
  MICA_CHECK(x.cols == inputs() && precision() == Precision::kBf16);
  const BF16* dense = Dense(x);
  if (operand.takes_bf16()) {
    operand.Multiply(dense, x.rows, y);
  } else {
    float* wide = Scratch<float, 12>(x.rows * x.cols);
    Kernels(Backend::kCpu).bf16_to_f32(dense, x.rows * x.cols, wide);
    operand.Multiply(wide, x.rows, y);
  }
}

namespace {

template <typename T>
void Tiled(MatrixView<const T> x, std::initializer_list<const PreparedWeights*> matrices,
           const std::function<void(const ProductTile&)>& use) {
  struct Block {
    size_t matrix, block;
    const PreparedWeights* weights;
  };
  std::vector<Block> blocks;
  for (const PreparedWeights* weights : matrices) {
    const size_t matrix = blocks.empty() ? 0 : blocks.back().matrix + 1;
    for (size_t b = 0; b < weights->blocks(); ++b) blocks.push_back({matrix, b, weights});
  }
  // All blocks of one tile of tokens follow each other: its activations stay in the cache.
  ParallelFor(Tiles(x.rows) * blocks.size(), [&](size_t index) {
    const size_t first = index / blocks.size() * kTileTokens;
    const Block& block = blocks[index % blocks.size()];
    const size_t tokens = std::min(kTileTokens, x.rows - first);
    const size_t outputs = block.weights->block_outputs(block.block);
    float* values = Scratch<float, 13>(tokens * outputs);
    block.weights->MultiplyTile(x.Rows(first, tokens), block.block, values);
    use({block.matrix, first, tokens, block.weights->block_first(block.block), outputs, values});
  });
}

template <typename T>
void TiledPairs(MatrixView<const T> x, const PreparedWeights& first_matrix,
                const PreparedWeights& second_matrix,
                const std::function<void(const ProductTile&, const ProductTile&)>& use) {
  const size_t blocks = first_matrix.blocks();
  MICA_CHECK(second_matrix.blocks() == blocks && second_matrix.outputs() == first_matrix.outputs());
  ParallelFor(Tiles(x.rows) * blocks, [&](size_t index) {
    const size_t first = index / blocks * kTileTokens;
    const size_t block = index % blocks;
    const size_t tokens = std::min(kTileTokens, x.rows - first);
    const size_t outputs = first_matrix.block_outputs(block);
    MICA_CHECK(second_matrix.block_outputs(block) == outputs);
    float* values = Scratch<float, 13>(2 * tokens * outputs);
    float* second_values = values + tokens * outputs;
    first_matrix.MultiplyTile(x.Rows(first, tokens), block, values);
    second_matrix.MultiplyTile(x.Rows(first, tokens), block, second_values);
    const ProductTile tile = {0, first, tokens, first_matrix.block_first(block), outputs, values};
    use(tile, {1, first, tokens, tile.first_output, outputs, second_values});
  });
}

template <typename T, bool kAdd>
void MultiplyInto(MatrixView<const T> x, const PreparedWeights& w, const float* bias, MatrixView<float> y) {
  MICA_CHECK(y.rows == x.rows && y.cols == w.outputs());
  const KernelTable& kernels = Kernels(Backend::kCpu);
  Tiled<T>(x, {&w}, [&](const ProductTile& tile) {
    for (size_t t = 0; t < tile.tokens; ++t) {
      const float* values = tile.values + t * tile.outputs;
      float* out = y.row(tile.first_token + t) + tile.first_output;
      if constexpr (kAdd) {
        kernels.add(values, tile.outputs, out);
      } else {
        std::copy_n(values, tile.outputs, out);
      }
      if (bias != nullptr) kernels.add(bias + tile.first_output, tile.outputs, out);
    }
  });
}

}  // namespace

void MultiplyTiles(MatrixView<const float> x, std::initializer_list<const PreparedWeights*> matrices,
                   const std::function<void(const ProductTile&)>& use) {
  Tiled(x, matrices, use);
}
void MultiplyTiles(MatrixView<const BF16> x, std::initializer_list<const PreparedWeights*> matrices,
                   const std::function<void(const ProductTile&)>& use) {
  Tiled(x, matrices, use);
}
void MultiplyTilePairs(MatrixView<const float> x, const PreparedWeights& first, const PreparedWeights& second,
                       const std::function<void(const ProductTile&, const ProductTile&)>& use) {
  TiledPairs(x, first, second, use);
}
void MultiplyTilePairs(MatrixView<const BF16> x, const PreparedWeights& first, const PreparedWeights& second,
                       const std::function<void(const ProductTile&, const ProductTile&)>& use) {
  TiledPairs(x, first, second, use);
}

void Multiply(MatrixView<const float> x, const PreparedWeights& w, const float* bias, MatrixView<float> y) {
  MultiplyInto<float, false>(x, w, bias, y);
}
void Multiply(MatrixView<const BF16> x, const PreparedWeights& w, const float* bias, MatrixView<float> y) {
  MultiplyInto<BF16, false>(x, w, bias, y);
}
void MultiplyAdd(MatrixView<const float> x, const PreparedWeights& w, const float* bias,
                 MatrixView<float> y) {
  MultiplyInto<float, true>(x, w, bias, y);
}
void MultiplyAdd(MatrixView<const BF16> x, const PreparedWeights& w, const float* bias, MatrixView<float> y) {
  MultiplyInto<BF16, true>(x, w, bias, y);
}

}  // namespace mica
