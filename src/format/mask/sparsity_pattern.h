// Which weights are to be pruned, as it was asked for.
#pragma once

#include <string>
#include <string_view>

#include "format/mask/mask_kind.h"

namespace mica {

struct SparsityPattern {
  double rate =
      0;  // share of all weights set to zero, [0, 1), columns of width 0 included; unstructured when n is 0
  int n = 0, m = 0;  // n:m: n kept in each m consecutive coded columns (one of kMaskKinds); rate then follows
};
// The mask that marks it; throws Error when the rate is outside [0, 1) or n:m is none of the known patterns.
MaskKind MaskOf(const SparsityPattern& sparsity);

// "none", "unstructured" or n:m.
std::string PatternName(const SparsityPattern& sparsity);
// The n:m pattern of that name with the rate that it prunes; false when there is none.
bool ParseCells(std::string_view name, SparsityPattern& sparsity);

}  // namespace mica
