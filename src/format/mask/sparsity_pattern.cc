#include "format/mask/sparsity_pattern.h"

#include "base/error.h"

namespace mica {

MaskKind MaskOf(const SparsityPattern& sparsity) {
  if (sparsity.n == 0 && sparsity.m == 0) {
    if (!(sparsity.rate >= 0 && sparsity.rate < 1))
      Fail("sparsity is {}, expected a share from 0 to below 1", sparsity.rate);
    return sparsity.rate > 0 ? MaskKind::kBitmap : MaskKind::kNone;
  }
  if (sparsity.n == 2 && sparsity.m == 4) return MaskKind::kTwoOfFour;
  if (sparsity.n == 4 && sparsity.m == 8) return MaskKind::kFourOfEight;
  Fail("sparsity pattern is {}:{}, expected 2:4 or 4:8", sparsity.n, sparsity.m);
}

}  // namespace mica
