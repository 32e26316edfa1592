#include "ops/neighbours/neighbours.h"

#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/neighbours/neighbours.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mica::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

void Distances(const float* along, const float* across, size_t points, float* farthest) {
  const hn::CappedTag<float, kNeighbourLanes> d;
  using V = hn::Vec<decltype(d)>;
  for (size_t lane = 0; lane < kNeighbourLanes; lane += hn::Lanes(d)) {
    for (size_t p = 0; p < points; ++p) {
      const V centre = hn::LoadU(d, across + p * kNeighbourLanes + lane);
      const V far = hn::Set(d, std::numeric_limits<float>::infinity());
      // The four least distances so far, rising.
      V n0 = far, n1 = far, n2 = far, n3 = far;
      static_assert(kNeighbours == 4);
      const auto meet = [&](V gap, size_t q) HWY_ATTR {
        const V other = hn::LoadU(d, across + q * kNeighbourLanes + lane);
        const V distance = hn::Max(gap, hn::Abs(hn::Sub(other, centre)));
        const V up0 = hn::Max(n0, distance);
        n0 = hn::Min(n0, distance);
        const V up1 = hn::Max(n1, up0);
        n1 = hn::Min(n1, up0);
        const V up2 = hn::Max(n2, up1);
        n2 = hn::Min(n2, up1);
        n3 = hn::Min(n3, up2);
      };
      const auto none_nearer = [&](V gap) HWY_ATTR { return hn::AllFalse(d, hn::Lt(gap, n3)); };
      // Outwards along the shared coordinate, both ways at once, until no plane can find a nearer point.
      size_t left = p, right = p + 1;
      while (left > 0 && right < points) {
        const V left_gap = hn::Set(d, along[p] - along[left - 1]);
        const V right_gap = hn::Set(d, along[right] - along[p]);
        if (none_nearer(hn::Min(left_gap, right_gap))) break;
        meet(left_gap, --left);
        meet(right_gap, right++);
      }
      while (left > 0) {
        const V gap = hn::Set(d, along[p] - along[left - 1]);
        if (none_nearer(gap)) break;
        meet(gap, --left);
      }
      while (right < points) {
        const V gap = hn::Set(d, along[right] - along[p]);
        if (none_nearer(gap)) break;
        meet(gap, right++);
      }
      hn::StoreU(n3, d, farthest + p * kNeighbourLanes + lane);
    }
  }
}

}  // namespace
}  // namespace mica::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica {

HWY_EXPORT(Distances);

void NeighbourDistances(const float* along, const float* across, size_t points, float* farthest) {
  HWY_DYNAMIC_DISPATCH(Distances)(along, across, points, farthest);
}

}  // namespace mica
#endif
