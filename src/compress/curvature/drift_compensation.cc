#include "compress/curvature/drift_compensation.h"

#include <algorithm>
#include <vector>

#include "device/array.h"
#include "ops/linalg/arrange.h"
#include "ops/linalg/linalg.h"

namespace mica {

namespace {

// Rows that are multiplied together: ranks have whole slabs, so that no product depends on how many of them
// there are.
constexpr size_t kSlabRows = 1024;
constexpr size_t kRowsAtOnce = 8 * kSlabRows;  // bounds the memory that products of slabs take beside them

}  // namespace

void CompensateDrift(ConstTensor w, const InputMoments& moments, const DampedFactor& factor, double strength,
                     Tensor out, const Group& group) {
  const size_t slabs = (w.rows + kSlabRows - 1) / kSlabRows;
  std::vector<Part> parts;  // rows of each rank
  for (size_t r = 0; r < group.size(); ++r) {
    const Part part = PartOf(slabs, r, group.size());
    const size_t first = part.first * kSlabRows;
    parts.push_back({first, std::min(w.rows, (part.first + part.count) * kSlabRows) - first});
  }
  const Part mine = parts[group.rank()];
  for (size_t first = mine.first; first < mine.first + mine.count; first += kRowsAtOnce) {
    const size_t count = std::min(kRowsAtOnce, mine.first + mine.count - first);
    const ConstTensor from = w.Rows(first, count);
    const Tensor to = out.Rows(first, count);
    if (moments.residual.data != nullptr) {
      Copy(moments.residual.Rows(first, count), to);
    } else {
      FillZero(to);
    }
    AddProductBySlabs(from, moments.drift, kSlabRows, to);
    factor.MultiplyByInverse(to, kSlabRows);
    ScaleAndAdd(from, static_cast<float>(strength), to);
  }
  group.ShareRows(out, parts);
}

Matrix<float> CompensateDrift(MatrixView<const float> w, const InputMoments& moments,
                              const DampedFactor& factor, double strength) {
  Matrix<float> moved(w.rows, w.cols);
  CompensateDrift(w, moments, factor, strength, moved, Group::Alone());
  return moved;
}

}  // namespace mica
