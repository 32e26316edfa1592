// How pruned weights of a matrix of coding `fixed` are marked: the one table of masks, from which names,
// cells and stored sizes follow.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mica {

// One of kMaskKinds. Columns of width 0 have no mask bits; n:m cells are counted over the other columns in
// stored order, and what is left when m does not divide their number is marked one bit a weight.
struct MaskKind {
  uint8_t row = 0;            // in kMaskKinds
  const char* name = "none";  // in files and in settings
  size_t kept = 0;            // n of n:m, weights kept in each cell
  size_t cols = 0;      // m of n:m, consecutive stored columns of a cell, at most 8; 0: there are no cells
  int cell_bits = 0;    // that mark a cell
  int column_bits = 0;  // that mark a weight outside cells

  static const MaskKind kNone;    // every weight has a code
  static const MaskKind kBitmap;  // one bit a weight
  // n:m; throws Error when it is none of those in the table.
  static MaskKind Cells(int n, int m);
  // False when no mask has that name.
  static bool Parse(std::string_view name, MaskKind& mask);

  // Columns that belong together: those of a cell, or each on its own.
  constexpr size_t CellCols() const { return cols == 0 ? 1 : cols; }
  // Weights of a cell (or of the columns that are left) that are pruned.
  constexpr size_t Pruned(size_t columns) const { return cols == 0 ? 0 : columns * (cols - kept) / cols; }
  // Bits of one row of `coded_cols` columns before padding to a byte.
  constexpr uint64_t RowBits(size_t coded_cols) const {
    const size_t cells = cols == 0 ? 0 : coded_cols / cols;
    return cells * cell_bits + (coded_cols - cells * cols) * column_bits;
  }
  constexpr uint64_t RowBytes(size_t coded_cols) const { return (RowBits(coded_cols) + 7) / 8; }
  constexpr bool operator==(const MaskKind& other) const { return row == other.row; }
};

// A new n:m pattern is one more row.
inline constexpr std::array kMaskKinds = {
    MaskKind{0, "none", 0, 0, 0, 0},
    MaskKind{1, "bitmap", 0, 0, 0, 1},
    MaskKind{2, "2:4", 2, 4, 3, 1},
    MaskKind{3, "4:8", 4, 8, 7, 1},
};
inline constexpr MaskKind MaskKind::kNone = kMaskKinds[0];
inline constexpr MaskKind MaskKind::kBitmap = kMaskKinds[1];

// "none, bitmap, 2:4 or 4:8": the names from `first` on, as messages list them; `first` as in kMaskKinds.
std::string MaskNames(size_t first = 0);
// "2:4 or 4:8"
inline std::string CellNames() { return MaskNames(2); }

}  // namespace mica
