// This file is compiled once for each instruction set (Highway); the best one is chosen at run time.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <vector>

#include "format/entropy/rans.h"
#include "ops/codes/decode_tile.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/codes/decode_tile_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#ifndef MICA_OPS_CODES_EXPAND_TABLE
#define MICA_OPS_CODES_EXPAND_TABLE
namespace mica {

// [mask of eight lanes][lane] how many lanes before it are in the mask: which of the words that follow is its
// own.
inline constexpr std::array<std::array<uint8_t, 8>, 256> kWordOfLane = [] {
  std::array<std::array<uint8_t, 8>, 256> words{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    for (unsigned lane = 0; lane < 8; ++lane)
      words[mask][lane] = static_cast<uint8_t>(std::popcount(mask & ((1u << lane) - 1)));
  }
  return words;
}();

}  // namespace mica
#endif

HWY_BEFORE_NAMESPACE();
namespace mica::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_HAVE_SCALABLE

bool DecodeTileOfTarget(const EntropyParts& parts, const TileRows& tile) { return DecodeTile(parts, tile); }
bool DecodeIntegersOfTarget(const EntropyParts& parts, const TileRows& tile, const IntegerSink& sink) {
  return DecodeTile(parts, tile, sink);
}

#else

// The lanes of a tile in kVectors vectors. Words are taken in the order of lanes, so all vectors go through
// one phase of a row before the next phase begins. kIntegers: they go to the sink, else weights where the
// rows of the tile say.
template <size_t kLanes, bool kIntegers>
class LaneDecoder {
  using D = hn::CappedTag<uint32_t, std::min<size_t>(kLanes, 16)>;
  using DI = hn::RebindToSigned<D>;
  using DF = hn::RebindToFloat<D>;
  using DU16 = hn::Rebind<uint16_t, D>;
  using DI16 = hn::Rebind<int16_t, D>;
  using V = hn::Vec<D>;
  using M = hn::Mask<D>;
  static constexpr size_t kStep = hn::MaxLanes(D());
  static constexpr size_t kVectors = kLanes / kStep;
  static_assert(kStep <= 16 && kVectors * kStep == kLanes);

 public:
  LaneDecoder(const EntropyParts& parts, const TileRows& tile, const IntegerSink* sink)
      : parts_(parts), tile_(tile), sink_(sink), stream_(tile.stream, ChunkRowBytes(kLanes)) {
    if constexpr (kIntegers) integers_.resize(tile.count() * kLanes);
    const Trellis& trellis = TrellisOf(parts.states);
    for (uint32_t s = 0; s < 8; ++s) {
      for (size_t parity = 0; parity < 2; ++parity)
        next_[parity] |= static_cast<uint32_t>(trellis.next[s][parity]) << (3 * s);
      quantisers_ |= static_cast<uint32_t>(trellis.quantiser[s]) << s;
    }
    doubling_ = trellis.spacing - 1;
    table_shift_ = kFrequencyBits + parts.range.quantisers() - 1;
    highest_row_class_ = *std::max_element(tile.row_class.begin(), tile.row_class.end());
  }

  bool Decode() {
    if (tile_.stream.size() < sizeof(states_)) return false;
    std::memcpy(states_, tile_.stream.data(), sizeof(states_));
    for (const uint32_t state : states_) {
      if (state < kRansLow) return false;
    }
    words_ = tile_.stream.data() + sizeof(states_);
    size_t first = 0;
    for (; first + kLanes <= parts_.cols; first += kLanes) {
      if (!DecodeChunk<true>(first)) return false;
    }
    if (first < parts_.cols && !DecodeChunk<false>(first)) return false;
    for (const uint32_t state : states_) {
      if (state != kRansLow) return false;
    }
    return stream_.AtEnd(words_);
  }

 private:
  // `words` spread over the lanes of the mask, which has `count` of them; other lanes hold anything.
  static V Expand(V words, M mask, size_t* count) {
#if HWY_TARGET <= HWY_AVX3
    *count = hn::CountTrue(D(), mask);
    if constexpr (kStep == 16) {
      return V{_mm512_maskz_expand_epi32(mask.raw, words.raw)};
    } else if constexpr (kStep == 8) {
      return V{_mm256_maskz_expand_epi32(mask.raw, words.raw)};
    } else {
      return V{_mm_maskz_expand_epi32(mask.raw, words.raw)};
    }
#else
    static_assert(kStep <= 8);
    uint8_t bits[8] = {};
    hn::StoreMaskBits(D(), mask, bits);
    *count = static_cast<size_t>(std::popcount(bits[0]));
    const hn::Rebind<uint8_t, D> d8;
    const V index = hn::PromoteTo(D(), hn::LoadU(d8, kWordOfLane[bits[0]].data()));
    return hn::TableLookupLanes(words, hn::IndicesFromVec(D(), index));
#endif
  }

  // Gives the states that ran low a word each.
  static V Refilled(V x, const std::byte*& words) {
    const D d;
    const M low = hn::Eq(hn::ShiftRight<16>(x), hn::Zero(d));
    const V next = hn::PromoteTo(d, hn::LoadU(DU16(), reinterpret_cast<const uint16_t*>(words)));
    size_t count;
    const V spread = Expand(next, low, &count);
    words += count * sizeof(uint16_t);
    return hn::IfThenElse(low, hn::Or(hn::ShiftLeft<16>(x), spread), x);
  }

  // All rows of the columns from `first` on; kWhole: all lanes have a column.
  template <bool kWhole>
  bool DecodeChunk(size_t first) {
    const D d;
    const DI di;
    const DF df;
    const size_t count = kWhole ? kLanes : parts_.cols - first;
    HWY_ALIGN int16_t col_class[kLanes] = {};
    HWY_ALIGN float col_scale[kLanes] = {};
    std::copy_n(parts_.col_class.data() + first, count, col_class);
    std::copy_n(parts_.col_scale.data() + first, count, col_scale);
    const int last = parts_.range.last();
    const int highest = highest_row_class_ + *std::max_element(col_class, col_class + count);
    const bool raw = std::min(last, std::max(highest, parts_.range.first())) > kLastPlainClass;

    const auto first_class = hn::Set(di, parts_.range.first());
    const auto last_class = hn::Set(di, last);
    const V one = hn::Set(d, 1u), slot_mask = hn::Set(d, static_cast<uint32_t>(kFrequencySum - 1));
    const V symbol_mask = hn::Set(d, rans_slot::kSymbolMask), seven = hn::Set(d, 7u);
    const V next_even = hn::Set(d, next_[0]), next_odd = hn::Set(d, next_[1]),
            quantisers = hn::Set(d, quantisers_);
    const uint32_t* slots = parts_.slots.data();
    const std::byte* words = words_;
    V x[kVectors], machine[kVectors];
    M active[kVectors];
    for (size_t v = 0; v < kVectors; ++v) {
      x[v] = hn::Load(d, states_ + v * kStep);
      machine[v] = hn::Zero(d);
      active[v] = hn::FirstN(d, count > v * kStep ? std::min(kStep, count - v * kStep) : 0);
    }
    for (size_t r = 0; r < tile_.count(); ++r) {
      if (!stream_.Reach(words)) return false;
      const auto row_class = hn::Set(di, tile_.row_class[r]);
      V slot[kVectors], quantiser[kVectors], magnitude[kVectors];
      hn::Vec<DI> entropy_class[kVectors];
      V any = hn::Zero(d);
      for (size_t v = 0; v < kVectors; ++v) {
        const auto of_column = hn::PromoteTo(di, hn::Load(DI16(), col_class + v * kStep));
        entropy_class[v] = hn::Min(hn::Max(hn::Add(row_class, of_column), first_class), last_class);
        quantiser[v] = hn::And(hn::Shr(quantisers, machine[v]), one);
        const V table =
            hn::Add(hn::ShiftLeftSame(hn::BitCast(d, hn::Sub(entropy_class[v], first_class)), table_shift_),
                    hn::ShiftLeft<kFrequencyBits>(quantiser[v]));
        const V at = hn::And(x[v], slot_mask);
        slot[v] = hn::GatherIndex(d, slots, hn::BitCast(di, hn::Add(table, at)));
        if constexpr (!kWhole) slot[v] = hn::IfThenElseZero(active[v], slot[v]);
        any = hn::Or(any, slot[v]);
        const V start = hn::And(hn::ShiftRight<rans_slot::kStartShift>(slot[v]), slot_mask);
        const V moved = hn::Add(hn::Mul(hn::And(slot[v], slot_mask), hn::ShiftRight<kFrequencyBits>(x[v])),
                                hn::Sub(at, start));
        x[v] = Refilled(kWhole ? moved : hn::IfThenElse(active[v], moved, x[v]), words);
        const V symbol = hn::And(hn::ShiftRight<rans_slot::kSymbolShift>(slot[v]), symbol_mask);
        magnitude[v] = hn::ShiftRight<1>(hn::Add(symbol, one));
      }
      if (raw) TakeRawBits(slot, entropy_class, x, magnitude, words);
      M positive[kVectors];
      for (size_t v = 0; v < kVectors; ++v)
        positive[v] = hn::TestBit(slot[v], hn::Set(d, 1u << rans_slot::kSymbolShift));
      if (!hn::AllFalse(d, hn::TestBit(any, hn::Set(d, rans_slot::kEscape)))) [[unlikely]]
        TakeEscapes(slot, x, magnitude, positive, words);

      float* const target = kIntegers ? nullptr : tile_.target[r];
      const auto row_scale = hn::Set(df, kIntegers ? 0.0f : tile_.row_scale[r]);
      for (size_t v = 0; v < kVectors; ++v) {
        const M odd = hn::TestBit(magnitude[v], one);
        const V three = hn::Add(machine[v], hn::Add(machine[v], machine[v]));
        machine[v] = hn::And(hn::Shr(hn::IfThenElse(odd, next_odd, next_even), three), seven);
        if constexpr (kIntegers) {
          const auto size = hn::BitCast(di, magnitude[v]);
          const auto n = hn::IfThenElse(hn::RebindMask(di, positive[v]), size, hn::Neg(size));
          hn::StoreU(hn::DemoteTo(DI16(), n), DI16(), integers_.data() + r * kLanes + v * kStep);
          continue;
        }
        if (target == nullptr) continue;
        const V above = hn::Sub(hn::ShiftLeftSame(magnitude[v], doubling_), quantiser[v]);
        const auto level = hn::BitCast(di, hn::IfThenZeroElse(hn::Eq(magnitude[v], hn::Zero(d)), above));
        const auto signed_level = hn::IfThenElse(hn::RebindMask(di, positive[v]), level, hn::Neg(level));
        const auto scale = hn::Mul(row_scale, hn::Load(df, col_scale + v * kStep));
        const auto weight = hn::Mul(hn::ConvertTo(df, signed_level), scale);
        if constexpr (kWhole) {
          hn::StoreU(weight, df, target + first + v * kStep);
        } else if (v * kStep < count) {
          HWY_ALIGN float buffer[kStep];
          hn::Store(weight, df, buffer);
          std::copy_n(buffer, std::min(kStep, count - v * kStep), target + first + v * kStep);
        }
      }
    }
    for (size_t v = 0; v < kVectors; ++v) hn::Store(x[v], d, states_ + v * kStep);
    words_ = words;
    if constexpr (kIntegers) (*sink_)(first, count, integers_.data());
    return true;
  }

  // Slots of lanes without a column are zero, which have neither raw bits nor an escape.
  static void TakeRawBits(const V* slot, const hn::Vec<DI>* entropy_class, V* x, V* magnitude,
                          const std::byte*& words) {
    const D d;
    const DI di;
    const V one = hn::Set(d, 1u);
    for (size_t v = 0; v < kVectors; ++v) {
      // RawBits
      const V above =
          hn::BitCast(d, hn::Max(hn::Sub(entropy_class[v], hn::Set(di, kLastPlainClass - 3)), hn::Zero(di)));
      const V bits = hn::ShiftRight<2>(above);
      const M none =
          hn::Or(hn::Eq(magnitude[v], hn::Zero(d)), hn::TestBit(slot[v], hn::Set(d, rans_slot::kEscape)));
      const V taken = hn::IfThenZeroElse(none, bits);
      const V value = hn::And(x[v], hn::Sub(hn::Shl(one, taken), one));
      const V with = hn::Add(hn::Add(hn::Shl(hn::Sub(magnitude[v], one), taken), value), one);
      magnitude[v] = hn::IfThenElse(none, magnitude[v], with);
      x[v] = Refilled(hn::Shr(x[v], taken), words);
    }
  }

  static void TakeEscapes(const V* slot, V* x, V* magnitude, M* positive, const std::byte*& words) {
    const D d;
    const DI di;
    for (size_t v = 0; v < kVectors; ++v) {
      const M escape = hn::TestBit(slot[v], hn::Set(d, rans_slot::kEscape));
      const auto n = hn::ShiftRight<16>(hn::BitCast(di, hn::ShiftLeft<16>(x[v])));
      magnitude[v] = hn::IfThenElse(escape, hn::BitCast(d, hn::Abs(n)), magnitude[v]);
      const M above = hn::RebindMask(d, hn::Gt(n, hn::Zero(di)));
      positive[v] = hn::Or(hn::And(escape, above), hn::AndNot(escape, positive[v]));
      x[v] = Refilled(hn::IfThenElse(escape, hn::ShiftRight<kEscapeBits>(x[v]), x[v]), words);
    }
  }

  const EntropyParts& parts_;
  const TileRows& tile_;
  const IntegerSink* sink_;
  std::vector<int16_t> integers_;  // [rows of the tile, kLanes]
  WordStream stream_;
  const std::byte* words_ = nullptr;
  HWY_ALIGN uint32_t states_[kLanes];
  uint32_t next_[2] = {};    // [parity] next states, three bits each
  uint32_t quantisers_ = 0;  // a bit each
  int doubling_ = 0;         // 1: levels of one quantiser are two apart
  int table_shift_ = 0;      // log2 of the slots of a class
  int highest_row_class_ = 0;
};

template <bool kIntegers>
bool DecodeAs(const EntropyParts& parts, const TileRows& tile, const IntegerSink* sink) {
  static_assert(kMostLanes == 32);
  switch (parts.lanes) {
    case 4:
      return LaneDecoder<4, kIntegers>(parts, tile, sink).Decode();
    case 8:
      return LaneDecoder<8, kIntegers>(parts, tile, sink).Decode();
    case 16:
      return LaneDecoder<16, kIntegers>(parts, tile, sink).Decode();
    case 32:
      return LaneDecoder<32, kIntegers>(parts, tile, sink).Decode();
    default:  // so few are only in narrow matrices
      return kIntegers ? DecodeTile(parts, tile, *sink) : DecodeTile(parts, tile);
  }
}

bool DecodeTileOfTarget(const EntropyParts& parts, const TileRows& tile) {
  return DecodeAs<false>(parts, tile, nullptr);
}
bool DecodeIntegersOfTarget(const EntropyParts& parts, const TileRows& tile, const IntegerSink& sink) {
  return DecodeAs<true>(parts, tile, &sink);
}

#endif

using Decoder = bool (*)(const EntropyParts& parts, const TileRows& tile);
Decoder ChosenDecoder() { return DecodeTileOfTarget; }
using IntegerDecoder = bool (*)(const EntropyParts& parts, const TileRows& tile, const IntegerSink& sink);
IntegerDecoder ChosenIntegerDecoder() { return DecodeIntegersOfTarget; }

}  // namespace
}  // namespace mica::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica {

HWY_EXPORT(ChosenDecoder);
HWY_EXPORT(ChosenIntegerDecoder);

bool DecodeTileCpu(const EntropyParts& parts, const TileRows& tile) {
  static const auto decode = HWY_DYNAMIC_DISPATCH(ChosenDecoder)();
  return decode(parts, tile);
}

bool DecodeTileCpu(const EntropyParts& parts, const TileRows& tile, const IntegerSink& sink) {
  static const auto decode = HWY_DYNAMIC_DISPATCH(ChosenIntegerDecoder)();
  return decode(parts, tile, sink);
}

std::vector<TileDecoder> TileDecodersOfAllTargets() {
  std::vector<TileDecoder> decoders;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {  // fastest first
    hwy::SetSupportedTargetsForTest(target);
    decoders.insert(decoders.begin(), {hwy::TargetName(target), HWY_DYNAMIC_DISPATCH(ChosenDecoder)(),
                                       HWY_DYNAMIC_DISPATCH(ChosenIntegerDecoder)()});
  }
  hwy::SetSupportedTargetsForTest(0);
  return decoders;
}

}  // namespace mica
#endif
