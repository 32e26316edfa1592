// Products of bytes by a processor's tile registers (AMX): sixteen rows with sixteen tokens at once.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mica {

// Whether this processor has them, and the system lets this process use them.
bool HasInt8Tiles();

// Tokens and rows of a tile.
inline constexpr size_t kInt8Tile = 16;

// One block of columns of tokens in bytes, as Int8Inputs has them: from the first of them on.
struct Int8Block {
  const int8_t* values;  // [tokens, 256], `stride` apart
  size_t stride;
  const float* scales;    // of tokens, `blocks` apart
  const int32_t* sums;    // of their values, likewise
  size_t blocks;
};

// The tile registers of this thread, which others may use again when this goes. Only where HasInt8Tiles.
class Int8Tiles {
 public:
  Int8Tiles();
  ~Int8Tiles();
  Int8Tiles(const Int8Tiles&) = delete;
  Int8Tiles& operator=(const Int8Tiles&) = delete;

  // sums[t][r] += scale of t x (sum over columns of levels[r] values[t], less `offset` for each level): one block of 256
  // columns, `token_tiles` (1 or 2) times 16 tokens and `row_tiles` (1 or 2) times 16 rows, of which `rows` are written.
  // levels: [row_tiles][64, 16, 4] unsigned, four columns of each row together. sums: rows of tokens `stride` apart.
  // The integers are exact, so that sums have the bits of any other order of columns.
  void Add(size_t token_tiles, size_t row_tiles, const uint8_t* levels, const Int8Block& x, int offset, float* sums,
           size_t stride, size_t rows) const;
};

}  // namespace mica
