// The arithmetic of rows on the processor: two vectors of rows at once, for the instruction set that is found
// at run time. Tiles of so many rows are copied out of the matrices, column after column.
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <vector>

#include "base/matrix.h"
#include "base/threads.h"
#include "ops/blocks/block_rows.h"
#include "ops/cuda_ops.h"

// Vectors are members of structs and elements of arrays here, which those without a fixed size cannot be.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/blocks/block_rows_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mica::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
using DI32 = hn::RebindToSigned<D>;
using DU32 = hn::RebindToUnsigned<D>;
using DU16 = hn::Rebind<uint16_t, D>;
using DU8 = hn::Rebind<uint8_t, D>;
using DF16 = hn::Rebind<hwy::float16_t, D>;

constexpr size_t kHalf = hn::MaxLanes(D());
constexpr size_t kRowsOfF = 2 * kHalf;

// Two, whose chains of dependent operations overlap.
struct F {
  V x, y;
};
struct M {
  hn::Mask<D> x, y;
};

HWY_INLINE F operator+(F a, F b) { return {hn::Add(a.x, b.x), hn::Add(a.y, b.y)}; }
HWY_INLINE F operator-(F a, F b) { return {hn::Sub(a.x, b.x), hn::Sub(a.y, b.y)}; }
HWY_INLINE F operator*(F a, F b) { return {hn::Mul(a.x, b.x), hn::Mul(a.y, b.y)}; }
HWY_INLINE F operator/(F a, F b) { return {hn::Div(a.x, b.x), hn::Div(a.y, b.y)}; }
HWY_INLINE F operator-(F a) { return {hn::Neg(a.x), hn::Neg(a.y)}; }
HWY_INLINE F Set(float value) { return {hn::Set(D(), value), hn::Set(D(), value)}; }
HWY_INLINE F Load(const float* from) { return {hn::LoadU(D(), from), hn::LoadU(D(), from + kHalf)}; }
HWY_INLINE void Store(F a, float* to) {
  hn::StoreU(a.x, D(), to);
  hn::StoreU(a.y, D(), to + kHalf);
}
HWY_INLINE F Fma(F a, F b, F c) { return {hn::MulAdd(a.x, b.x, c.x), hn::MulAdd(a.y, b.y, c.y)}; }
HWY_INLINE F NegFma(F a, F b, F c) { return {hn::NegMulAdd(a.x, b.x, c.x), hn::NegMulAdd(a.y, b.y, c.y)}; }
HWY_INLINE F Min(F a, F b) { return {hn::Min(a.x, b.x), hn::Min(a.y, b.y)}; }
HWY_INLINE F Max(F a, F b) { return {hn::Max(a.x, b.x), hn::Max(a.y, b.y)}; }
HWY_INLINE F Abs(F a) { return {hn::Abs(a.x), hn::Abs(a.y)}; }
HWY_INLINE float SquareRoot(float x) { return std::sqrt(x); }
HWY_INLINE F RoundDown(F a) { return {hn::Floor(a.x), hn::Floor(a.y)}; }
HWY_INLINE F RoundToWhole(F a) { return {hn::Round(a.x), hn::Round(a.y)}; }
HWY_INLINE M Less(F a, F b) { return {hn::Lt(a.x, b.x), hn::Lt(a.y, b.y)}; }
HWY_INLINE M Equal(F a, F b) { return {hn::Eq(a.x, b.x), hn::Eq(a.y, b.y)}; }
HWY_INLINE M Or(M a, M b) { return {hn::Or(a.x, b.x), hn::Or(a.y, b.y)}; }
HWY_INLINE M Either(bool value) {
  const auto mask = hn::Ne(hn::Set(D(), value ? 1.0f : 0.0f), hn::Zero(D()));
  return {mask, mask};
}
HWY_INLINE bool Any(M a) { return !hn::AllFalse(D(), a.x) || !hn::AllFalse(D(), a.y); }
HWY_INLINE F If(M m, F a, F b) { return {hn::IfThenElse(m.x, a.x, b.x), hn::IfThenElse(m.y, a.y, b.y)}; }

HWY_INLINE V LoadByteHalf(const uint8_t* from) {
  return hn::ConvertTo(D(), hn::PromoteTo(DI32(), hn::LoadU(DU8(), from)));
}
HWY_INLINE F LoadByte(const uint8_t* from) { return {LoadByteHalf(from), LoadByteHalf(from + kHalf)}; }
HWY_INLINE void StoreByte(F a, uint8_t* to) {
  hn::StoreU(hn::DemoteTo(DU8(), hn::ConvertTo(DI32(), a.x)), DU8(), to);
  hn::StoreU(hn::DemoteTo(DU8(), hn::ConvertTo(DI32(), a.y)), DU8(), to + kHalf);
}
HWY_INLINE V LoadShortHalf(const uint16_t* from) {
  return hn::ConvertTo(D(), hn::PromoteTo(DI32(), hn::LoadU(DU16(), from)));
}
HWY_INLINE F LoadShort(const uint16_t* from) { return {LoadShortHalf(from), LoadShortHalf(from + kHalf)}; }
HWY_INLINE void StoreShort(F a, uint16_t* to) {
  hn::StoreU(hn::DemoteTo(DU16(), hn::ConvertTo(DI32(), a.x)), DU16(), to);
  hn::StoreU(hn::DemoteTo(DU16(), hn::ConvertTo(DI32(), a.y)), DU16(), to + kHalf);
}
// The magnitudes of the vectors of these numbers.
inline HWY_ATTR void LookUp(const CodebookTables& tables, F index, F* level, int count) {
  float numbers[kRowsOfF], found[8][kRowsOfF];
  Store(index, numbers);
  for (size_t r = 0; r < kRowsOfF; ++r) {
    const auto number = static_cast<size_t>(numbers[r]);
    const float* low = tables.low_levels[tables.low_of[number]];
    const float* high = tables.high_levels[tables.run_of[number]];
    for (int i = 0; i < count / 2; ++i) {
      found[i][r] = low[i];
      found[count / 2 + i][r] = high[i];
    }
  }
  for (int i = 0; i < count; ++i) level[i] = Load(found[i]);
}

// A row has one lane.
HWY_INLINE constexpr int Lane() { return 0; }
HWY_INLINE constexpr int Lanes() { return 1; }
HWY_INLINE void SyncLanes() {}
HWY_INLINE F FromLane(F a, int /*lane*/) { return a; }
template <typename... With>
HWY_INLINE void LeastOfLanes(F* /*key*/, F* /*order*/, With*... /*with*/) {}

// BF16 values are the upper halves of FP32 ones.
HWY_INLINE auto UpperHalf(V a) {
  const DU32 d;
  const auto bits = hn::BitCast(d, a), odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1u));
  return hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(d, 0x7FFFu))));
}
HWY_INLINE V Bounded(V a, float most) { return hn::Clamp(a, hn::Set(D(), -most), hn::Set(D(), most)); }
HWY_INLINE V RoundHalf(V a, bool bf16) {
  if (bf16) return hn::BitCast(D(), hn::ShiftLeft<16>(UpperHalf(Bounded(a, 3e38f))));
  return hn::PromoteTo(D(), hn::DemoteTo(DF16(), Bounded(a, 65504.0f)));
}
HWY_INLINE F RoundScale(F a, bool bf16) { return {RoundHalf(a.x, bf16), RoundHalf(a.y, bf16)}; }
HWY_INLINE V LoadHalf(const uint16_t* from, bool bf16) {
  const auto bits = hn::LoadU(DU16(), from);
  if (bf16) return hn::BitCast(D(), hn::ShiftLeft<16>(hn::PromoteTo(DU32(), bits)));
  return hn::PromoteTo(D(), hn::BitCast(DF16(), bits));
}
HWY_INLINE F LoadScale(const uint16_t* from, bool bf16) {
  return {LoadHalf(from, bf16), LoadHalf(from + kHalf, bf16)};
}
HWY_INLINE void StoreHalf(V a, bool bf16, uint16_t* to) {
  if (bf16) {
    hn::StoreU(hn::DemoteTo(DU16(), hn::BitCast(DI32(), UpperHalf(a))), DU16(), to);
  } else {
    hn::StoreU(hn::BitCast(DU16(), hn::DemoteTo(DF16(), a)), DU16(), to);
  }
}
HWY_INLINE void StoreScale(F a, bool bf16, uint16_t* to) {
  StoreHalf(a.x, bf16, to);
  StoreHalf(a.y, bf16, to + kHalf);
}
HWY_INLINE void AddLoss(F loss, double* to) {
  float values[kRowsOfF];
  Store(loss, values);
  for (size_t r = 0; r < hn::Lanes(D()); ++r) to[r] += values[r];
  for (size_t r = 0; r < hn::Lanes(D()); ++r) to[kHalf + r] += values[kHalf + r];
}

#define MICA_ROW HWY_ATTR inline
#include "ops/blocks/row_arithmetic.h"
//
#include "ops/blocks/vector_arithmetic.h"
#undef MICA_ROW

void RunTile(const RowJob& job) { RunRow(job); }

}  // namespace

RowKernels RowKernelsOfTarget() { return {hwy::TargetName(HWY_TARGET), kRowsOfF, RunTile}; }

}  // namespace mica::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica {

HWY_EXPORT(RowKernelsOfTarget);

namespace {

const RowKernels& Chosen() {
  static const RowKernels kernels = HWY_DYNAMIC_DISPATCH(RowKernelsOfTarget)();
  return kernels;
}

// A tile's copy of [count, rows] values, missing rows zero.
template <typename T>
class TileOf {
 public:
  TileOf(T* matrix, size_t count, size_t rows, const RowJob& job)
      : matrix_(matrix),
        count_(matrix == nullptr ? 0 : count),
        rows_(rows),
        job_(job),
        tile_(count_, rows, T{}) {}
  void Load(size_t first) {
    for (size_t j = 0; j < count_; ++j)
      std::copy_n(matrix_ + j * job_.stride + first, Here(first), tile_.row(j));
    if (Here(first) == rows_) return;
    for (size_t j = 0; j < count_; ++j) std::fill(tile_.row(j) + Here(first), tile_.row(j) + rows_, T{});
  }
  void Store(size_t first) const {
    for (size_t j = 0; j < count_; ++j)
      std::copy_n(tile_.row(j), Here(first), matrix_ + j * job_.stride + first);
  }
  T* data() { return count_ == 0 ? nullptr : tile_.data(); }

 private:
  size_t Here(size_t first) const { return std::min(rows_, job_.rows - first); }

  T* const matrix_;
  const size_t count_, rows_;
  const RowJob& job_;
  Matrix<T> tile_;
};

// A job whose block of the factor stands close together, its rows apart by an odd number of cache lines.
struct Prepared {
  explicit Prepared(const RowJob& given) : job(given) {
    if (job.factor == nullptr) return;
    const auto cols = static_cast<size_t>(job.cols);
    const size_t stride = (cols + 15) / 16 * 16 + 16;
    factor = Matrix<float>(cols, stride);
    for (size_t j = 0; j < cols; ++j) std::copy_n(job.factor + j * job.factor_stride, cols, factor.row(j));
    job.factor = factor.data();
    job.factor_stride = stride;
  }
  RowJob job;
  Matrix<float> factor;
};

void RunTile(const RowJob& given, size_t tile) {
  const RowKernels& kernels = Chosen();
  const size_t rows = kernels.rows, first = tile * rows, cols = static_cast<size_t>(given.cols);
  const size_t blocks = std::max<size_t>(1, cols / static_cast<size_t>(given.grid.block_cols));
  const size_t groups = blocks * static_cast<size_t>(given.grid.groups);
  const size_t vector_count =
      given.vectors == nullptr ? 0 : cols / static_cast<size_t>(given.grid.vector_cols);
  TileOf<float> w(given.w, cols, rows, given), change(given.change, cols, rows, given);
  TileOf<uint8_t> codes(given.codes, cols, rows, given), s(given.s, groups, rows, given),
      m(given.m, groups, rows, given), signs(given.signs, cols / 8, rows, given);
  TileOf<uint16_t> d(given.d, blocks, rows, given), dmin(given.dmin, blocks, rows, given),
      vectors(given.vectors, vector_count, rows, given);
  const auto codes_of = [&](const auto& use) {
    use(change);
    use(codes);
    use(signs);
    use(vectors);
  };
  const auto scales_of = [&](const auto& use) {
    use(s);
    use(m);
    use(d);
    use(dmin);
  };
  const auto load = [&](auto& of) { of.Load(first); };
  const auto store = [&](const auto& of) { of.Store(first); };
  w.Load(first);
  codes_of(load);
  scales_of(load);
  Matrix<float> scratch;
  if (given.stage == RowStage::kRefine) scratch = Matrix<float>(4 * cols, rows);
  std::vector<double> loss(rows, 0.0);
  RowJob here = given;
  here.w = w.data();
  here.change = change.data();
  here.scratch = scratch.data();
  here.codes = codes.data();
  here.s = s.data();
  here.m = m.data();
  here.d = d.data();
  here.dmin = dmin.data();
  here.vectors = vectors.data();
  here.signs = signs.data();
  here.stride = here.rows = rows;
  here.loss = loss.data();
  kernels.run(here);
  if (given.stage == RowStage::kValues || given.stage == RowStage::kResidual) return w.Store(first);
  codes_of(store);
  if (given.fit) scales_of(store);  // else they are as they were, and shared with other jobs
  if (given.loss == nullptr) return;
  for (size_t r = 0; r < rows && first + r < given.rows; ++r) given.loss[first + r] += loss[r];
}

}  // namespace

void RunRows(Device device, std::span<const RowJob> jobs) {
  if (jobs.empty() || jobs.front().rows == 0) return;
  if (device.is_cuda()) return Cuda().RunRows(device, jobs);
  std::vector<Prepared> prepared(jobs.begin(), jobs.end());
  const size_t tiles = (jobs.front().rows + Chosen().rows - 1) / Chosen().rows;
  ParallelFor(jobs.size() * tiles, [&](size_t i) { RunTile(prepared[i / tiles].job, i % tiles); });
}

std::vector<RowKernels> RowKernelsOfAllTargets() {
  Chosen();  // chosen before the choice is narrowed
  std::vector<RowKernels> all;
  // A faster instruction set has a lower bit.
  for (int64_t targets = hwy::SupportedTargets(); targets != 0; targets &= targets - 1) {
    hwy::SetSupportedTargetsForTest(targets & -targets);
    all.insert(all.begin(), HWY_DYNAMIC_DISPATCH(RowKernelsOfTarget)());
  }
  hwy::SetSupportedTargetsForTest(0);
  return all;
}

}  // namespace mica
#endif
