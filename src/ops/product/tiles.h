// The loops over tiles of a product, for ops that go on with each tile while it is in its cache.
#pragma once

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <vector>

#include "base/error.h"
#include "base/matrix.h"
#include "base/threads.h"
#include "device/scratch.h"
#include "device/tensor.h"
#include "ops/product/prepared_weights.h"
#include "ops/tile/dispatch.h"
#include "ops/tile/kernels.h"

namespace mica {

// One finished tile: values[i * outputs + j] = the product for token first_token + i and output first_output
// + j of matrix `matrix`.
struct ProductTile {
  size_t matrix = 0;
  size_t first_token = 0, tokens = 0;
  size_t first_output = 0, outputs = 0;
  float* values = nullptr;  // may be overwritten; gone after the call

  float* row(size_t token) const { return values + token * outputs; }
  // bias: [all outputs] FP32 or empty.
  void AddBias(const ConstTensor& bias) const {
    if (bias.empty()) return;
    const float* of_tile = bias.host<float>().data + first_output;
    for (size_t t = 0; t < tokens; ++t) Kernels(Backend::kCpu).add(of_tile, outputs, row(t));
  }
};

// Multiplies x with several matrices and hands out each tile, in no fixed order, on the thread that made it:
// use(tile) must write only what belongs to its tile. x: [tokens, inputs] of the type of all the matrices'
// operands.
template <typename Use>
void MultiplyTiles(const ConstTensor& x, std::initializer_list<const PreparedWeights*> matrices,
                   const Use& use) {
  struct Block {
    size_t matrix, block;
    const PreparedWeights* weights;
  };
  std::vector<Block> blocks;
  for (const PreparedWeights* weights : matrices) {
    const size_t matrix = blocks.empty() ? 0 : blocks.back().matrix + 1;
    for (size_t b = 0; b < weights->blocks(); ++b) blocks.push_back({matrix, b, weights});
  }
  DispatchOperand(x.dtype, [&](auto type) {
    const auto rows = x.host<decltype(type)>();
    // All blocks of one tile of tokens follow each other: its activations stay in the cache.
    ParallelFor((rows.rows + kTileTokens - 1) / kTileTokens * blocks.size(), [&](size_t index) {
      const size_t first = index / blocks.size() * kTileTokens;
      const Block& block = blocks[index % blocks.size()];
      const size_t tokens = std::min(kTileTokens, rows.rows - first);
      const size_t outputs = block.weights->block_outputs(block.block);
      float* values = Scratch<float, 13>(tokens * outputs);
      block.weights->MultiplyTile(rows.Rows(first, tokens), block.block, values);
      use(ProductTile{block.matrix, first, tokens, block.weights->block_first(block.block), outputs, values});
    });
  });
}

// The same for two matrices of one shape, with the tiles of both at the same place handed out together.
template <typename Use>
void MultiplyTilePairs(const ConstTensor& x, const PreparedWeights& first_matrix,
                       const PreparedWeights& second_matrix, const Use& use) {
  const size_t blocks = first_matrix.blocks();
  MICA_CHECK(second_matrix.blocks() == blocks);
  MICA_CHECK(second_matrix.outputs() == first_matrix.outputs());
  DispatchOperand(x.dtype, [&](auto type) {
    const auto rows = x.host<decltype(type)>();
    ParallelFor((rows.rows + kTileTokens - 1) / kTileTokens * blocks, [&](size_t index) {
      const size_t first = index / blocks * kTileTokens;
      const size_t block = index % blocks;
      const size_t tokens = std::min(kTileTokens, rows.rows - first);
      const size_t outputs = first_matrix.block_outputs(block);
      MICA_CHECK(second_matrix.block_outputs(block) == outputs);
      float* values = Scratch<float, 13>(2 * tokens * outputs);
      float* second_values = values + tokens * outputs;
      first_matrix.MultiplyTile(rows.Rows(first, tokens), block, values);
      second_matrix.MultiplyTile(rows.Rows(first, tokens), block, second_values);
      const ProductTile tile = {0, first, tokens, first_matrix.block_first(block), outputs, values};
      use(tile, ProductTile{1, first, tokens, tile.first_output, outputs, second_values});
    });
  });
}

}  // namespace mica
