// This file is compiled once for each instruction set (Highway); the best one is chosen at run time. Where
// there is AVX2, trellis_avx2_cpu.cc is chosen instead, and where there are AVX-512's byte permutations
// trellis_vbmi_cpu.cc.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "device/scratch.h"
#include "ops/packed_product/trellis_form.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/packed_product/trellis_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mica::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_HAVE_SCALABLE || HWY_TARGET == HWY_SCALAR

// Levels of one row of a block, [256]; the states, as format/resident/trellis.h has them, go on.
void LevelsOfRow(const TrellisWeights& w, size_t tile, size_t block, const uint8_t* bytes, size_t row,
                 uint8_t* states, int8_t* levels) {
  uint8_t codes[kTrellisBlock];
  UnpackRow(w.layout, tile, block, bytes, row, codes);
  const int width = w.layout.width, shift = w.tables.next_shift;
  for (size_t i = 0; i < kTrellisBlock; ++i) {
    if (width == 8) {
      levels[i] = static_cast<int8_t>(codes[i] - 128);
      continue;
    }
    // Of width 6 the state's bit 4 is not for the level, and the code's bit 4 not for the state.
    const int at = width == 6 ? codes[i] | (states[i] & 0x40) : (codes[i] | states[i]) & 63;
    levels[i] = static_cast<int8_t>(w.tables.level[static_cast<size_t>(at)] - w.tables.offset);
    const int next = width == 6 ? (codes[i] & 0x20) | states[i] : codes[i] | states[i];
    states[i] = w.tables.next[static_cast<size_t>(next >> shift & 15)];
  }
}

#else

using D8 = hn::CappedTag<uint8_t, 64>;
using DI8 = hn::RebindToSigned<D8>;
using V8 = hn::Vec<D8>;
constexpr size_t kStep = hn::MaxLanes(D8());
static_assert(kStep <= kTrellisStrip && kStep >= 16);

// Bytes shifted to the right; what the byte above leaves is to be masked out.
V8 Right(V8 bytes, int bits) {
  const hn::Repartition<uint16_t, D8> d16;
  return hn::BitCast(D8(), hn::ShiftRightSame(hn::BitCast(d16, bytes), bits));
}

// kStep codes of a row of a whole block, from column `at` on.
V8 Codes(int width, const uint8_t* bytes, size_t rows, size_t row, size_t at) {
  const D8 d;
  const size_t strip = at / kTrellisStrip, i = at % kTrellisStrip;
  const uint8_t* const two = bytes + (width <= 3 ? 0 : rows * 128);
  const uint8_t* const high = two + (width <= 3 || width == 6 ? rows * 64 : 0);
  V8 code = hn::Zero(d);
  if (width > 3) {
    const V8 pair = hn::LoadU(d, bytes + row * 128 + strip / 2 * 64 + i);
    code = hn::And(strip % 2 == 0 ? pair : Right(pair, 4), hn::Set(d, 15));
  }
  if (width <= 3 || width == 6) {
    const V8 four = hn::LoadU(d, two + row * 64 + i);
    const V8 own = hn::And(Right(four, static_cast<int>(2 * strip)), hn::Set(d, 3));
    const hn::Repartition<uint16_t, D8> d16;
    code = width <= 3 ? own : hn::Or(code, hn::BitCast(d, hn::ShiftLeft<4>(hn::BitCast(d16, own))));
  }
  if (width == 3 || width == 5) {
    // Vectors of a whole strip have two parts of the plane's columns.
    HWY_ALIGN uint8_t own[kStep], bit[kStep];
    for (size_t l = 0; l < kStep; l += std::min(kStep, kHighBytes)) {
      const size_t c = at + l;
      std::memcpy(own + l, high + row * kHighBytes + c % kHighBytes, std::min(kStep, kHighBytes));
      std::memset(bit + l, 1 << (c / kHighBytes), std::min(kStep, kHighBytes));
    }
    code = hn::Or(code, hn::IfThenElseZero(hn::TestBit(hn::Load(d, own), hn::Load(d, bit)),
                                           hn::Set(d, static_cast<uint8_t>(1 << (width - 1)))));
  }
  return code;
}

// Levels of one row of a block, [256]; the states, as format/resident/trellis.h has them, go on.
void LevelsOfRow(const TrellisWeights& w, size_t tile, size_t block, const uint8_t* bytes, size_t row,
                 uint8_t* states, int8_t* levels) {
  const D8 d;
  const DI8 di;
  const int width = w.layout.width;
  const bool whole = w.layout.StripsOf(block) == kStripsOfBlock;
  HWY_ALIGN uint8_t codes[kTrellisBlock];
  if (!whole || width == 8) UnpackRow(w.layout, tile, block, bytes, row, codes);
  if (width == 8) {
    for (size_t i = 0; i < kTrellisBlock; ++i) levels[i] = static_cast<int8_t>(codes[i] - 128);
    return;
  }
  const size_t rows = w.layout.RowsOf(tile);
  const int half = HalfOfWidth(width);
  const auto next = hn::LoadDup128(d, w.tables.next.data());
  const auto one = hn::Set(di, 1);
  const bool two_apart = w.layout.states > 1;
  for (size_t at = 0; at < kTrellisBlock; at += kStep) {
    const V8 code = whole ? Codes(width, bytes, rows, row, at) : hn::Load(d, codes + at);
    const V8 state = hn::Load(d, states + at);
    // n = 2 upper + parity
    const V8 parity_bit = hn::Set(d, static_cast<uint8_t>(half));
    const auto odd = hn::RebindMask(di, hn::Ne(hn::And(code, parity_bit), hn::Zero(d)));
    const auto quarter = hn::Set(di, static_cast<int8_t>(half / 2));
    const auto upper =
        hn::Sub(hn::Xor(hn::BitCast(di, hn::And(code, hn::Set(d, static_cast<uint8_t>(half - 1)))), quarter),
                quarter);
    const auto n = hn::Add(hn::Add(upper, upper), hn::IfThenElseZero(odd, one));
    auto level = n;
    if (two_apart) {
      const auto above = hn::IfThenElseZero(hn::Gt(n, hn::Zero(di)), one);
      const auto below = hn::IfThenElseZero(hn::Lt(n, hn::Zero(di)), one);
      const auto quantiser = hn::RebindMask(
          di, hn::Ne(hn::And(state, hn::Set(d, static_cast<uint8_t>(1 << width))), hn::Zero(d)));
      level = hn::Sub(hn::Add(n, n), hn::IfThenElseZero(quantiser, hn::Sub(above, below)));
    }
    hn::Store(level, di, levels + at);
    const V8 both = hn::Or(width == 6 ? hn::And(code, parity_bit) : code, state);
    const V8 index = hn::And(Right(both, w.tables.next_shift), hn::Set(d, 15));
    hn::Store(hn::TableLookupBytes(next, index), d, states + at);
  }
}

#endif

int Dot(const int8_t* a, const int8_t* b) {
  int sum = 0;
  for (size_t i = 0; i < kTrellisBlock; ++i) sum += int{a[i]} * int{b[i]};
  return sum;
}

void MultiplyOfTarget(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first,
                      MatrixView<float> y) {
  const TrellisLayout& layout = w.layout;
  const size_t rows = layout.RowsOf(tile), blocks = layout.blocks();
  for (size_t t = 0; t < y.rows; ++t) std::fill_n(y.row(t), rows, 0.0f);
  HWY_ALIGN int8_t levels[kTrellisBlock];
  for (size_t k = 0; k < blocks; ++k) {
    HWY_ALIGN uint8_t states[kTrellisBlock] = {};
    const uint8_t* bytes = w.codes.data() + layout.Begin(tile, k);
    for (size_t r = 0; r < rows; ++r) {
      LevelsOfRow(w, tile, k, bytes, r, states, levels);
      for (size_t t = 0; t < y.rows; ++t) {
        const int sum =
            Dot(levels, x.rounded.values.data() + (first + t) * x.rounded.stride + k * kTrellisBlock);
        y(t, r) = std::fma(x.rounded.scales[(first + t) * blocks + k], static_cast<float>(sum), y(t, r));
      }
    }
  }
  const TrellisWeights::Exceptions& exceptions = w.exceptions[tile];
  const TrellisException* items = exceptions.items.data();
  for (size_t r = 0; r < rows; ++r) {
    const size_t position = tile * layout.tile_rows + r, count = exceptions.CountOf(r);
    const float scale = w.row_scale[position];
    for (size_t t = 0; t < y.rows; ++t) {
      float lanes[8] = {};
      if (!x.values.empty()) {
        for (size_t i = 0; i < w.taken.size(); ++i) {
          lanes[i % 8] = std::fma(static_cast<float>(w.taken_levels(position, i)),
                                  x.ValuesOf(first + t)[w.taken[i] * x.value_stride()], lanes[i % 8]);
        }
        size_t col = 0;
        for (size_t i = 0; i < count; ++i) {
          col += static_cast<size_t>(ColsOf(items[i]));
          lanes[i % 8] = std::fma(static_cast<float>(UnitsOf(items[i]) * w.exception_unit),
                                  x.ValuesOf(first + t)[col * x.value_stride()], lanes[i % 8]);
        }
      }
      const float beside =
          ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
      y(t, r) = scale * (y(t, r) + beside);
    }
    items += count;
  }
}

TrellisKernel ChosenKernel() { return MultiplyOfTarget; }

}  // namespace
}  // namespace mica::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica {

HWY_EXPORT(ChosenKernel);

std::vector<NamedTrellisKernel> TrellisKernelsOfAllTargets() {
  std::vector<NamedTrellisKernel> kernels;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {  // fastest first
    hwy::SetSupportedTargetsForTest(target);
    kernels.insert(kernels.begin(), {hwy::TargetName(target), HWY_DYNAMIC_DISPATCH(ChosenKernel)()});
  }
  hwy::SetSupportedTargetsForTest(0);
  if (const TrellisKernel kernel = Avx2TrellisKernel(); kernel != nullptr)
    kernels.push_back({"bytes of AVX2", kernel});
  if (const TrellisKernel kernel = VbmiTrellisKernel(); kernel != nullptr)
    kernels.push_back({"VBMI", kernel});
  if (const TrellisKernel kernel = TileTrellisKernel(); kernel != nullptr)
    kernels.push_back({"VBMI and tiles", kernel});
  return kernels;
}

}  // namespace mica
#endif
