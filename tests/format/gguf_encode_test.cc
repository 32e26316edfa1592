#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "base/half.h"
#include "format/blocks/block_grid.h"
#include "format/gguf/decode.h"
#include "format/gguf/encode.h"

namespace mica {
namespace {

// Integers of a row at random, each over all it can be.
struct Integers {
  std::vector<uint8_t> codes, signs, s, m;
  std::vector<uint16_t> vectors;
  std::vector<F16> d, dmin;

  Integers(const BlockGrid& grid, size_t cols, uint32_t seed) {
    std::mt19937 generator(seed);
    const auto below = [&](size_t end) { return generator() % end; };
    const bool codebook = grid.levels == LevelKind::kCodebook;
    const size_t levels =
        grid.levels == LevelKind::kTable ? 16 : static_cast<size_t>(grid.level_high - grid.level_low + 1);
    for (size_t j = 0; j < cols; ++j) codes.push_back(static_cast<uint8_t>(below(levels)));
    for (size_t v = 0; codebook && v < cols / grid.vector_cols; ++v)
      vectors.push_back(static_cast<uint16_t>(below(grid.vectors)));
    for (size_t v = 0; v < cols / 8; ++v) {
      uint32_t byte = static_cast<uint32_t>(below(256));
      if (grid.even_signs && __builtin_popcount(byte) % 2 != 0) byte ^= 128u;
      signs.push_back(static_cast<uint8_t>(byte));
    }
    for (size_t g = 0; g < cols / grid.group_cols; ++g) {
      s.push_back(static_cast<uint8_t>(below(static_cast<size_t>(grid.scale_high) + 1)));
      m.push_back(static_cast<uint8_t>(below(static_cast<size_t>(grid.offset_high) + 1)));
    }
    for (size_t b = 0; b < cols / grid.block_cols; ++b) {
      const float sign = grid.negative_scale && below(2) == 0 ? -1.0f : 1.0f;
      d.push_back(ToF16(sign * 0.001f * static_cast<float>(1 + below(1000))));
      dmin.push_back(ToF16((grid.signed_offset && below(2) == 0 ? -1.0f : 1.0f) * 0.01f *
                           static_cast<float>(1 + below(1000))));
    }
  }
  BlockRow Row() const {
    return {codes.data(), vectors.data(), signs.data(), s.data(), m.data(), d.data(), dmin.data()};
  }
  // What column j holds, by the description of the grid.
  double Value(const BlockGrid& grid, size_t j) const {
    double a = ToFloat(d[j / grid.block_cols]);
    if (grid.has_integers()) a *= double{grid.scale_base} + double{grid.scale_step} * s[j / grid.group_cols];
    if (grid.levels == LevelKind::kCodebook) {
      const uint32_t vector = grid.codebook[vectors[j / grid.vector_cols]];
      const uint32_t level = vector >> (static_cast<size_t>(grid.level_bits) * (j % grid.vector_cols)) &
                             ((1u << grid.level_bits) - 1);
      const double magnitude = a * grid.magnitudes[level];
      return signs[j / 8] >> (j % 8) & 1 ? -magnitude : magnitude;
    }
    const double level = grid.levels == LevelKind::kTable ? grid.table[codes[j]]
                                                          : static_cast<double>(grid.level_low) + codes[j];
    double value = a * level;
    if (grid.has_offset()) {
      value -= double{ToFloat(dmin[j / grid.block_cols])} *
               (grid.signed_offset ? 1.0 : static_cast<double>(m[j / grid.group_cols]));
    }
    return value;
  }
};

TEST(GgufEncodeTest, WhatIsDecodedIsWhatTheIntegersSay) {
  size_t types = 0;
  for (const GgmlTypeFacts& facts : GgmlTypes()) {
    if (!CanSolve(facts.type)) continue;
    ++types;
    const BlockGrid& grid = GridOf(facts.type);
    EXPECT_EQ(grid.block_cols, facts.block_cols);
    const size_t blocks = 5, cols = blocks * facts.block_cols;
    for (uint32_t seed = 0; seed < 40; ++seed) {
      const Integers integers(grid, cols, seed);
      std::vector<std::byte> bytes(blocks * facts.block_bytes, std::byte{0xFF});
      EncodeRow(facts.type, integers.Row(), cols, bytes);
      std::vector<float> values(cols);
      DecodeRow(facts.type, bytes, values);
      for (size_t j = 0; j < cols; ++j)
        ASSERT_EQ(values[j], static_cast<float>(integers.Value(grid, j))) << facts.name << ' ' << j;
    }
  }
  EXPECT_EQ(types, 17u);
}

}  // namespace
}  // namespace mica
