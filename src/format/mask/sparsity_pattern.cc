#include "format/mask/sparsity_pattern.h"

#include "base/error.h"

namespace mica {

MaskKind MaskOf(const SparsityPattern& sparsity) {
  if (sparsity.n != 0 || sparsity.m != 0) return MaskKind::Cells(sparsity.n, sparsity.m);
  if (!(sparsity.rate >= 0 && sparsity.rate < 1))
    Fail("sparsity is {}, expected a share from 0 to below 1", sparsity.rate);
  return sparsity.rate > 0 ? MaskKind::kBitmap : MaskKind::kNone;
}

std::string PatternName(const SparsityPattern& sparsity) {
  if (sparsity.n > 0) return fmt::format("{}:{}", sparsity.n, sparsity.m);
  return sparsity.rate > 0 ? "unstructured" : "none";
}

bool ParseCells(std::string_view name, SparsityPattern& sparsity) {
  MaskKind mask;
  if (!MaskKind::Parse(name, mask) || mask.cols == 0) return false;
  sparsity = {static_cast<double>(mask.Pruned(mask.cols)) / static_cast<double>(mask.cols),
              static_cast<int>(mask.kept), static_cast<int>(mask.cols)};
  return true;
}

}  // namespace mica
