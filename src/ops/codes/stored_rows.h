// What the decoders of all devices share: which tiles hold rows, and what is said of damage.
#pragma once

#include <cstddef>

#include "format/entropy/parts.h"
#include "format/fixed/parts.h"

namespace mica {

// The tiles that may hold some of the rows [first_row, first_row + rows), rows > 0: rows in their own order
// stand in known tiles, otherwise any tile may hold one of them.
struct TileSpan {
  size_t first = 0, count = 0;
};
TileSpan TilesOf(const EntropyParts& parts, size_t first_row, size_t rows);
// Whether there are codes of 16 bits.
bool HasHalves(const FixedParts& parts);

[[noreturn]] void FailTile(const EntropyParts& parts, size_t tile);
[[noreturn]] void FailNotFinite(const FixedParts& parts, size_t row, size_t col, bool nan);

}  // namespace mica
