// This file is compiled once for each instruction set (Highway); the best one is chosen at run time.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "device/scratch.h"
#include "ops/packed_product/fixed_form.h"

// Products of bytes (VNNI) and bytes that are put in places by a mask (VBMI2).
#define HWY_WANT_AVX3_DL
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/packed_product/fixed_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#ifndef MICA_OPS_PACKED_PRODUCT_FIXED_CPU
#define MICA_OPS_PACKED_PRODUCT_FIXED_CPU
namespace mica {

// [kept of eight columns] where the byte of each column comes from; bytes from 128 on give 0.
inline constexpr auto kPlacesOfKept = [] {
  std::array<std::array<uint8_t, 8>, 256> places{};
  for (size_t kept = 0; kept < 256; ++kept) {
    uint8_t next = 0;
    for (size_t i = 0; i < 8; ++i) places[kept][i] = (kept >> i & 1) != 0 ? next++ : 128;
  }
  return places;
}();

}  // namespace mica
#endif

HWY_BEFORE_NAMESPACE();
namespace mica::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_HAVE_SCALABLE || HWY_TARGET == HWY_SCALAR

FixedKernel ChosenKernel() { return MultiplyFixedRef; }

#else

using D8 = hn::CappedTag<uint8_t, 64>;
using DI8 = hn::RebindToSigned<D8>;
using DI32 = hn::Repartition<int32_t, D8>;
using DF = hn::Repartition<float, D8>;
using V8 = hn::Vec<D8>;
using VI8 = hn::Vec<DI8>;
using VI32 = hn::Vec<DI32>;
constexpr size_t kStep = hn::MaxLanes(D8());
constexpr size_t kVectors = kFixedBlock / kStep;
constexpr size_t kRowsTogether = hn::MaxLanes(DI32());
static_assert(kStep >= 16 && kStep <= 64 && kFixedTile % kRowsTogether == 0);

// Bytes shifted; what comes from the neighbour is to be masked out.
template <int kRight, class D>
HWY_INLINE hn::Vec<D> Shifted(D d, hn::Vec<D> bytes) {
  const hn::Repartition<uint16_t, D> d16;
  if constexpr (kRight > 0) return hn::BitCast(d, hn::ShiftRight<kRight>(hn::BitCast(d16, bytes)));
  if constexpr (kRight < 0) return hn::BitCast(d, hn::ShiftLeft<-kRight>(hn::BitCast(d16, bytes)));
  return bytes;
}

// `bytes` of a plane as often as a vector takes, each time shifted by kPart more.
template <int kPart, class D>
HWY_INLINE hn::Vec<D> Spread(D d, const uint8_t* plane, size_t bytes) {
  if constexpr (hn::MaxLanes(D()) > 16) {
    if (hn::MaxLanes(d) > bytes) {
      const hn::Half<D> half;
      constexpr int kAbove =
          kPart * static_cast<int>(hn::MaxLanes(D()) / 2 / (16 * static_cast<size_t>(kPart)));
      const auto low = Spread<kPart>(half, plane, bytes);
      return hn::Combine(d, Shifted<kAbove>(half, low), low);
    }
  }
  return hn::LoadU(d, plane);
}

// Part kPart of the codes of slots [kVector kStep, (kVector + 1) kStep) of a whole row, at bit kTo.
template <int kPart, int kTo, size_t kVector>
HWY_INLINE V8 PartOf(const uint8_t* plane) {
  const D8 d;
  constexpr size_t kBytes = 16 * static_cast<size_t>(kPart);
  constexpr int kShift = static_cast<int>(kVector * kStep / kBytes) * kPart;
  const V8 bytes = Spread<kPart>(d, plane + kVector * kStep % kBytes, kBytes);
  return hn::And(Shifted<kShift - kTo>(d, bytes),
                 hn::Set(d, static_cast<uint8_t>(((1 << kPart) - 1) << kTo)));
}

template <int kBits, size_t kVector>
HWY_INLINE V8 WholeVector(const uint8_t* planes) {
  if constexpr (kBits == 8) return hn::LoadU(D8(), planes + kVector * kStep);
  if constexpr (kBits == 2) return PartOf<2, 0, kVector>(planes);
  if constexpr (kBits == 3) return hn::Or(PartOf<2, 0, kVector>(planes), PartOf<1, 2, kVector>(planes + 32));
  if constexpr (kBits == 4) return PartOf<4, 0, kVector>(planes);
  if constexpr (kBits == 6) return hn::Or(PartOf<4, 0, kVector>(planes), PartOf<2, 4, kVector>(planes + 64));
}

// Codes of a row of 128, in vectors, as they are packed and as bytes.
template <int kBits>
struct PackedRows {
  const uint8_t* begin;
  HWY_INLINE void Load(size_t row, V8 (&codes)[kVectors]) const {
    LoadAll(begin + row * PlaneBytes(kBits, kFixedBlock), codes, std::make_index_sequence<kVectors>());
  }
  template <size_t... kVector>
  HWY_INLINE static void LoadAll(const uint8_t* planes, V8 (&codes)[kVectors],
                                 std::index_sequence<kVector...>) {
    ((codes[kVector] = WholeVector<kBits, kVector>(planes)), ...);
  }
};
struct ByteRows {
  const uint8_t* begin;
  HWY_INLINE void Load(size_t row, V8 (&codes)[kVectors]) const {
    for (size_t i = 0; i < kVectors; ++i) codes[i] = hn::LoadU(D8(), begin + row * kFixedBlock + i * kStep);
  }
};

// -- Lanes of sums of codes times 254 first + second digit; below, the digits of one block.
struct Digits {
  VI8 first[kVectors], second[kVectors];
};

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL

// sum += products of unsigned and signed bytes, four a lane. Highway 1.0.3 does not name this instruction
// among its target's.
HWY_INLINE void AddProducts(VI32& sum, V8 codes, VI8 x) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(codes.raw), "v"(x.raw));
}
template <int kBits>
HWY_INLINE VI32 Products(const V8 (&codes)[kVectors], const Digits& x) {
  const DI32 d;
  VI32 first = hn::Zero(d), second = hn::Zero(d);
  for (size_t i = 0; i < kVectors; ++i) {
    AddProducts(first, codes[i], x.first[i]);
    AddProducts(second, codes[i], x.second[i]);
  }
  return hn::Add(hn::Sub(hn::ShiftLeft<8>(first), hn::Add(first, first)), second);
}

#elif HWY_ARCH_X86 && HWY_TARGET <= HWY_SSSE3

using DI16 = hn::Repartition<int16_t, D8>;
using VI16 = hn::Vec<DI16>;
// Sums of two products. They saturate: of codes of more than 4 bits few may be added, of 8 bits none.
HWY_INLINE VI16 PairProducts(V8 codes, VI8 x) {
#if HWY_TARGET <= HWY_AVX3
  return VI16{_mm512_maddubs_epi16(codes.raw, x.raw)};
#elif HWY_TARGET <= HWY_AVX2
  return VI16{_mm256_maddubs_epi16(codes.raw, x.raw)};
#else
  return VI16{_mm_maddubs_epi16(codes.raw, x.raw)};
#endif
}
HWY_INLINE VI32 PairSums(VI16 sums, int16_t factor) {
  const VI16 factors = hn::Set(DI16(), factor);
#if HWY_TARGET <= HWY_AVX3
  return VI32{_mm512_madd_epi16(sums.raw, factors.raw)};
#elif HWY_TARGET <= HWY_AVX2
  return VI32{_mm256_madd_epi16(sums.raw, factors.raw)};
#else
  return VI32{_mm_madd_epi16(sums.raw, factors.raw)};
#endif
}
template <int kMost>
HWY_INLINE VI32 DigitProducts(const V8 (&codes)[kVectors], const VI8 (&x)[kVectors], int factor) {
  // Vectors of 128 columns that 16 bits hold the sums of.
  constexpr size_t kTogether = std::min<size_t>(kVectors, 32767 / (2 * 127 * kMost));
  static_assert(kTogether > 0 && kVectors % kTogether == 0);
  VI32 sum = hn::Zero(DI32());
  for (size_t first = 0; first < kVectors; first += kTogether) {
    VI16 pairs = PairProducts(codes[first], x[first]);
    for (size_t i = 1; i < kTogether; ++i)
      pairs = hn::Add(pairs, PairProducts(codes[first + i], x[first + i]));
    const VI32 more = PairSums(pairs, static_cast<int16_t>(factor));
    sum = first == 0 ? more : hn::Add(sum, more);
  }
  return sum;
}
template <int kBits>
HWY_INLINE VI32 Products(const V8 (&codes)[kVectors], const Digits& x) {
  if constexpr (kBits < 8) {
    constexpr int kMost = (1 << kBits) - 1;
    return hn::Add(DigitProducts<kMost>(codes, x.first, 254), DigitProducts<kMost>(codes, x.second, 1));
  }
  const D8 d;
  V8 low[kVectors], high[kVectors];
  for (size_t i = 0; i < kVectors; ++i) {
    low[i] = hn::And(codes[i], hn::Set(d, 15));
    high[i] = hn::And(Shifted<4>(d, codes[i]), hn::Set(d, 15));
  }
  return hn::Add(hn::Add(DigitProducts<15>(low, x.first, 254), DigitProducts<15>(low, x.second, 1)),
                 hn::Add(DigitProducts<15>(high, x.first, 16 * 254), DigitProducts<15>(high, x.second, 16)));
}

#else

// The sum over all lanes is what counts.
template <int kBits>
HWY_INLINE VI32 Products(const V8 (&codes)[kVectors], const Digits& x) {
  const DI32 d;
  const hn::Repartition<int16_t, D8> d16;
  const hn::Half<D8> half;
  const hn::Half<DI8> signed_half;
  const auto of_digit = [&](const VI8(&digit)[kVectors]) HWY_ATTR {
    VI32 sum = hn::Zero(d), more = hn::Zero(d);
    for (size_t i = 0; i < kVectors; ++i) {
      sum =
          hn::ReorderWidenMulAccumulate(d, hn::PromoteTo(d16, hn::LowerHalf(half, codes[i])),
                                        hn::PromoteTo(d16, hn::LowerHalf(signed_half, digit[i])), sum, more);
      sum =
          hn::ReorderWidenMulAccumulate(d, hn::PromoteTo(d16, hn::UpperHalf(half, codes[i])),
                                        hn::PromoteTo(d16, hn::UpperHalf(signed_half, digit[i])), sum, more);
    }
    return hn::Add(sum, more);
  };
  const VI32 first = of_digit(x.first);
  return hn::Add(hn::Sub(hn::ShiftLeft<8>(first), hn::Add(first, first)), of_digit(x.second));
}

#endif

// Of four vectors the sums within each block of four lanes, next to one another.
HWY_INLINE VI32 SumsOfFour(const VI32* v) {
  const DI32 d;
  const hn::Repartition<int64_t, DI32> d64;
  const VI32 a = hn::Add(hn::InterleaveLower(d, v[0], v[1]), hn::InterleaveUpper(d, v[0], v[1]));
  const VI32 b = hn::Add(hn::InterleaveLower(d, v[2], v[3]), hn::InterleaveUpper(d, v[2], v[3]));
  const auto a64 = hn::BitCast(d64, a), b64 = hn::BitCast(d64, b);
  return hn::Add(hn::BitCast(d, hn::InterleaveLower(d64, a64, b64)),
                 hn::BitCast(d, hn::InterleaveUpper(d64, a64, b64)));
}
// Lane i: the sum of all lanes of v[i].
HWY_INLINE VI32 SumsOf(const VI32 (&v)[kRowsTogether]) {
#if HWY_MAX_BYTES == 16
  return SumsOfFour(v);
#else
  const DI32 d;
  // [sums of a's halves, sums of b's]
  const auto halves = [d](VI32 a, VI32 b) HWY_ATTR {
    return hn::Add(hn::ConcatUpperLower(d, b, a), hn::ConcatLowerUpper(d, b, a));
  };
  if constexpr (kRowsTogether == 8) {
    return halves(SumsOfFour(v), SumsOfFour(v + 4));
  } else {
    const VI32 even = halves(SumsOfFour(v), SumsOfFour(v + kRowsTogether / 2));
    const VI32 odd = halves(SumsOfFour(v + 4), SumsOfFour(v + kRowsTogether / 2 + 4));
    return hn::OddEvenBlocks(hn::Add(odd, hn::SwapAdjacentBlocks(odd)),
                             hn::Add(even, hn::SwapAdjacentBlocks(even)));
  }
#endif
}

// a b + c, rounded once on all instruction sets.
HWY_INLINE hn::Vec<DF> Fma(hn::Vec<DF> a, hn::Vec<DF> b, hn::Vec<DF> c) {
#if HWY_NATIVE_FMA
  return hn::MulAdd(a, b, c);
#else
  const DF d;
  HWY_ALIGN float of_a[kRowsTogether], of_b[kRowsTogether], of_c[kRowsTogether];
  hn::Store(a, d, of_a);
  hn::Store(b, d, of_b);
  hn::Store(c, d, of_c);
  for (size_t i = 0; i < kRowsTogether; ++i) of_c[i] = std::fma(of_a[i], of_b[i], of_c[i]);
  return hn::Load(d, of_c);
#endif
}

// Scales and zeros of a block's rows; those behind them are anything.
struct RowFacts {
  HWY_ALIGN float scales[kFixedTile];
  HWY_ALIGN int32_t zeros[kFixedTile];
  explicit RowFacts(const FixedBlockBytes& block) {
    const DF d;
    const DI32 di;
    const hn::RebindToUnsigned<DI32> du;
    const hn::Rebind<uint8_t, DF> d8;
    for (size_t r = 0; r < kFixedTile; r += kRowsTogether) {
      // As in scale_code.h.
      const auto code = hn::PromoteTo(di, hn::LoadU(d8, block.scales + r));
      const auto of_code = hn::BitCast(du, code);
      const auto large = hn::BitCast(d, hn::Add(hn::ShiftLeft<19>(of_code), hn::Set(du, 112u << 23)));
      const auto small = hn::Mul(hn::ConvertTo(d, code), hn::Set(d, 0x1p-18f));
      const auto is_small = hn::RebindMask(d, hn::Lt(code, hn::Set(di, 16)));
      hn::Store(hn::IfThenElse(is_small, small, large), d, scales + r);
      hn::Store(hn::PromoteTo(di, hn::LoadU(d8, block.zeros + r)), di, zeros + r);
    }
  }
};

// y[r] += what one block gives a token.
template <int kBits, class Rows>
HWY_INLINE void AddBlock(const Rows& codes, size_t rows, const int8_t* values, float scale, int32_t value_sum,
                         const RowFacts& facts, float* y) {
  const DF d;
  const DI32 di;
  const DI8 d8;
  Digits x;
  for (size_t i = 0; i < kVectors; ++i) {
    x.first[i] = hn::LoadU(d8, values + i * kStep);
    x.second[i] = hn::LoadU(d8, values + kDigitBlock + i * kStep);
  }
  for (size_t first = 0; first < rows; first += kRowsTogether) {
    VI32 products[kRowsTogether];
    for (size_t i = 0; i < kRowsTogether; ++i) {
      V8 of_row[kVectors];
      codes.Load(std::min(first + i, rows - 1), of_row);
      products[i] = Products<kBits>(of_row, x);
    }
    const VI32 of_zeros = hn::Mul(hn::Load(di, facts.zeros + first), hn::Set(di, value_sum));
    const VI32 sums = hn::Sub(SumsOf(products), of_zeros);
    const auto factor = hn::Mul(hn::Load(d, facts.scales + first), hn::Set(d, scale));
    hn::StoreU(Fma(factor, hn::ConvertTo(d, sums), hn::LoadU(d, y + first)), d, y + first);
  }
}

// -- Rows as bytes.

using D32 = hn::CappedTag<uint8_t, 32>;

// Part kPart of n codes of a plane, at bit kTo, one after the other; what stands behind them, up to 128, is
// anything.
template <int kPart, int kTo>
HWY_INLINE void UnpackPart(const uint8_t* plane, size_t n, uint8_t* codes) {
  constexpr size_t kPerByte = 8 / kPart, kBytes = kFixedBlock / kPerByte;
  const hn::CappedTag<uint8_t, std::min<size_t>(32, kBytes)> d;
  const auto mask = hn::Set(d, static_cast<uint8_t>(((1 << kPart) - 1) << kTo));
  const size_t bytes = (n + kPerByte - 1) / kPerByte;
  const auto store = [&]<int kShift>(std::integral_constant<int, kShift>, uint8_t* to) HWY_ATTR {
    for (size_t i = 0; i < kBytes; i += hn::MaxLanes(d))
      hn::StoreU(hn::And(Shifted<kShift - kTo>(d, hn::LoadU(d, plane + i)), mask), d, to + i);
  };
  store(std::integral_constant<int, 0>(), codes);
  store(std::integral_constant<int, kPart>(), codes + bytes);
  if constexpr (kPerByte > 2) {
    store(std::integral_constant<int, 2 * kPart>(), codes + 2 * bytes);
    store(std::integral_constant<int, 3 * kPart>(), codes + 3 * bytes);
  }
  if constexpr (kPerByte > 4) {
    store(std::integral_constant<int, 4>(), codes + 4 * bytes);
    store(std::integral_constant<int, 5>(), codes + 5 * bytes);
    store(std::integral_constant<int, 6>(), codes + 6 * bytes);
    store(std::integral_constant<int, 7>(), codes + 7 * bytes);
  }
}

// n codes, one after the other, codes [128].
template <int kBits>
HWY_INLINE void UnpackList(const uint8_t* planes, size_t n, uint8_t* codes) {
  const D32 d;
  if constexpr (kBits == 8) {
    for (size_t i = 0; i < kFixedBlock; i += hn::MaxLanes(d))
      hn::StoreU(hn::LoadU(d, planes + i), d, codes + i);
    return;
  }
  if constexpr (kBits == 2) return UnpackPart<2, 0>(planes, n, codes);
  if constexpr (kBits == 4) return UnpackPart<4, 0>(planes, n, codes);
  HWY_ALIGN uint8_t above[kFixedBlock];
  if constexpr (kBits == 3) {
    UnpackPart<2, 0>(planes, n, codes);
    UnpackPart<1, 2>(planes + (n + 3) / 4, n, above);
  }
  if constexpr (kBits == 6) {
    UnpackPart<4, 0>(planes, n, codes);
    UnpackPart<2, 4>(planes + (n + 1) / 2, n, above);
  }
  for (size_t i = 0; i < kFixedBlock; i += hn::MaxLanes(d))
    hn::StoreU(hn::Or(hn::LoadU(d, codes + i), hn::Load(d, above + i)), d, codes + i);
}

// codes [128]: the next of `list` where a column is kept, `zero` elsewhere.
HWY_INLINE void Place(const uint8_t* list, const uint64_t* kept, uint8_t zero, uint8_t* codes) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL
  for (size_t i = 0; i < 2; ++i) {
    __m512i placed = _mm512_set1_epi8(static_cast<char>(zero));
    asm("vpexpandb %1, %0 %{%2%}"
        : "+v"(placed)
        : "v"(_mm512_loadu_si512(list)), "Yk"(static_cast<__mmask64>(kept[i])));
    _mm512_storeu_si512(codes + 64 * i, placed);
    list += std::popcount(kept[i]);
  }
#else
  const hn::Full128<uint8_t> d;
  const hn::Full64<uint8_t> d8;
  const auto zeros = hn::Set(d, zero);
  HWY_ALIGN static constexpr uint8_t kUpper[16] = {0, 0, 0, 0, 0, 0, 0, 0, 8, 8, 8, 8, 8, 8, 8, 8};
  const auto upper = hn::Load(d, kUpper);
  for (size_t i = 0; i < kFixedBlock; i += 16) {
    const uint32_t both = static_cast<uint32_t>(kept[i / 64] >> (i % 64)) & 0xFFFF;
    const uint32_t first = both & 0xFF, second = both >> 8;
    const uint8_t* const then = list + std::popcount(first);
    const auto values = hn::Combine(d, hn::LoadU(d8, then), hn::LoadU(d8, list));
    const auto places = hn::Or(hn::Combine(d, hn::LoadU(d8, kPlacesOfKept[second].data()),
                                           hn::LoadU(d8, kPlacesOfKept[first].data())),
                               upper);
    hn::StoreU(hn::Add(hn::TableLookupBytesOr0(hn::Sub(values, zeros), places), zeros), d, codes + i);
    list = then + std::popcount(second);
  }
#endif
}

// The codes of all rows of a block, [rows, 128]; pruned ones are the zero.
template <int kBits>
void UnpackBlock(const FixedLayout& layout, const FixedBlock& block, const FixedBlockBytes& bytes,
                 size_t rows, uint8_t* codes) {
  if (!layout.masked()) {
    const size_t row_bytes = PlaneBytes(kBits, block.count);
    for (size_t r = 0; r < rows; ++r)
      UnpackList<kBits>(bytes.codes + r * row_bytes, block.count, codes + r * kFixedBlock);
    return;
  }
  // Lists of some rows before they are placed: what was just stored is not loaded at once.
  constexpr size_t kLists = 8, kList = kFixedBlock + 64;
  HWY_ALIGN uint8_t lists[kLists][kList];
  HWY_ALIGN uint64_t kept[kLists][2];
  const uint8_t* planes = bytes.codes;
  for (size_t first = 0; first < rows; first += kLists) {
    const size_t count = std::min(kLists, rows - first);
    for (size_t i = 0; i < count; ++i) {
      const size_t n = ReadBlockMask(layout, block, bytes.masks + (first + i) * block.mask_bytes, kept[i]);
      UnpackList<kBits>(planes, n, lists[i]);
      planes += PlaneBytes(kBits, n);
    }
    for (size_t i = 0; i < count; ++i)
      Place(lists[i], kept[i], bytes.zeros[first + i], codes + (first + i) * kFixedBlock);
  }
}

template <int kBits>
void AddBlockOfWidth(const FixedWeights& w, size_t tile, size_t k, const DigitInputs& x,
                     MatrixView<float> y) {
  const FixedLayout& layout = w.layout;
  const FixedBlock& block = layout.blocks[k];
  const size_t rows = layout.RowsOf(tile);
  const FixedBlockBytes bytes(block, rows, w.Block(tile, k));
  const RowFacts facts(bytes);
  if (!layout.masked() && block.count == kFixedBlock && y.rows == 1) {
    AddBlock<kBits>(PackedRows<kBits>{bytes.codes}, rows, x.Values(0, k), x.scales[k], x.sums[k], facts,
                    y.row(0));
    return;
  }
  uint8_t* const codes = Scratch<uint8_t, 75>(kFixedTile * kFixedBlock);
  UnpackBlock<kBits>(layout, block, bytes, rows, codes);
  for (size_t t = 0; t < y.rows; ++t) {
    const size_t at = t * x.blocks + k;
    AddBlock<kBits>(ByteRows{codes}, rows, x.Values(t, k), x.scales[at], x.sums[at], facts, y.row(t));
  }
}

void MultiplyOfTarget(const FixedWeights& w, size_t tile, const DigitInputs& x, MatrixView<float> y) {
  for (size_t t = 0; t < y.rows; ++t) std::fill_n(y.row(t), kFixedTile, 0.0f);
  for (size_t k = 0; k < w.layout.blocks.size(); ++k) {
    switch (w.layout.blocks[k].bits) {
      case 2:
        AddBlockOfWidth<2>(w, tile, k, x, y);
        break;
      case 3:
        AddBlockOfWidth<3>(w, tile, k, x, y);
        break;
      case 4:
        AddBlockOfWidth<4>(w, tile, k, x, y);
        break;
      case 6:
        AddBlockOfWidth<6>(w, tile, k, x, y);
        break;
      default:
        AddBlockOfWidth<8>(w, tile, k, x, y);
    }
  }
}

FixedKernel ChosenKernel() { return MultiplyOfTarget; }

#endif

}  // namespace
}  // namespace mica::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica {

HWY_EXPORT(ChosenKernel);

std::vector<NamedFixedKernel> FixedKernelsOfAllTargets() {
  std::vector<NamedFixedKernel> kernels;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {  // fastest first
    hwy::SetSupportedTargetsForTest(target);
    kernels.insert(kernels.begin(), {hwy::TargetName(target), HWY_DYNAMIC_DISPATCH(ChosenKernel)()});
  }
  hwy::SetSupportedTargetsForTest(0);
  return kernels;
}

}  // namespace mica
#endif
