#include "ops/feedback/feedback.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/feedback/feedback.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mica::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, kTileRows>;
using V = hn::Vec<D>;
using DI32 = hn::RebindToSigned<D>;
using DU16 = hn::Rebind<uint16_t, D>;
using DU8 = hn::Rebind<uint8_t, D>;
using DF16 = hn::Rebind<hwy::float16_t, D>;

// Columns whose changes are applied to the rest of the tile at once: eight registers of changes and as many
// broadcasts a column.
constexpr size_t kStrip = 8;

V IfKept(const uint8_t* keep, V value) {
  const auto kept = hn::PromoteTo(DI32(), hn::LoadU(DU8(), keep));
  return hn::IfThenElseZero(hn::RebindMask(D(), hn::Gt(kept, hn::Zero(DI32()))), value);
}

// Quantisers: Value() gives the representable value nearest to w for rows r .. of column j and writes its
// code when asked.
struct Pruned {
  explicit Pruned(const TileGrid&) {}
  V Value(V, size_t, size_t, uint16_t* codes) const {
    if (codes != nullptr) hn::StoreU(hn::Zero(DU16()), DU16(), codes);
    return hn::Zero(D());
  }
};

struct Half {
  const uint8_t* keep;
  explicit Half(const TileGrid& grid) : keep(grid.keep) {}
  V Value(V w, size_t j, size_t r, uint16_t* codes) const {
    constexpr float kLargest = 65504.0f;
    V value = hn::Clamp(w, hn::Set(D(), -kLargest), hn::Set(D(), kLargest));
    if (keep != nullptr) value = IfKept(keep + j * kTileRows + r, value);
    const auto half = hn::DemoteTo(DF16(), value);
    if (codes != nullptr) hn::StoreU(hn::BitCast(DU16(), half), DU16(), codes);
    return hn::PromoteTo(D(), half);
  }
};

struct OnGrid {
  const float* scale;
  const float* zero;
  const uint8_t* keep;
  float max_code;
  explicit OnGrid(const TileGrid& grid)
      : scale(grid.scale),
        zero(grid.zero),
        keep(grid.keep),
        max_code(static_cast<float>((1 << grid.bits) - 1)) {}
  V Value(V w, size_t j, size_t r, uint16_t* codes) const {
    const V s = hn::LoadU(D(), scale + r), z = hn::LoadU(D(), zero + r);
    V code = hn::Add(hn::Round(hn::Div(w, s)), z);
    code = hn::Min(hn::Max(code, hn::Zero(D())), hn::Set(D(), max_code));
    V value = hn::Mul(hn::Sub(code, z), s);
    if (keep != nullptr) {
      value = IfKept(keep + j * kTileRows + r, value);
      code = IfKept(keep + j * kTileRows + r, code);
    }
    if (codes != nullptr) hn::StoreU(hn::DemoteTo(DU16(), hn::ConvertTo(DI32(), code)), DU16(), codes);
    return value;
  }
};

// target_k -= sum over kCount columns j of change_j factor_jk, for k in [first, last).
template <size_t kCount>
void ApplyChanges(const float* change, const float* factor, size_t stride, size_t first, size_t last,
                  float* target) {
  const D d;
  const auto load = [&](size_t j, size_t r) {
    return j < kCount ? hn::LoadU(d, change + j * kTileRows + r) : hn::Zero(d);
  };
  for (size_t r = 0; r < kTileRows; r += hn::Lanes(d)) {
    // Named one by one: vectors of scalable instruction sets cannot be array elements.
    const V c0 = load(0, r), c1 = load(1, r), c2 = load(2, r), c3 = load(3, r);
    const V c4 = load(4, r), c5 = load(5, r), c6 = load(6, r), c7 = load(7, r);
    for (size_t k = first; k < last; ++k) {
      const float* f = factor + k;
      float* t = target + k * kTileRows + r;
      // Two sums, for half the latency.
      V a = hn::LoadU(d, t), b = hn::Zero(d);
      a = hn::NegMulAdd(c0, hn::Set(d, f[0]), a);
      if constexpr (kCount > 1) b = hn::NegMulAdd(c1, hn::Set(d, f[stride]), b);
      if constexpr (kCount > 2) a = hn::NegMulAdd(c2, hn::Set(d, f[2 * stride]), a);
      if constexpr (kCount > 3) b = hn::NegMulAdd(c3, hn::Set(d, f[3 * stride]), b);
      if constexpr (kCount > 4) a = hn::NegMulAdd(c4, hn::Set(d, f[4 * stride]), a);
      if constexpr (kCount > 5) b = hn::NegMulAdd(c5, hn::Set(d, f[5 * stride]), b);
      if constexpr (kCount > 6) a = hn::NegMulAdd(c6, hn::Set(d, f[6 * stride]), a);
      if constexpr (kCount > 7) b = hn::NegMulAdd(c7, hn::Set(d, f[7 * stride]), b);
      if constexpr (kCount > 1) a = hn::Add(a, b);
      hn::StoreU(a, d, t);
    }
  }
}

void ApplyStrip(size_t count, const float* change, const float* factor, size_t stride, size_t first,
                size_t last, float* target) {
  switch (count) {
    case 1:
      return ApplyChanges<1>(change, factor, stride, first, last, target);
    case 2:
      return ApplyChanges<2>(change, factor, stride, first, last, target);
    case 3:
      return ApplyChanges<3>(change, factor, stride, first, last, target);
    case 4:
      return ApplyChanges<4>(change, factor, stride, first, last, target);
    case 5:
      return ApplyChanges<5>(change, factor, stride, first, last, target);
    case 6:
      return ApplyChanges<6>(change, factor, stride, first, last, target);
    case 7:
      return ApplyChanges<7>(change, factor, stride, first, last, target);
    default:
      return ApplyChanges<kStrip>(change, factor, stride, first, last, target);
  }
}

// Columns in strips: inside a strip every change is applied at once, to the columns behind it strip by strip.
// step(j, r, v, loss) fixes rows r .. of column j, where v is the value of `target`, and returns the change.
template <typename Step>
void Sweep(const ColumnRun& run, float* target, const Step& step) {
  const D d;
  for (size_t start = 0; start < run.cols; start += kStrip) {
    const size_t end = std::min(run.cols, start + kStrip);
    for (size_t j = start; j < end; ++j) {
      const float* factor = run.factor + j * run.stride;
      for (size_t r = 0; r < kTileRows; r += hn::Lanes(d)) {
        V loss = hn::LoadU(d, run.loss + r);
        const V change = step(j, r, hn::LoadU(d, target + j * kTileRows + r), loss);
        hn::StoreU(change, d, run.change + j * kTileRows + r);
        hn::StoreU(loss, d, run.loss + r);
        for (size_t k = j + 1; k < end; ++k) {
          float* t = target + k * kTileRows + r;
          hn::StoreU(hn::NegMulAdd(change, hn::Set(d, factor[k]), hn::LoadU(d, t)), d, t);
        }
      }
    }
    ApplyStrip(end - start, run.change + start * kTileRows, run.factor + start * run.stride, run.stride, end,
               run.update_cols, target);
  }
}

uint16_t* CodesAt(const ColumnRun& run, size_t j, size_t r) {
  return run.codes != nullptr ? run.codes + j * kTileRows + r : nullptr;
}

template <typename Quantiser>
void FeedWith(const ColumnRun& run, float* w) {
  const Quantiser quantiser(run.grid);
  Sweep(run, w, [&](size_t j, size_t r, V value, V& loss) {
    const V quantised = quantiser.Value(value, j, r, CodesAt(run, j, r));
    const V error = hn::Mul(hn::Sub(value, quantised), hn::Set(D(), run.reciprocal[j]));
    loss = hn::MulAdd(error, error, loss);
    return error;
  });
}

template <typename Quantiser>
void DescendWith(const ColumnRun& run, float* q, float* g) {
  const Quantiser quantiser(run.grid);
  Sweep(run, g, [&](size_t j, size_t r, V gradient, V& loss) {
    const D d;
    float* at = q + j * kTileRows + r;
    const V old = hn::LoadU(d, at);
    const V best = hn::MulAdd(gradient, hn::Set(d, run.reciprocal[j]), old);
    const V value = quantiser.Value(best, j, r, CodesAt(run, j, r));
    const V change = hn::Sub(value, old);
    hn::StoreU(value, d, at);
    const V curvature = hn::Mul(change, hn::Set(d, run.factor[j * run.stride + j]));
    loss = hn::MulAdd(change, hn::Sub(curvature, hn::Add(gradient, gradient)), loss);
    return change;
  });
}

void FeedColumnsOfTarget(const ColumnRun& run, float* w) {
  switch (run.grid.bits) {
    case 0:
      return FeedWith<Pruned>(run, w);
    case 16:
      return FeedWith<Half>(run, w);
    default:
      return FeedWith<OnGrid>(run, w);
  }
}

void DescendColumnsOfTarget(const ColumnRun& run, float* q, float* g) {
  switch (run.grid.bits) {
    case 0:
      return DescendWith<Pruned>(run, q, g);
    case 16:
      return DescendWith<Half>(run, q, g);
    default:
      return DescendWith<OnGrid>(run, q, g);
  }
}

void GridErrorsOfTarget(const float* w, size_t cols, const TileGrid& grid, const float* importance,
                        float* error) {
  const D d;
  const OnGrid quantiser(grid);
  for (size_t r = 0; r < kTileRows; r += hn::Lanes(d)) {
    V sum = hn::Zero(d);
    for (size_t j = 0; j < cols; ++j) {
      V value = hn::LoadU(d, w + j * kTileRows + r);
      if (grid.keep != nullptr) value = IfKept(grid.keep + j * kTileRows + r, value);
      const V difference = hn::Sub(value, quantiser.Value(value, j, r, nullptr));
      sum = hn::MulAdd(hn::Mul(difference, hn::Set(d, importance[j])), difference, sum);
    }
    hn::StoreU(sum, d, error + r);
  }
}

}  // namespace

FeedbackKernels FeedbackKernelsOfTarget() {
  return {hwy::TargetName(HWY_TARGET), GridErrorsOfTarget, FeedColumnsOfTarget, DescendColumnsOfTarget};
}

}  // namespace mica::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica {

HWY_EXPORT(FeedbackKernelsOfTarget);

namespace {

const FeedbackKernels& Chosen() {
  static const FeedbackKernels kernels = HWY_DYNAMIC_DISPATCH(FeedbackKernelsOfTarget)();
  return kernels;
}

}  // namespace

void GridErrors(const float* w, size_t cols, const TileGrid& grid, const float* importance, float* error) {
  Chosen().grid_errors(w, cols, grid, importance, error);
}
void FeedColumns(const ColumnRun& run, float* w) { Chosen().feed_columns(run, w); }
void DescendColumns(const ColumnRun& run, float* q, float* g) { Chosen().descend_columns(run, q, g); }

std::vector<FeedbackKernels> FeedbackKernelsOfAllTargets() {
  Chosen();  // chosen before the choice is narrowed
  std::vector<FeedbackKernels> all;
  // A faster instruction set has a lower bit.
  for (int64_t targets = hwy::SupportedTargets(); targets != 0; targets &= targets - 1) {
    hwy::SetSupportedTargetsForTest(targets & -targets);
    all.insert(all.begin(), HWY_DYNAMIC_DISPATCH(FeedbackKernelsOfTarget)());
  }
  hwy::SetSupportedTargetsForTest(0);
  return all;
}

}  // namespace mica
#endif
