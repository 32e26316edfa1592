// Products with trellis integers by AVX2: levels and next states are looked up among 16 bytes, products of bytes
// are summed in 16 bits as long as they fit.
#include "ops/packed_product/trellis_form.h"

#if (defined(__x86_64__)) && (defined(__GNUC__) || defined(__clang__))

#if !defined(__clang__)
// False alarms on what GCC 12's intrinsics leave undefined (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "device/scratch.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

namespace mica {
namespace {

// What holds vectors in arrays must become one body of code, or they go through memory.
#define MICA_ONE_BODY [[gnu::always_inline]] inline

constexpr size_t kBytes = 32;                          // of a vector: columns of half a strip
constexpr size_t kVectors = kTrellisBlock / kBytes;    // of a row of a block
constexpr size_t kOfHalf = kVectors / 2;               // of half a block, whose states stay in registers
constexpr size_t kRowsTogether = 16;

MICA_ONE_BODY __m256i Load(const void* at) { return _mm256_loadu_si256(static_cast<const __m256i*>(at)); }
MICA_ONE_BODY void Store(void* at, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(at), v); }
MICA_ONE_BODY __m256i Bytes(int value) { return _mm256_set1_epi8(static_cast<char>(value)); }
// Bytes shifted; what comes from the byte beside is to be masked out.
MICA_ONE_BODY __m256i Right(__m256i v, int bits) { return _mm256_srli_epi16(v, bits); }

// Planes are streams that are read once.
MICA_ONE_BODY void Ahead(const uint8_t* at) { _mm_prefetch(reinterpret_cast<const char*>(at + 4096), _MM_HINT_T0); }

// The bits of a plane that begin at `at`, as bytes of 0 or 255.
MICA_ONE_BODY __m256i Spread(const uint8_t* at) {
  int32_t bits;
  std::memcpy(&bits, at, sizeof(bits));
  const __m256i place = _mm256_setr_epi64x(0x0000000000000000, 0x0101010101010101, 0x0202020202020202,
                                           0x0303030303030303);
  const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
  const __m256i own = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), place), bit);
  return _mm256_cmpeq_epi8(own, bit);
}

// How many pairs of products of levels + offset of a width, at most 2^(width + 1) - 1 (width 8: within +-127), with
// values within +-127 16 bits hold.
constexpr size_t DepthOf(int width) {
  return width == 2 || width == 3 ? 8 : width == 4 ? 4 : width == 5 ? 2 : 1;
}

// The machine of states as tables of 16 bytes. A state's byte has its quantiser in one bit, which of that
// quantiser's states it is in two others, and leaves free the place of the parity, which makes it the place in
// `next`. Tables of levels have them + offset.
template <int kWidth>
struct Machine {
  static constexpr int kParity = kWidth == 2 ? 2 : kWidth == 3 ? 4 : 8;
  __m256i next, even, odd;
  __m256i zero, spacing;  // of widths 5 and 6: what level 0 is, and the parity's part of a level
  uint8_t start;

  explicit Machine(int states) {
    const Trellis& trellis = TrellisOf(states);
    uint8_t byte[8] = {};
    int of_quantiser[2] = {0, 0};
    for (int s = 0; s < states; ++s) {
      const int q = trellis.quantiser[static_cast<size_t>(s)], rest = of_quantiser[q]++;
      byte[s] = static_cast<uint8_t>(kWidth == 2   ? q << 2 | (rest & 1) | (rest >> 1) << 3
                                     : kWidth == 3 ? q << 3 | rest
                                                   : q | rest << 1 | q << 6);  // bit 6 becomes a mask's
    }
    start = byte[0];
    alignas(16) uint8_t to[16] = {}, levels[2][16] = {};
    for (int s = 0; s < states; ++s) {
      for (int p = 0; p < 2; ++p)
        to[(byte[s] & 15) | (p != 0 ? kParity : 0)] = byte[trellis.next[static_cast<size_t>(s)][static_cast<size_t>(p)]];
    }
    const int offset = 1 << kWidth;
    const auto level = [&](int code, int q) {
      return static_cast<uint8_t>(trellis.Level(IntegerOfCode(code, kWidth), states > 1 ? q : 0) + offset);
    };
    for (int i = 0; i < 16; ++i) {
      if constexpr (kWidth <= 3) {
        levels[0][i] = level(i & ((1 << kWidth) - 1), i >> kWidth & 1);
      } else if constexpr (kWidth == 4) {
        for (int q = 0; q < 2; ++q) levels[q][i] = level(i, q);
      } else if constexpr (kWidth == 5) {
        levels[0][i] = level(i, 0);
      } else {
        // Upper bits and parity of code are those of `i` in the second table: what they add.
        levels[0][i] = static_cast<uint8_t>(2 * trellis.spacing * i);
        levels[1][i] = static_cast<uint8_t>(trellis.spacing * (-32 * (i & 1) + (i >> 1 & 1)) + offset);
      }
    }
    next = Dup(to);
    even = Dup(levels[0]);
    odd = Dup(levels[1]);
    zero = Bytes(offset);
    spacing = Bytes(trellis.spacing);
  }

 private:
  static __m256i Dup(const uint8_t* table) {
    return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
  }
};

// One tile's rows of a whole block.
template <int kWidth>
class WholeBlock {
 public:
  WholeBlock(const uint8_t* bytes, size_t rows)
      : low_(bytes),
        two_(kWidth <= 3 ? bytes : bytes + rows * 128),
        high_(two_ + (kWidth <= 3 || kWidth == 6 ? rows * 64 : 0)) {}

  // take(i, levels + offset) of the four vectors of a row's half; the states go on.
  template <typename Take>
  MICA_ONE_BODY void Row(size_t r, size_t half, const Machine<kWidth>& m, __m256i* state, const Take& take) const {
    if constexpr (kWidth == 8) {
#pragma GCC unroll 4
      for (size_t i = 0; i < kOfHalf; ++i) take(i, _mm256_xor_si256(Load(low_ + r * 256 + half * 128 + i * 32), Bytes(0x80)));
      return;
    }
#pragma GCC unroll 2
    for (size_t part = 0; part < 2; ++part) {
      __m256i pair, four;
      if constexpr (kWidth > 3) pair = Load(low_ + r * 128 + half * 64 + part * 32);
      if constexpr (kWidth <= 3 || kWidth == 6) {
        four = Load(two_ + r * 64 + part * 32);
        if (half != 0) four = Right(four, 4);
      }
#pragma GCC unroll 2
      for (size_t s = 0; s < 2; ++s) {
        const size_t i = 2 * s + part;
        __m256i own, two;
        if constexpr (kWidth > 3) own = _mm256_and_si256(s == 0 ? pair : Right(pair, 4), Bytes(15));
        if constexpr (kWidth <= 3 || kWidth == 6) two = _mm256_and_si256(s == 0 ? four : Right(four, 2), Bytes(3));
        if constexpr (kWidth == 2) {
          take(i, _mm256_shuffle_epi8(m.even, _mm256_or_si256(two, _mm256_and_si256(state[i], Bytes(4)))));
          state[i] = _mm256_shuffle_epi8(m.next, _mm256_or_si256(state[i], _mm256_and_si256(two, Bytes(2))));
        }
        if constexpr (kWidth == 3) {
          const __m256i odd = _mm256_and_si256(Spread(high_ + r * 32 + half * 16 + s * 8 + part * 4), Bytes(4));
          const __m256i both = _mm256_or_si256(state[i], odd);
          state[i] = _mm256_shuffle_epi8(m.next, both);
          take(i, _mm256_shuffle_epi8(m.even, _mm256_or_si256(two, _mm256_and_si256(both, Bytes(12)))));
        }
        if constexpr (kWidth == 4) {
          const __m256i q = _mm256_add_epi8(state[i], state[i]);
          const __m256i level = _mm256_blendv_epi8(_mm256_shuffle_epi8(m.even, own), _mm256_shuffle_epi8(m.odd, own), q);
          state[i] = _mm256_shuffle_epi8(m.next, _mm256_or_si256(state[i], _mm256_and_si256(own, Bytes(8))));
          take(i, level);
        }
        if constexpr (kWidth == 5) {
          const __m256i odd = Spread(high_ + r * 32 + half * 16 + s * 8 + part * 4);
          const __m256i plain = _mm256_add_epi8(_mm256_shuffle_epi8(m.even, own), _mm256_and_si256(odd, m.spacing));
          take(i, Quantised(plain, m, state[i]));
          state[i] = _mm256_shuffle_epi8(m.next, _mm256_or_si256(state[i], _mm256_and_si256(odd, Bytes(8))));
        }
        if constexpr (kWidth == 6) {
          const __m256i plain = _mm256_add_epi8(_mm256_shuffle_epi8(m.even, own), _mm256_shuffle_epi8(m.odd, two));
          take(i, Quantised(plain, m, state[i]));
          // The parity is the upper of the two.
          const __m256i odd = _mm256_and_si256(_mm256_slli_epi16(two, 2), Bytes(8));
          state[i] = _mm256_shuffle_epi8(m.next, _mm256_or_si256(state[i], odd));
        }
      }
    }
  }

  void Prefetch(size_t r, size_t half) const {
    if constexpr (kWidth == 8) {
      Ahead(low_ + r * 256 + half * 128);
      Ahead(low_ + r * 256 + half * 128 + 64);
      return;
    }
    if constexpr (kWidth > 3) Ahead(low_ + r * 128 + half * 64);
    if (half != 0) return;
    if constexpr (kWidth <= 3 || kWidth == 6) Ahead(two_ + r * 64);
    if constexpr (kWidth == 3 || kWidth == 5) {
      if (r % 2 == 0) Ahead(high_ + r * 32);
    }
  }

  // spacing n + offset, a unit nearer to level 0 for quantiser 1.
  MICA_ONE_BODY static __m256i Quantised(__m256i plain, const Machine<kWidth>& m, __m256i state) {
    const __m256i quantiser = _mm256_and_si256(state, Bytes(1));
    return _mm256_sub_epi8(plain, _mm256_sign_epi8(quantiser, _mm256_sub_epi8(plain, m.zero)));
  }

 private:
  const uint8_t *low_, *two_, *high_;
};

// Rows of the last block, of fewer strips.
template <int kWidth>
class LastBlock {
 public:
  LastBlock(const uint8_t* bytes, size_t strips) : bytes_(bytes), strips_(strips) {}

  template <typename Take>
  MICA_ONE_BODY void Row(size_t r, size_t half, const Machine<kWidth>& m, __m256i* state, const Take& take) const {
#pragma GCC unroll 4
    for (size_t i = 0; i < kOfHalf; ++i) {
      const size_t s = 2 * half + i / 2;
      if (s >= strips_) {
        take(i, _mm256_setzero_si256());
        continue;
      }
      const uint8_t* planes = bytes_ + (r * strips_ + s) * kWidth * 8 + i % 2 * 4;
      __m256i plane[kWidth], own = _mm256_setzero_si256();
#pragma GCC unroll 8
      for (int b = 0; b < kWidth; ++b) {
        plane[b] = Spread(planes + b * 8);
        if (b < 4) own = _mm256_or_si256(own, _mm256_and_si256(plane[b], Bytes(1 << b)));
      }
      const __m256i odd = plane[kWidth - 1];
      if constexpr (kWidth == 8) {
        for (int b = 4; b < 8; ++b) own = _mm256_or_si256(own, _mm256_and_si256(plane[b], Bytes(1 << b)));
        take(i, _mm256_xor_si256(own, Bytes(0x80)));
        continue;
      } else if constexpr (kWidth <= 3) {
        const __m256i q = _mm256_and_si256(state[i], Bytes(1 << kWidth));
        take(i, _mm256_shuffle_epi8(m.even, _mm256_or_si256(own, q)));
      } else if constexpr (kWidth == 4) {
        const __m256i q = _mm256_add_epi8(state[i], state[i]);
        take(i, _mm256_blendv_epi8(_mm256_shuffle_epi8(m.even, own), _mm256_shuffle_epi8(m.odd, own), q));
      } else if constexpr (kWidth == 5) {
        const __m256i plain = _mm256_add_epi8(_mm256_shuffle_epi8(m.even, own), _mm256_and_si256(odd, m.spacing));
        take(i, WholeBlock<kWidth>::Quantised(plain, m, state[i]));
      } else {
        const __m256i two = _mm256_or_si256(_mm256_and_si256(plane[4], Bytes(1)), _mm256_and_si256(odd, Bytes(2)));
        const __m256i plain = _mm256_add_epi8(_mm256_shuffle_epi8(m.even, own), _mm256_shuffle_epi8(m.odd, two));
        take(i, WholeBlock<kWidth>::Quantised(plain, m, state[i]));
      }
      const __m256i parity = _mm256_and_si256(odd, Bytes(Machine<kWidth>::kParity));
      state[i] = _mm256_shuffle_epi8(m.next, _mm256_or_si256(state[i], parity));
    }
  }
  void Prefetch(size_t, size_t) const {}

 private:
  const uint8_t* bytes_;
  const size_t strips_;
};

// Pairs of products of levels with values, 16 bits each.
template <int kWidth>
MICA_ONE_BODY __m256i Pairs(__m256i level, __m256i values) {
  // Levels of width 8 are signed.
  if constexpr (kWidth == 8) return _mm256_maddubs_epi16(_mm256_abs_epi8(level), _mm256_sign_epi8(values, level));
  return _mm256_maddubs_epi16(level, values);
}

// [i] the sum of all of v[i].
MICA_ONE_BODY __m256i SumsOf(const __m256i* v) {
  __m256i of_four[2];
  for (int i = 0; i < 2; ++i, v += 4) {
    const __m256i low = _mm256_add_epi32(_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]));
    const __m256i high = _mm256_add_epi32(_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
    of_four[i] = _mm256_add_epi32(_mm256_unpacklo_epi64(low, high), _mm256_unpackhi_epi64(low, high));
  }
  return _mm256_add_epi32(_mm256_permute2x128_si256(of_four[0], of_four[1], 0x20),
                          _mm256_permute2x128_si256(of_four[0], of_four[1], 0x31));
}

// to[0..count) += scale * (sums - offset), count up to 8.
MICA_ONE_BODY void AddScaled(__m256i sums, __m256i offset, __m256 scale, size_t count, float* to) {
  const __m256 exact = _mm256_cvtepi32_ps(_mm256_sub_epi32(sums, offset));
  if (count >= 8) {
    _mm256_storeu_ps(to, _mm256_fmadd_ps(scale, exact, _mm256_loadu_ps(to)));
    return;
  }
  const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  _mm256_maskstore_ps(to, mask, _mm256_fmadd_ps(scale, exact, _mm256_maskload_ps(to, mask)));
}

// Activations of one block.
struct BlockInputs {
  const int8_t* values;  // of tokens `stride` apart
  size_t stride;
  const float* scales;  // of tokens `blocks` apart, as are sums
  const int32_t* sums;
  size_t blocks;
};

// Two tokens (one and what rounding left of it): sums[t][r] += scale * (the block's sum of integers).
template <int kWidth, typename Block>
void AddBlock(const Block& block, const Machine<kWidth>& machine, size_t rows, const BlockInputs& x, int offset,
              MatrixView<float> sums) {
  constexpr size_t kTokens = 2, kDepth = DepthOf(kWidth);
  alignas(32) __m256i states[kVectors], products[kTokens][kRowsTogether];
  for (__m256i& state : states) state = Bytes(machine.start);
  const __m256i ones = _mm256_set1_epi16(1);
  for (size_t first = 0; first < rows; first += kRowsTogether) {
    const size_t count = std::min(kRowsTogether, rows - first);
    for (size_t half = 0; half < 2; ++half) {
      const int8_t* values = x.values + half * kTrellisBlock / 2;
      __m256i state[kOfHalf];
#pragma GCC unroll 4
      for (size_t i = 0; i < kOfHalf; ++i) state[i] = states[half * kOfHalf + i];
      for (size_t r = 0; r < count; ++r) {
        block.Prefetch(first + r, half);
        __m256i sum[kTokens], pairs[kTokens];
        size_t taken = 0;
        block.Row(first + r, half, machine, state, [&](size_t i, __m256i level) __attribute__((always_inline)) {
#pragma GCC unroll 2
          for (size_t t = 0; t < kTokens; ++t) {
            const __m256i more = Pairs<kWidth>(level, Load(values + t * x.stride + i * kBytes));
            pairs[t] = taken % kDepth == 0 ? more : _mm256_add_epi16(pairs[t], more);
            if ((taken + 1) % kDepth != 0 && taken + 1 != kOfHalf) continue;
            const __m256i wide = _mm256_madd_epi16(pairs[t], ones);
            sum[t] = taken < kDepth ? wide : _mm256_add_epi32(sum[t], wide);
          }
          ++taken;
        });
#pragma GCC unroll 2
        for (size_t t = 0; t < kTokens; ++t)
          products[t][r] = half == 0 ? sum[t] : _mm256_add_epi32(products[t][r], sum[t]);
      }
#pragma GCC unroll 4
      for (size_t i = 0; i < kOfHalf; ++i) states[half * kOfHalf + i] = state[i];
    }
    for (size_t t = 0; t < kTokens; ++t) {
      for (size_t r = count; r < (count + 7) / 8 * 8; ++r) products[t][r] = _mm256_setzero_si256();
      const __m256i own_offset = _mm256_set1_epi32(offset * x.sums[t * x.blocks]);
      const __m256 scale = _mm256_set1_ps(x.scales[t * x.blocks]);
      for (size_t r = 0; r < count; r += 8)
        AddScaled(SumsOf(products[t] + r), own_offset, scale, count - r, sums.row(t) + first + r);
    }
  }
}

// Rows whose levels are unpacked at once: with four columns of eight rows together they stay in the first-level
// cache.
constexpr size_t kUnpackedRows = 64, kGroupRows = 8, kGroupBytes = kGroupRows * kTrellisBlock;
// Tokens and groups of rows whose sums stay in registers.
constexpr size_t kTokenBlock = 3, kGroupBlock = 2;

// Eight rows, [8, 256], as [64, 8, 4]: four columns of each row together.
inline void Interleave(const uint8_t* rows, uint8_t* out) {
  for (size_t c = 0; c < kTrellisBlock; c += kBytes) {
    __m256i v[8], w[8];
    for (size_t i = 0; i < 8; ++i) v[i] = Load(rows + i * kTrellisBlock + c);
    for (size_t i = 0; i < 8; i += 4) {
      const __m256i a = _mm256_unpacklo_epi32(v[i], v[i + 1]), b = _mm256_unpackhi_epi32(v[i], v[i + 1]);
      const __m256i d = _mm256_unpacklo_epi32(v[i + 2], v[i + 3]), e = _mm256_unpackhi_epi32(v[i + 2], v[i + 3]);
      w[i] = _mm256_unpacklo_epi64(a, d);
      w[i + 1] = _mm256_unpackhi_epi64(a, d);
      w[i + 2] = _mm256_unpacklo_epi64(b, e);
      w[i + 3] = _mm256_unpackhi_epi64(b, e);
    }
    // w[4 g + j] has in half l column group 4 l + j of rows 4 g to 4 g + 3.
    uint8_t* to = out + c / 4 * kBytes;
    for (size_t j = 0; j < 4; ++j) {
      Store(to + j * kBytes, _mm256_permute2x128_si256(w[j], w[4 + j], 0x20));
      Store(to + (4 + j) * kBytes, _mm256_permute2x128_si256(w[j], w[4 + j], 0x31));
    }
  }
}

// sums[t][r] of kGroups times 8 rows and kTokens tokens.
template <int kWidth, size_t kGroups, size_t kTokens>
void MultiplyGroups(const uint8_t* levels, const BlockInputs& x, int offset, size_t rows, float* sums, size_t stride) {
  constexpr size_t kDepth = DepthOf(kWidth);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i acc[kTokens][kGroups];
#pragma GCC unroll 3
  for (size_t t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (size_t g = 0; g < kGroups; ++g) acc[t][g] = _mm256_setzero_si256();
  }
  for (size_t first = 0; first < kTrellisBlock / 4; first += kDepth) {
    __m256i pairs[kTokens][kGroups];
#pragma GCC unroll 8
    for (size_t c = 0; c < kDepth; ++c) {
      __m256i w[kGroups];
#pragma GCC unroll 2
      for (size_t g = 0; g < kGroups; ++g) w[g] = Load(levels + g * kGroupBytes + (first + c) * kBytes);
#pragma GCC unroll 3
      for (size_t t = 0; t < kTokens; ++t) {
        int32_t four;
        std::memcpy(&four, x.values + t * x.stride + 4 * (first + c), sizeof(four));
        const __m256i values = _mm256_set1_epi32(four);
#pragma GCC unroll 2
        for (size_t g = 0; g < kGroups; ++g) {
          const __m256i more = Pairs<kWidth>(w[g], values);
          pairs[t][g] = c == 0 ? more : _mm256_add_epi16(pairs[t][g], more);
        }
      }
    }
#pragma GCC unroll 3
    for (size_t t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
      for (size_t g = 0; g < kGroups; ++g)
        acc[t][g] = _mm256_add_epi32(acc[t][g], _mm256_madd_epi16(pairs[t][g], ones));
    }
  }
#pragma GCC unroll 3
  for (size_t t = 0; t < kTokens; ++t) {
    const __m256i own_offset = _mm256_set1_epi32(offset * x.sums[t * x.blocks]);
    const __m256 scale = _mm256_set1_ps(x.scales[t * x.blocks]);
#pragma GCC unroll 2
    for (size_t g = 0; g < kGroups; ++g)
      AddScaled(acc[t][g], own_offset, scale, rows - g * kGroupRows, sums + t * stride + g * kGroupRows);
  }
}

using Groups = void (*)(const uint8_t*, const BlockInputs&, int, size_t, float*, size_t);
template <int kWidth, size_t kGroups>
constexpr Groups kGroupsOfTokens[kTokenBlock + 1] = {nullptr, MultiplyGroups<kWidth, kGroups, 1>,
                                                     MultiplyGroups<kWidth, kGroups, 2>,
                                                     MultiplyGroups<kWidth, kGroups, 3>};

// Many tokens.
template <int kWidth, typename Block>
void AddBlockOfMany(const Block& block, const Machine<kWidth>& machine, size_t rows, const BlockInputs& x, int offset,
                    MatrixView<float> y) {
  uint8_t* unpacked = Scratch<uint8_t, 71>(kUnpackedRows * kTrellisBlock);
  uint8_t* levels = Scratch<uint8_t, 72>(kUnpackedRows * kTrellisBlock);
  alignas(32) __m256i states[kVectors];
  for (__m256i& state : states) state = Bytes(machine.start);
  for (size_t first = 0; first < rows; first += kUnpackedRows) {
    const size_t count = std::min(kUnpackedRows, rows - first), groups = (count + kGroupRows - 1) / kGroupRows;
    for (size_t half = 0; half < 2; ++half) {
      __m256i state[kOfHalf];
#pragma GCC unroll 4
      for (size_t i = 0; i < kOfHalf; ++i) state[i] = states[half * kOfHalf + i];
      for (size_t r = 0; r < count; ++r) {
        uint8_t* to = unpacked + r * kTrellisBlock + half * kTrellisBlock / 2;
        block.Row(first + r, half, machine, state,
                  [&](size_t i, __m256i level) __attribute__((always_inline)) { Store(to + i * kBytes, level); });
      }
#pragma GCC unroll 4
      for (size_t i = 0; i < kOfHalf; ++i) states[half * kOfHalf + i] = state[i];
    }
    std::memset(unpacked + count * kTrellisBlock, 0, (groups * kGroupRows - count) * kTrellisBlock);
    for (size_t g = 0; g < groups; ++g) Interleave(unpacked + g * kGroupBytes, levels + g * kGroupBytes);
    for (size_t t = 0; t < y.rows; t += kTokenBlock) {
      const size_t tokens = std::min(kTokenBlock, y.rows - t);
      const BlockInputs own = {x.values + t * x.stride, x.stride, x.scales + t * x.blocks, x.sums + t * x.blocks, x.blocks};
      for (size_t g = 0; g < groups; g += kGroupBlock) {
        const Groups multiply = g + 1 < groups ? kGroupsOfTokens<kWidth, 2>[tokens] : kGroupsOfTokens<kWidth, 1>[tokens];
        multiply(levels + g * kGroupBytes, own, offset, count - g * kGroupRows, y.row(t) + first + g * kGroupRows, y.stride);
      }
    }
  }
}

// What a tile's rows have beside their codes: columns and what their levels have more.
struct Exceptions {
  const uint32_t* cols;
  const float* levels;
  size_t count;
};
// Those of one row, whose entries begin at `items`, which then is behind them; of the last eight, those that there are
// not are zeros of column 0.
Exceptions OfRow(const TrellisWeights& w, size_t tile, size_t r, const TrellisException*& items, uint32_t* cols,
                 float* levels) {
  const size_t count = w.exceptions[tile].CountOf(r);
  uint32_t col = 0;
  for (size_t i = 0; i < count; ++i, ++items) {
    col += static_cast<uint32_t>(ColsOf(*items));
    cols[i] = col;
    levels[i] = static_cast<float>(UnitsOf(*items) * w.exception_unit);
  }
  for (size_t i = count; i % 8 != 0; ++i) {
    cols[i] = 0;
    levels[i] = 0;
  }
  return {cols, levels, count};
}
// The most that a row has, rounded up to eight.
size_t MostOfARow(const TrellisWeights& w, size_t tile) {
  size_t most = 0;
  for (const uint16_t count : w.exceptions[tile].counts) most = std::max<size_t>(most, count);
  return (most + 7) / 8 * 8;
}

MICA_ONE_BODY float SumOf(__m256 lanes) {
  const __m256 pairs = _mm256_add_ps(lanes, _mm256_movehdup_ps(lanes));
  const __m256 fours = _mm256_add_ps(pairs, _mm256_permute_ps(pairs, 0x4E));
  return _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(fours), _mm256_extractf128_ps(fours, 1)));
}

// Two values of one column, and of another above them.
MICA_ONE_BODY __m128 TwoAndTwo(const float* one, const float* other) {
  const __m128 low = _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(one)));
  return _mm_loadh_pi(low, reinterpret_cast<const __m64*>(other));
}

// y[t, r] of all rows = scale * (y[t, r] + what is beside the codes), of two tokens whose values stand together by
// column. Of eight sums the first takes the first, the ninth, ... of what there is.
void AddBesideOfTwo(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first, MatrixView<float> y) {
  const size_t rows = w.layout.RowsOf(tile), taken = w.taken.size(), padded = (taken + 7) / 8 * 8;
  const size_t most = MostOfARow(w, tile);
  uint32_t* cols = Scratch<uint32_t, 74>(most + 1);
  float* levels = Scratch<float, 74>(most + 1);
  // Of the taken columns.
  float* of_taken = Scratch<float, 75>(2 * padded + 2);
  std::fill_n(of_taken, 2 * padded, 0.0f);
  const float* values = x.ValuesOf(0);
  const TrellisException* items = w.exceptions[tile].items.data();
  for (size_t i = 0; i < taken; ++i) {
    of_taken[i] = values[2 * w.taken[i]];
    of_taken[padded + i] = values[2 * w.taken[i] + 1];
  }
  for (size_t r = 0; r < rows; ++r) {
    const size_t position = tile * w.layout.tile_rows + r;
    __m256 lanes[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    const auto add = [&](__m256 level, __m256 one, __m256 other) __attribute__((always_inline)) {
      lanes[0] = _mm256_fmadd_ps(level, one, lanes[0]);
      lanes[1] = _mm256_fmadd_ps(level, other, lanes[1]);
    };
    for (size_t i = 0; i < taken; i += 8) {
      alignas(16) int16_t some[8] = {};
      const int16_t* from = w.taken_levels.row(position) + i;
      if (taken - i < 8) from = std::copy_n(from, taken - i, some) - (taken - i);
      const __m256i level = _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
      add(_mm256_cvtepi32_ps(level), _mm256_loadu_ps(of_taken + i), _mm256_loadu_ps(of_taken + padded + i));
    }
    const Exceptions own = OfRow(w, tile, r, items, cols, levels);
    for (size_t i = 0; i < own.count; i += 8) {
      const uint32_t* c = own.cols + i;
      const auto two = [&](size_t j) __attribute__((always_inline)) {
        return TwoAndTwo(values + 2 * size_t{c[j]}, values + 2 * size_t{c[j + 1]});
      };
      const __m256 a = _mm256_insertf128_ps(_mm256_castps128_ps256(two(0)), two(4), 1);
      const __m256 b = _mm256_insertf128_ps(_mm256_castps128_ps256(two(2)), two(6), 1);
      add(_mm256_loadu_ps(own.levels + i), _mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xDD));
    }
    const float scale = w.RowScale(position);
    for (size_t t = 0; t < y.rows; ++t) y(t, r) = scale * (y(t, r) + SumOf(lanes[first + t]));
  }
}

// The same of more tokens, whose values stand `stride` apart by column: eight of them through all rows, so that
// their values stay in the second-level cache.
void AddBesideOfMany(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first, MatrixView<float> y) {
  const size_t rows = w.layout.RowsOf(tile), taken = w.taken.size(), most = MostOfARow(w, tile);
  const size_t stride = x.value_stride();
  uint32_t* cols = Scratch<uint32_t, 74>(rows * most + 1);
  float* levels = Scratch<float, 74>(rows * most + 1);
  thread_local std::vector<Exceptions> of_rows;
  of_rows.clear();
  const TrellisException* items = w.exceptions[tile].items.data();
  for (size_t r = 0; r < rows; ++r) of_rows.push_back(OfRow(w, tile, r, items, cols + r * most, levels + r * most));
  for (size_t t = 0; t < y.rows; t += 8) {
    const size_t tokens = std::min<size_t>(8, y.rows - t);
    const float* values = x.ValuesOf(first + t);
    for (size_t r = 0; r < rows; ++r) {
      const size_t position = tile * w.layout.tile_rows + r;
      __m256 lanes[8];
#pragma GCC unroll 8
      for (__m256& lane : lanes) lane = _mm256_setzero_ps();
      const auto one = [&](float level, size_t col, __m256& lane) __attribute__((always_inline)) {
        lane = _mm256_fmadd_ps(_mm256_set1_ps(level), _mm256_loadu_ps(values + col * stride), lane);
      };
      const int16_t* of_taken = w.taken_levels.row(position);
      size_t i = 0;
      for (; i + 8 <= taken; i += 8) {
#pragma GCC unroll 8
        for (size_t j = 0; j < 8; ++j) one(static_cast<float>(of_taken[i + j]), w.taken[i + j], lanes[j]);
      }
#pragma GCC unroll 7
      for (size_t j = 0; j < 7; ++j) {
        if (i + j < taken) one(static_cast<float>(of_taken[i + j]), w.taken[i + j], lanes[j]);
      }
      const Exceptions& own = of_rows[r];
      for (i = 0; i < own.count; i += 8) {
#pragma GCC unroll 8
        for (size_t j = 0; j < 8; ++j) one(own.levels[i + j], own.cols[i + j], lanes[j]);
      }
      alignas(32) float more[8];
      _mm256_store_ps(more, _mm256_add_ps(_mm256_add_ps(_mm256_add_ps(lanes[0], lanes[1]), _mm256_add_ps(lanes[2], lanes[3])),
                                          _mm256_add_ps(_mm256_add_ps(lanes[4], lanes[5]), _mm256_add_ps(lanes[6], lanes[7]))));
      const float scale = w.RowScale(position);
      for (size_t j = 0; j < tokens; ++j) y(t + j, r) = scale * (y(t + j, r) + more[j]);
    }
  }
}

template <int kWidth>
void MultiplyWidth(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first, MatrixView<float> y) {
  const TrellisLayout& layout = w.layout;
  const size_t rows = layout.RowsOf(tile), blocks = layout.blocks();
  const Machine<kWidth> machine(layout.states);
  const int offset = kWidth == 8 ? 0 : w.tables.offset;
  for (size_t t = 0; t < y.rows; ++t) std::fill_n(y.row(t), rows, 0.0f);
  for (size_t k = 0; k < blocks; ++k) {
    const uint8_t* bytes = w.codes.data() + layout.Begin(tile, k);
    const size_t at = first * blocks + k;
    const BlockInputs own = {x.rounded.values.data() + first * x.rounded.stride + k * kTrellisBlock, x.rounded.stride,
                             x.rounded.scales.data() + at, x.rounded.sums.data() + at, blocks};
    const auto add = [&](const auto& block) {
      if (y.rows == 2) {
        AddBlock<kWidth>(block, machine, rows, own, offset, y);
      } else {
        AddBlockOfMany<kWidth>(block, machine, rows, own, offset, y);
      }
    };
    const size_t strips = layout.StripsOf(k);
    if (strips == kStripsOfBlock) {
      add(WholeBlock<kWidth>(bytes, rows));
    } else {
      add(LastBlock<kWidth>(bytes, strips));
    }
  }
  if (x.values.empty()) {
    for (size_t t = 0; t < y.rows; ++t) {
      for (size_t r = 0; r < rows; ++r) y(t, r) *= w.RowScale(tile * layout.tile_rows + r);
    }
  } else if (x.tokens == 2) {
    AddBesideOfTwo(w, tile, x, first, y);
  } else {
    AddBesideOfMany(w, tile, x, first, y);
  }
}

void MultiplyAvx2(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first, MatrixView<float> y) {
  switch (w.layout.width) {
    case 2:
      return MultiplyWidth<2>(w, tile, x, first, y);
    case 3:
      return MultiplyWidth<3>(w, tile, x, first, y);
    case 4:
      return MultiplyWidth<4>(w, tile, x, first, y);
    case 5:
      return MultiplyWidth<5>(w, tile, x, first, y);
    case 6:
      return MultiplyWidth<6>(w, tile, x, first, y);
    default:
      return MultiplyWidth<8>(w, tile, x, first, y);
  }
}

#undef MICA_ONE_BODY

}  // namespace
}  // namespace mica

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace mica {

TrellisKernel Avx2TrellisKernel() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? MultiplyAvx2 : nullptr;
}

}  // namespace mica

#else

namespace mica {

TrellisKernel Avx2TrellisKernel() { return nullptr; }

}  // namespace mica

#endif
