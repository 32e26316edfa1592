// Which weights may be pruned together, and how a mask marks them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mica {

// How pruned weights of a fixed-width matrix are marked. Columns of width 0 have no mask bits; n:m blocks are
// counted over the other columns in stored order, and what is left when m does not divide their number is
// marked one bit a weight.
enum class MaskKind : uint8_t {
  kNone,        // every weight has a code
  kBitmap,      // one bit a weight
  kTwoOfFour,   // 2 kept in each 4 consecutive stored columns: 3 bits for 4 weights
  kFourOfEight  // 4 kept in each 8 consecutive stored columns: 7 bits for 8 weights
};

// Kept and block size of the n:m masks; {0, 0} for other masks.
struct CellShape {
  size_t kept = 0;
  size_t cols = 0;
};
inline CellShape CellOf(MaskKind mask) {
  if (mask == MaskKind::kTwoOfFour) return {2, 4};
  if (mask == MaskKind::kFourOfEight) return {4, 8};
  return {0, 0};
}

struct SparsityPattern {
  double rate =
      0;  // share of all weights set to zero, [0, 1), columns of width 0 included; unstructured when n is 0
  int n = 0, m = 0;  // n:m: n kept in each m consecutive coded columns (2:4, 4:8); rate is then not used
};
// The mask that marks it; throws Error when the rate is outside [0, 1) or n:m is none of the known patterns.
MaskKind MaskOf(const SparsityPattern& sparsity);

}  // namespace mica
