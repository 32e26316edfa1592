#include "format/blocks/block_grid.h"

#include <map>
#include <utility>

#include "base/error.h"
#include "format/gguf/codebooks.h"

namespace mica {
namespace {

constexpr std::array<float, 16> kUnevenLevels = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                 1,    13,   25,  38,  53,  69,  89,  113};

BlockGrid Named(GgmlType type) {
  const GgmlTypeFacts& facts = FactsOf(type);
  BlockGrid grid;
  grid.name = facts.name;
  grid.block_cols = grid.group_cols = facts.block_cols;
  grid.bits_per_weight = 8.0 * static_cast<double>(facts.block_bytes) / static_cast<double>(facts.block_cols);
  return grid;
}

// d level.
BlockGrid Plain(GgmlType type, int low, int high) {
  BlockGrid grid = Named(type);
  grid.level_low = low;
  grid.level_high = high;
  grid.negative_scale = true;
  return grid;
}

// d level - dmin.
BlockGrid Shifted(GgmlType type, int high) {
  BlockGrid grid = Plain(type, 0, high);
  grid.negative_scale = false;
  grid.signed_offset = true;
  return grid;
}

// d s level - dmin m.
BlockGrid WithOffsets(GgmlType type, size_t group_cols, int level_high, int integer_high) {
  BlockGrid grid = Named(type);
  grid.group_cols = group_cols;
  grid.level_high = level_high;
  grid.scale_base = 0;
  grid.scale_step = 1;
  grid.scale_high = grid.offset_high = integer_high;
  return grid;
}

// d s level, s signed.
BlockGrid WithScales(GgmlType type, size_t group_cols, int low, int high, int scale_low, int scale_high) {
  BlockGrid grid = Plain(type, low, high);
  grid.group_cols = group_cols;
  grid.scale_base = static_cast<float>(scale_low);
  grid.scale_step = 1;
  grid.scale_high = scale_high - scale_low;
  return grid;
}

BlockGrid Uneven(BlockGrid grid) {
  grid.levels = LevelKind::kTable;
  grid.table = kUnevenLevels;
  grid.level_low = grid.level_high = 0;
  return grid;
}

BlockGrid OfVectors(GgmlType type, size_t group_cols, size_t vector_cols, const uint16_t* codebook,
                    size_t vectors, float unit, bool even_signs) {
  BlockGrid grid = Named(type);
  grid.group_cols = group_cols;
  grid.scale_base = unit;
  grid.scale_step = 2 * unit;
  grid.scale_high = 15;
  grid.levels = LevelKind::kCodebook;
  grid.vector_cols = vector_cols;
  grid.codebook = codebook;
  grid.vectors = vectors;
  grid.level_bits = vector_cols == 8 ? 2 : 3;
  grid.even_signs = even_signs;
  if (vector_cols == 8) {
    grid.magnitudes = {8, 25, 43};
  } else if (even_signs) {
    grid.magnitudes = {4, 12, 20, 28, 36, 44, 52, 62};
  } else {
    grid.magnitudes = {1, 3, 5, 7, 9, 11, 13, 15};
  }
  return grid;
}

std::map<GgmlType, BlockGrid> MakeGrids() {
  using enum GgmlType;
  return {
      {kQ4_0, Plain(kQ4_0, -8, 7)},
      {kQ4_1, Shifted(kQ4_1, 15)},
      {kQ5_0, Plain(kQ5_0, -16, 15)},
      {kQ5_1, Shifted(kQ5_1, 31)},
      {kQ8_0, Plain(kQ8_0, -127, 127)},
      {kQ2_K, WithOffsets(kQ2_K, 16, 3, 15)},
      {kQ3_K, WithScales(kQ3_K, 16, -4, 3, -32, 31)},
      {kQ4_K, WithOffsets(kQ4_K, 32, 15, 63)},
      {kQ5_K, WithOffsets(kQ5_K, 32, 31, 63)},
      {kQ6_K, WithScales(kQ6_K, 16, -32, 31, -128, 127)},
      {kIQ4_NL, Uneven(Plain(kIQ4_NL, 0, 0))},
      {kIQ4_XS, Uneven(WithScales(kIQ4_XS, 32, 0, 0, -32, 31))},
      {kIQ2_XXS, OfVectors(kIQ2_XXS, 32, 8, gguf::kCodebookIQ2_XXS, 256, 0.125f, true)},
      {kIQ2_XS, OfVectors(kIQ2_XS, 16, 8, gguf::kCodebookIQ2_XS, 512, 0.125f, true)},
      {kIQ2_S, OfVectors(kIQ2_S, 16, 8, gguf::kCodebookIQ2_S, 1024, 0.125f, false)},
      {kIQ3_XXS, OfVectors(kIQ3_XXS, 32, 4, gguf::kCodebookIQ3_XXS, 256, 0.25f, true)},
      {kIQ3_S, OfVectors(kIQ3_S, 32, 4, gguf::kCodebookIQ3_S, 512, 1.0f, false)},
  };
}

const std::map<GgmlType, BlockGrid>& Grids() {
  static const std::map<GgmlType, BlockGrid> grids = MakeGrids();
  return grids;
}

}  // namespace

bool CanSolve(GgmlType type) { return Grids().contains(type); }
const BlockGrid& GridOf(GgmlType type) {
  const auto found = Grids().find(type);
  MICA_CHECK(found != Grids().end());
  return found->second;
}

BlockGrid SymmetricGrid(int bits, size_t group, ScaleType scale_type) {
  MICA_CHECK(bits >= 2);
  MICA_CHECK(bits <= 8);
  MICA_CHECK(group > 0);
  BlockGrid grid;
  grid.name = "int" + std::to_string(bits) + " g" + std::to_string(group);
  grid.block_cols = grid.group_cols = group;
  grid.scale_type = scale_type;
  grid.level_low = -(1 << (bits - 1));
  grid.level_high = (1 << (bits - 1)) - 1;
  grid.negative_scale = true;
  grid.bits_per_weight = bits + 16.0 / static_cast<double>(group);
  return grid;
}

}  // namespace mica
