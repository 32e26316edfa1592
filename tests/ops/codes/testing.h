// Packed matrices as a file would open them, for the tests of decoders.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <variant>

#include "base/error.h"
#include "format/entropy/parts.h"
#include "format/fixed/parts.h"
#include "ops/codes/codes.h"
#include "ops/codes/entropy_model.h"
#include "tests/format/entropy/testing.h"
#include "tests/format/fixed/testing.h"

namespace mica {

// Empty where there is no such part.
inline std::span<const std::byte> BytesOf(const PackedMatrix& packed, PartKind kind) {
  for (const PackedPart& part : packed.parts) {
    if (part.kind == kind) return part.bytes;
  }
  return {};
}

// As a file would be opened; uses the bytes of `packed`.
inline EntropyParts OpenedEntropy(const PackedMatrix& packed) {
  const EntropyFacts& facts = std::get<EntropyFacts>(packed.facts);
  EntropyParts parts = WithFacts(facts);
  parts.knots = BytesOf(packed, PartKind::kTables);
  ReadKnots(parts.knots.size() / 4 / (facts.states > 1 ? 2 : 1), parts);
  parts.tile_lengths = BytesOf(packed, PartKind::kTiles);
  ReadTileLengths(parts);
  parts.codes = BytesOf(packed, PartKind::kCodes);
  parts.side = BytesOf(packed, PartKind::kSide);
  MICA_CHECK(ReadSide(parts));
  return parts;
}

struct EntropyCase {
  size_t rows, cols, tile_rows;
  int states;
  double octaves;  // 5.5 has raw bits, 12.5 escapes
};
inline constexpr EntropyCase kEntropyCases[] = {
    {150, 45, 128, 8, 0.5}, {70, 64, 128, 1, -1.0}, {61, 33, 16, 4, 1.5},     {40, 96, 7, 8, 5.5},
    {128, 31, 128, 1, 6.5}, {257, 3, 128, 8, 0.0},  {33, 70, 32, 8, 12.5},    {20, 37, 128, 1, 13.0},
    {9, 32, 128, 4, 10.0},  {1, 1, 1, 8, 1.0},      {300, 40, 4096, 8, -0.5},
};

inline EntropyMatrix Sample(const EntropyCase& c, unsigned seed) {
  EntropyMatrix matrix = RandomEntropy(c.rows, c.cols, c.states, c.octaves, seed);
  // A few integers that only an escape reaches, in columns of any lane.
  std::mt19937 random(seed);
  for (size_t i = 0; i < matrix.n.size() / 50; ++i)
    matrix.n.data()[random() % matrix.n.size()] = static_cast<int16_t>(random() % 65535 - 32767);
  matrix.tile_rows = c.tile_rows;
  for (size_t r = 0; seed % 2 == 0 && r < c.rows; ++r)
    matrix.row_key.push_back(static_cast<int16_t>((r * 7) % 5));
  FitEntropyModel(matrix);
  return matrix;
}

inline FixedParts OpenedFixed(const PackedMatrix& packed) {
  FixedParts parts;
  static_cast<FixedFacts&>(parts) = std::get<FixedFacts>(packed.facts);
  parts.runs = BytesOf(packed, PartKind::kRuns);
  ReadRuns(parts);
  parts.scales = BytesOf(packed, PartKind::kScales);
  parts.zeros = BytesOf(packed, PartKind::kZeros);
  parts.order = BytesOf(packed, PartKind::kOrder);
  if (!parts.order.empty()) ReadOrder(parts);
  parts.col_exponents = BytesOf(packed, PartKind::kColExponents);
  if (!parts.col_exponents.empty()) ReadColExponents(parts);
  parts.mask_rows = BytesOf(packed, PartKind::kMask);
  if (parts.mask_rows.empty()) {
    parts.mask = MaskKind::kNone;
  } else {
    parts.kept_before.assign((parts.blocks() + 1) * parts.groups.size(), 0);
    for (size_t block = 0; block < parts.blocks(); ++block) CountKept(block, parts);
  }
  parts.codes = BytesOf(packed, PartKind::kCodes);
  MICA_CHECK(PlaceCodes(parts) == parts.codes.size());
  return parts;
}

}  // namespace mica
