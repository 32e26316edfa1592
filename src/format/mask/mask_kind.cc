#include "format/mask/mask_kind.h"

#include "base/error.h"

namespace mica {

static_assert([] {
  for (size_t i = 0; i < kMaskKinds.size(); ++i) {
    if (kMaskKinds[i].row != i || (i >= 2) != (kMaskKinds[i].cols > 0) || kMaskKinds[i].cols > 8)
      return false;
  }
  return true;
}());

MaskKind MaskKind::Cells(int n, int m) {
  for (const MaskKind& mask : kMaskKinds) {
    if (n > 0 && m > 0 && mask.kept == static_cast<size_t>(n) && mask.cols == static_cast<size_t>(m))
      return mask;
  }
  Fail("sparsity pattern is {}:{}, expected {}", n, m, CellNames());
}

bool MaskKind::Parse(std::string_view name, MaskKind& mask) {
  for (const MaskKind& known : kMaskKinds) {
    if (name != known.name) continue;
    mask = known;
    return true;
  }
  return false;
}

std::string MaskNames(size_t first) {
  std::string names;
  for (size_t i = first; i < kMaskKinds.size(); ++i) {
    if (i > first) names += i + 1 == kMaskKinds.size() ? " or " : ", ";
    names += kMaskKinds[i].name;
  }
  return names;
}

}  // namespace mica
