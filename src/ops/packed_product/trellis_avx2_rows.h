// Rows of a tile of trellis integers as levels, by AVX2: states are found by logic for 256 columns at once,
// levels are looked up among 16 bytes. Part of trellis_avx2_cpu.cc, for processors that have AVX2 and FMA.
#pragma once

#if !defined(__clang__)
// False alarms on what GCC 12's intrinsics leave undefined (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "device/scratch.h"
#include "format/resident/trellis.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

namespace mica::trellis_avx2 {

// What holds vectors in arrays must become one body of code, or they go through memory.
#define MICA_ONE_BODY [[gnu::always_inline]] inline

constexpr size_t kBytes = 32;                        // of a vector: columns of half a strip
constexpr size_t kVectors = kTrellisBlock / kBytes;  // of a row of a block
constexpr size_t kRowsTogether = 16;
// Rows whose quantisers are found at once.
constexpr size_t kChunkRows = 32;

MICA_ONE_BODY __m256i Load(const void* at) { return _mm256_loadu_si256(static_cast<const __m256i*>(at)); }
MICA_ONE_BODY void Store(void* at, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(at), v); }
MICA_ONE_BODY __m256i Bytes(int value) { return _mm256_set1_epi8(static_cast<char>(value)); }
// Bytes shifted; what comes from the byte beside is to be masked out.
MICA_ONE_BODY __m256i Right(__m256i v, int bits) { return _mm256_srli_epi16(v, bits); }
MICA_ONE_BODY __m256i Left(__m256i v, int bits) { return _mm256_slli_epi16(v, bits); }
// Bits shifted to the left within bytes, which more units can do than shift.
MICA_ONE_BODY __m256i Doubled(__m256i v) { return _mm256_add_epi8(v, v); }
// The bits of `value` that the mask names, and those that it does not of `other`.
MICA_ONE_BODY __m256i Joined(__m256i value, int mask, __m256i other) {
  return (value & Bytes(mask)) | (other & Bytes(~mask));
}

// How many pairs of products of levels + offset of a width, at most 2^(width + 1) - 1 (width 8: within
// +-127), with values within +-127 16 bits hold.
constexpr size_t DepthOf(int width) {
  return width == 2 || width == 3 ? 8 : width == 4 ? 4 : width == 5 ? 2 : 1;
}

// Which quantiser the columns of a row have does not depend on their levels, only on parities: it is found
// for all 256 columns of a block at once, a bit a column. In which bit the parity of column 32 v + i stands,
// in byte i:
constexpr int PlaceOf(int width, size_t v) {
  const int at = static_cast<int>(v);
  if (width == 4) return 3 - (at / 4 * 2 + at % 2) + (at % 4 >= 2 ? 4 : 0);
  if (width == 2 || width == 6) return at ^ 1;
  return at;
}

// The three bits of the states of 256 columns, as PlaceOf has them.
class States {
 public:
  explicit States(int states) : states_(states) {}
  // [count] bits of quantisers of rows whose parities are parities(0), ..., parities(count - 1).
  template <typename Parities>
  MICA_ONE_BODY void Quantisers(size_t count, const Parities& parities, __m256i* quantisers) {
    __m256i low = low_, middle = middle_, high = high_;
    if (states_ == 8) {
      for (size_t r = 0; r < count; ++r) {
        // TrellisOf(8): the next state is, from the highest bit on: low; low ? middle : high, and the parity;
        // middle, and low unless high.
        quantisers[r] = low;
        const __m256i next = high ^ (low & (middle ^ high)) ^ parities(r);
        const __m256i lowest = middle ^ _mm256_andnot_si256(high, low);
        high = low;
        middle = next;
        low = lowest;
      }
    } else if (states_ == 4) {
      for (size_t r = 0; r < count; ++r) {
        // TrellisOf(4): low and the parity; middle.
        quantisers[r] = middle;
        const __m256i next = low ^ parities(r);
        low = middle;
        middle = next;
      }
    } else {
      std::fill_n(quantisers, count, _mm256_setzero_si256());
    }
    low_ = low, middle_ = middle, high_ = high;
  }

 private:
  int states_;
  __m256i low_ = _mm256_setzero_si256(), middle_ = low_, high_ = low_;
};

// Tables of 16 bytes that levels + offset are looked up in.
template <int kWidth>
struct Tables {
  // Widths 2 and 3: `level` by the code with the quantiser above it. Width 4: `level` by code of quantiser 0,
  // `other` of quantiser 1. Widths 5 and 6: `level` and a class by the code's four lowest bits, which are the
  // upper ones of n; `more` by the class and the other bits, what these add.
  __m256i level, other, more;

  explicit Tables(int states) {
    const Trellis& trellis = TrellisOf(states);
    alignas(16) uint8_t first[16] = {}, second[16] = {}, third[16] = {};
    const int offset = 1 << kWidth;
    const auto level = [&](int code, int q) {
      return trellis.Level(IntegerOfCode(code, kWidth), states > 1 ? q : 0) + offset;
    };
    const auto byte = [](int value) { return static_cast<uint8_t>(value); };
    for (int i = 0; i < 16; ++i) {
      if constexpr (kWidth <= 3) {
        first[i] = byte(level(i & ((1 << kWidth) - 1), i >> kWidth & 1));
      } else if constexpr (kWidth == 4) {
        first[i] = byte(level(i, 0));
        second[i] = byte(level(i, 1));
      } else if constexpr (kWidth == 5) {
        // Below zero, zero and above it differ; the class is that of -1, 0 and 1.
        const int upper = i < 8 ? i : i - 16;
        first[i] = byte(level(i, 0));
        second[i] = byte((upper < 0 ? 0 : upper == 0 ? 1 : 2) << 2);
        const int likeness = ((i >> 2) - 1) & 15;
        third[i] = byte(level(likeness | (i & 1) << 4, i >> 1 & 1) - level(likeness, 0));
      } else {
        first[i] = byte(level(i, 0));
        second[i] = byte(i != 0 ? 8 : 0);
        const int likeness = i >> 3;
        third[i] = byte(level(likeness | (i & 3) << 4, i >> 2 & 1) - level(likeness, 0));
      }
    }
    this->level = Dup(first);
    other = Dup(second);
    more = Dup(third);
  }

 private:
  static __m256i Dup(const uint8_t* table) {
    return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
  }
};

// Consecutive rows of a block of a tile, all of its strips.
template <int kWidth>
class WholeBlock {
 public:
  WholeBlock(const uint8_t* bytes, size_t rows)
      : rows_(rows),
        low_(bytes),
        two_(kWidth <= 3 ? bytes : bytes + rows * kLow),
        high_(two_ + rows * kTwo),
        ahead_{low_, two_, high_} {}

  // Those from row `first` on; the ones behind them are asked for while they are read.
  WholeBlock Rows(size_t first, size_t) const {
    WholeBlock own = *this;
    own.low_ += first * kLow;
    own.two_ += first * kTwo;
    own.high_ += first * kHigh;
    size_t ahead = first + kChunkRows, block = 0;
    if (ahead >= rows_) {
      ahead -= std::min(rows_, ahead);
      block = rows_ * (kLow + kTwo + kHigh);
    }
    own.ahead_[0] = low_ + block + ahead * kLow;
    own.ahead_[1] = two_ + block + ahead * kTwo;
    own.ahead_[2] = high_ + block + ahead * kHigh;
    return own;
  }

  MICA_ONE_BODY __m256i Parities(size_t r) const {
    if constexpr (kWidth == 3 || kWidth == 5) return Load(high_ + r * kHigh);
    if constexpr (kWidth == 2 || kWidth == 6)
      return Joined(Load(two_ + r * kTwo), 0xAA, Right(Load(two_ + r * kTwo + kBytes), 1));
    const auto of = [&](size_t i) __attribute__((always_inline)) {
      return Load(low_ + r * kLow + i * kBytes) & Bytes(0x88);
    };
    return (of(0) | Right(of(1), 1)) | (Right(of(2), 2) | Right(of(3), 3));
  }

  // take(v, levels + offset) of the vectors of a row, in some order; quantisers: of the row.
  template <typename Take>
  MICA_ONE_BODY void Row(size_t r, __m256i quantisers, const Tables<kWidth>& m, const Take& take) const {
    if constexpr (kWidth == 8) {
#pragma GCC unroll 8
      for (size_t v = 0; v < kVectors; ++v) take(v, Load(low_ + r * kLow + v * kBytes) ^ Bytes(0x80));
      return;
    }
    // Bits beside the nibbles: two vectors in one, of v and v + 4.
    __m256i beside[4];
    if constexpr (kWidth == 2 || kWidth == 6) {
      const __m256i even = Load(two_ + r * kTwo), odd = Load(two_ + r * kTwo + kBytes);
      const __m256i doubled = Doubled(quantisers);
      beside[0] = (even & Bytes(0x33)) | (doubled & Bytes(0x44));
      beside[1] = (odd & Bytes(0x33)) | (Doubled(doubled) & Bytes(0x44));
      beside[2] = (Right(even, 2) & Bytes(0x33)) | (Right(quantisers, 1) & Bytes(0x44));
      beside[3] = (Right(odd, 2) & Bytes(0x33)) | (quantisers & Bytes(0x44));
    }
    if constexpr (kWidth == 3 || kWidth == 5) {
      // Pairs of bits, parity below.
      const __m256i parities = Load(high_ + r * kHigh);
      const __m256i even = Joined(parities, 0x55, Doubled(quantisers));
      const __m256i odd = Joined(Right(parities, 1), 0x55, quantisers);
      if constexpr (kWidth == 3) {
        const __m256i two[2] = {Load(two_ + r * kTwo), Load(two_ + r * kTwo + kBytes)};
        beside[0] = Joined(two[0], 0x33, Left(even, 2));
        beside[1] = Joined(two[1], 0x33, Left(odd, 2));
        beside[2] = Joined(Right(two[0], 2), 0x33, even);
        beside[3] = Joined(Right(two[1], 2), 0x33, odd);
      } else {
        beside[0] = even & Bytes(0x33);
        beside[1] = odd & Bytes(0x33);
        beside[2] = Right(even, 2) & Bytes(0x33);
        beside[3] = Right(odd, 2) & Bytes(0x33);
      }
    }
    if constexpr (kWidth <= 3) {
#pragma GCC unroll 4
      for (size_t i = 0; i < 4; ++i) {
        // Look-ups take the four lowest bits of a byte whose highest is not set.
        const __m256i below = kWidth == 3 ? beside[i] & Bytes(15) : beside[i];
        const __m256i above = kWidth == 3 ? Right(beside[i], 4) & Bytes(15) : Right(beside[i], 4);
        take(i, _mm256_shuffle_epi8(m.level, below));
        take(i + 4, _mm256_shuffle_epi8(m.level, above));
      }
      return;
    }
    // The upper nibbles, then the lower ones: as the quantisers come to the highest bit.
#pragma GCC unroll 2
    for (size_t below = 0; below < 2; ++below) {
      const size_t s = 1 - below;
#pragma GCC unroll 4
      for (size_t i = 0; i < 4; ++i) {
        const size_t v = i / 2 * 4 + i % 2 + 2 * s;
        const __m256i pair = Load(low_ + r * kLow + i * kBytes);
        const __m256i own = (s == 0 ? pair : Right(pair, 4)) & Bytes(15);
        if constexpr (kWidth == 4) {
          take(v, _mm256_blendv_epi8(_mm256_shuffle_epi8(m.level, own), _mm256_shuffle_epi8(m.other, own),
                                     quantisers));
          quantisers = Doubled(quantisers);
        } else {
          const __m256i more = v < 4 ? beside[v] : Right(beside[v - 4], 4);
          const __m256i at = more | _mm256_shuffle_epi8(m.other, own);
          take(v, _mm256_add_epi8(_mm256_shuffle_epi8(m.level, own), _mm256_shuffle_epi8(m.more, at)));
        }
      }
    }
  }

  // Planes are streams that are read once.
  MICA_ONE_BODY void Prefetch(size_t r) const {
    const auto ahead = [](const uint8_t* at) __attribute__((always_inline)) {
      _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T0);
    };
    for (size_t i = 0; i < kLow; i += 64) ahead(ahead_[0] + r * kLow + i);
    if constexpr (kTwo != 0) ahead(ahead_[1] + r * kTwo);
    if constexpr (kHigh != 0) {
      if (r % 2 == 0) ahead(ahead_[2] + r * kHigh);
    }
  }

  // Bytes of a row in the planes.
  static constexpr size_t kLow = kWidth == 8 ? 256 : kWidth > 3 ? 128 : 0;
  static constexpr size_t kTwo = kWidth <= 3 || kWidth == 6 ? 64 : 0;
  static constexpr size_t kHigh = kWidth == 3 || kWidth == 5 ? kHighBytes : 0;

 private:
  size_t rows_;
  const uint8_t *low_, *two_, *high_;
  const uint8_t* ahead_[3];
};

// The bits of a plane that begin at `at`, as bytes of 0 or 255.
MICA_ONE_BODY __m256i Spread(const uint8_t* at) {
  int32_t bits;
  std::memcpy(&bits, at, sizeof(bits));
  const __m256i place =
      _mm256_setr_epi64x(0x0000000000000000, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
  const __m256i own = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), place) & bit;
  return _mm256_cmpeq_epi8(own, bit);
}

// Rows of the last block, of fewer strips.
template <int kWidth>
class LastBlock {
 public:
  LastBlock(const uint8_t* bytes, size_t strips) : bytes_(bytes), strips_(strips) {}

  // Made those of a whole block.
  WholeBlock<kWidth> Rows(size_t first, size_t count) const {
    using Whole = WholeBlock<kWidth>;
    uint8_t* const whole = Scratch<uint8_t, 76>(kChunkRows * kTrellisBlock);
    uint8_t* const two = whole + count * Whole::kLow;
    uint8_t* const high = two + count * Whole::kTwo;
    for (size_t r = 0; r < count; ++r) {
      const uint8_t* of_row = bytes_ + (first + r) * strips_ * kWidth * 8;
      __m256i code[kVectors], parities = _mm256_setzero_si256();
#pragma GCC unroll 8
      for (size_t v = 0; v < kVectors; ++v) {
        code[v] = _mm256_setzero_si256();
        if (v / 2 >= strips_) continue;
        const uint8_t* planes = of_row + v / 2 * kWidth * 8 + v % 2 * 4;
#pragma GCC unroll 8
        for (int b = 0; b < kWidth; ++b) {
          const __m256i plane = Spread(planes + b * 8);
          code[v] |= plane & Bytes(1 << b);
          if (b == kWidth - 1) parities |= plane & Bytes(1 << v);
        }
      }
      if constexpr (kWidth == 8) {
        for (size_t v = 0; v < kVectors; ++v) Store(whole + r * Whole::kLow + v * kBytes, code[v]);
        continue;
      }
      if constexpr (Whole::kLow != 0) {
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; ++i) {
          const size_t v = i / 2 * 4 + i % 2;
          Store(whole + r * Whole::kLow + i * kBytes, Joined(code[v], 15, Left(code[v + 2], 4)));
        }
      }
      if constexpr (Whole::kTwo != 0) {
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; ++half) {
          __m256i all = _mm256_setzero_si256();
#pragma GCC unroll 4
          for (size_t s = 0; s < 4; ++s) {
            const __m256i own = kWidth == 6 ? Right(code[2 * s + half], 4) : code[2 * s + half];
            all |= Left(own & Bytes(3), static_cast<int>(2 * s));
          }
          Store(two + r * Whole::kTwo + half * kBytes, all);
        }
      }
      if constexpr (Whole::kHigh != 0) Store(high + r * Whole::kHigh, parities);
    }
    return WholeBlock<kWidth>(whole, count);
  }

 private:
  const uint8_t* bytes_;
  const size_t strips_;
};

#undef MICA_ONE_BODY

}  // namespace mica::trellis_avx2

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
