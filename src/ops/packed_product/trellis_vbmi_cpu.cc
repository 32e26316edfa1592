// Products with trellis integers by AVX-512's byte permutations (VBMI) and its products of bytes (VNNI): a
// level is one look-up among 64 bytes, the next state another, or logic for all columns at once. Where there are tile registers (AMX), they multiply the
// levels with many tokens.
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
#include <type_traits>
#include <utility>

#include "device/scratch.h"
#include "ops/packed_product/int8_tiles.h"

#if defined(__clang__)
#pragma clang attribute push(                                                                     \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")
#endif

namespace mica {
namespace {

// What holds vectors in arrays must become one body of code, or they go through memory.
#define MICA_ONE_BODY [[gnu::always_inline]] inline

constexpr size_t kRowsTogether = 16;

// sum += products of unsigned and signed bytes, four a lane. As an intrinsic GCC 12 copies every sum twice.
MICA_ONE_BODY void AddProducts(__m512i& sum, __m512i levels, __m512i values) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(levels), "v"(values));
}

// What a width's codes become.
template <int kWidth>
struct Machine {
  __m512i level, level_high, next;
  uint8_t start;
  int states;
  Machine(const TrellisTables& tables, int states_in)
      : level(_mm512_loadu_si512(tables.level.data())),
        level_high(_mm512_loadu_si512(tables.level.data() + 64)),
        next(_mm512_loadu_si512(tables.next.data())),
        start(tables.start),
        states(states_in) {}

  // Level + offset, by code | quantiser << kWidth; what is above that does not count.
  MICA_ONE_BODY __m512i Level(__m512i at) const {
    if constexpr (kWidth == 6) return _mm512_permutex2var_epi8(level, at, level_high);
    return _mm512_permutexvar_epi8(at, level);
  }
  // Level + offset of codes; the state goes on. For widths below 6 `code` is code | state.
  MICA_ONE_BODY __m512i Step(__m512i code, __m512i& state) const {
    if constexpr (kWidth == 8) return code;
    if constexpr (kWidth == 6) {
      const __m512i at = _mm512_ternarylogic_epi64(code, state, _mm512_set1_epi8(0x40), 0xF8);
      const __m512i both = _mm512_ternarylogic_epi64(state, code, _mm512_set1_epi8(0x20), 0xF8);
      state = _mm512_permutexvar_epi8(_mm512_srli_epi16(both, 4), next);
      return _mm512_permutex2var_epi8(level, at, level_high);
    }
    // What a shift brings from the byte above stands where the tables repeat.
    state = _mm512_permutexvar_epi8(_mm512_srli_epi16(code, kWidth - 1), next);
    return _mm512_permutexvar_epi8(code, level);
  }
};

// The states of a strip's columns, a byte each.
struct StatesByBytes {
  template <int kWidth>
  explicit StatesByBytes(const Machine<kWidth>& machine) {
    for (__m512i& s : strip) s = _mm512_set1_epi8(static_cast<char>(machine.start));
  }
  __m512i strip[kStripsOfBlock];
};

// Those of all columns of a block, a bit each in three vectors, which stand where parities do. Which quantiser a column
// has depends on parities alone.
struct StatesByBits {
  template <int kWidth>
  explicit StatesByBits(const Machine<kWidth>& machine) : states(machine.states) {}
  // The quantisers of a row; its parities lead to the next.
  MICA_ONE_BODY __m512i Next(__m512i parities) {
    if (states == 8) {
      // TrellisOf(8): the next state is, from the highest bit on: low; low ? middle : high, and the parity; middle, and
      // low unless high.
      const __m512i quantisers = low;
      const __m512i next = _mm512_xor_si512(_mm512_ternarylogic_epi64(low, middle, high, 0xCA), parities);
      low = _mm512_ternarylogic_epi64(middle, low, high, 0xB4);
      middle = next;
      high = quantisers;
      return quantisers;
    }
    if (states == 4) {
      // TrellisOf(4): low and the parity; middle.
      const __m512i quantisers = middle;
      middle = _mm512_xor_si512(low, parities);
      low = quantisers;
      return quantisers;
    }
    return low;
  }
  int states;
  __m512i low = _mm512_setzero_si512(), middle = low, high = low;
};

// The bits of `value` that the mask names, and the others of `other`.
inline __m512i Selected(int mask, __m512i value, __m512i other) {
  return _mm512_ternarylogic_epi64(_mm512_set1_epi8(static_cast<char>(mask)), value, other, 0xCA);
}

// By bits; what comes from the byte beside it never counts.
inline __m512i Left(__m512i v, unsigned by) { return _mm512_slli_epi16(v, by); }
inline __m512i Right(__m512i v, unsigned by) { return _mm512_srli_epi16(v, by); }

// Planes are streams that are read once.
MICA_ONE_BODY void Ahead(const uint8_t* at) {
  _mm_prefetch(reinterpret_cast<const char*>(at + 4096), _MM_HINT_T0);
}

// Rows of a whole block.
template <int kWidth>
class WholeBlock {
 public:
  WholeBlock(const uint8_t* bytes, size_t rows)
      : low_(bytes),
        two_(kWidth <= 3 ? bytes : bytes + rows * 128),
        high_(two_ + (kWidth == 3 || kWidth == 6 ? rows * 64 : 0)) {}

  using States = StatesByBits;

  // Levels + offset of strips.
  MICA_ONE_BODY void Row(size_t r, const Machine<kWidth>& machine, States& states, __m512i* level) const {
    if constexpr (kWidth == 8) {
      for (int s = 0; s < 4; ++s) level[s] = _mm512_loadu_si512(low_ + r * 256 + s * 64);
    } else if constexpr (kWidth == 2) {
      const __m512i two = _mm512_loadu_si512(two_ + r * 64), quantisers = states.Next(two);
      LevelsOfNibbles(Selected(0x33, two, Left(quantisers, 1)), Selected(0x33, Right(two, 2), Right(quantisers, 1)),
                      machine, level);
    } else if constexpr (kWidth == 3) {
      const __m512i two = _mm512_loadu_si512(two_ + r * 64), pairs = PairsOf(r, states);
      LevelsOfNibbles(Selected(0x33, two, Left(pairs, 2)), Selected(0x33, Right(two, 2), pairs), machine, level);
    } else {
      const __m512i a = _mm512_loadu_si512(low_ + r * 128), b = _mm512_loadu_si512(low_ + r * 128 + 64);
      const __m512i nibbles[] = {a, Right(a, 4), b, Right(b, 4)};
      __m512i above[4];
      if constexpr (kWidth == 4) {
        // Parities of strips 0, 2, 1 and 3 in bits 2, 3, 6 and 7.
        const __m512i q = states.Next(Selected(0x88, b, Right(a, 1)));
        above[0] = Left(q, 2), above[1] = Right(q, 2), above[2] = Left(q, 1), above[3] = Right(q, 3);
      } else if constexpr (kWidth == 5) {
        const __m512i pairs = PairsOf(r, states);
        above[0] = Left(pairs, 4), above[1] = Left(pairs, 2), above[2] = pairs, above[3] = Right(pairs, 2);
      } else {
        const __m512i two = _mm512_loadu_si512(two_ + r * 64), q = states.Next(two);
        above[0] = Selected(0x30, Left(two, 4), Left(q, 5)), above[1] = Selected(0x30, Left(two, 2), Left(q, 3));
        above[2] = Selected(0x30, two, Left(q, 1)), above[3] = Selected(0x30, Right(two, 2), Right(q, 1));
      }
#pragma GCC unroll 4
      for (int s = 0; s < 4; ++s) level[s] = machine.Level(Selected(0x0F, nibbles[s], above[s]));
    }
  }
  static constexpr size_t strips() { return kStripsOfBlock; }
  void Prefetch(size_t r) const {
    constexpr size_t kLow = kWidth == 8 ? 256 : kWidth > 3 ? 128 : 0;
    for (size_t i = 0; i < kLow; i += 64) Ahead(low_ + r * kLow + i);
    if constexpr (kWidth <= 3 || kWidth == 6) Ahead(two_ + r * 64);
    if constexpr (kWidth == 3 || kWidth == 5) {
      if (r % 2 == 0) Ahead(high_ + r * 32);
    }
  }

 private:
  // Pairs of bits, that of strip s from bit 2 s on: the parity and above it the quantiser. The plane has columns of the
  // upper half of a strip a bit higher.
  MICA_ONE_BODY __m512i PairsOf(size_t r, States& states) const {
    const __m512i parities =
        _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(high_ + r * kHighBytes)));
    const __m512i upper = _mm512_inserti64x4(_mm512_set1_epi16(1), _mm256_setzero_si256(), 0);
    const __m512i lower = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(1), 0);
    return Selected(0x55, _mm512_srlv_epi16(parities, upper), _mm512_sllv_epi16(states.Next(parities), lower));
  }
  // even: nibbles of strips 0 and 2; odd: of strips 1 and 3.
  MICA_ONE_BODY void LevelsOfNibbles(__m512i even, __m512i odd, const Machine<kWidth>& machine,
                                     __m512i* level) const {
    level[0] = machine.Level(even), level[1] = machine.Level(odd);
    level[2] = machine.Level(Right(even, 4)), level[3] = machine.Level(Right(odd, 4));
  }

  const uint8_t *low_, *two_, *high_;
};

// Rows of the last block, of fewer strips.
template <int kWidth>
class LastBlock {
 public:
  LastBlock(const uint8_t* bytes, size_t strips) : bytes_(bytes), strips_(strips) {}
  using States = StatesByBytes;
  MICA_ONE_BODY void Row(size_t r, const Machine<kWidth>& machine, States& states, __m512i* level) const {
    const uint8_t* planes = bytes_ + r * strips_ * kWidth * 8;
    for (size_t s = 0; s < kStripsOfBlock; ++s) {
      if (s >= strips_) {
        level[s] = _mm512_setzero_si512();
        continue;
      }
      __m512i code = kWidth < 6 ? states.strip[s] : _mm512_setzero_si512();
      for (int b = 0; b < kWidth; ++b, planes += 8) {
        __mmask64 mask;
        std::memcpy(&mask, planes, sizeof(mask));
        code = _mm512_mask_add_epi8(code, mask, code, _mm512_set1_epi8(static_cast<char>(1 << b)));
      }
      level[s] = machine.Step(code, states.strip[s]);
    }
  }
  void Prefetch(size_t) const {}

 private:
  const uint8_t* bytes_;
  const size_t strips_;
};

inline __m512i Joined(__m512i x, __m512i y) {
  return _mm512_add_epi32(_mm512_shuffle_i32x4(x, y, 0x88), _mm512_shuffle_i32x4(x, y, 0xDD));
}

// [i] the sum of all of a[i].
inline __m512i SumsOf(const __m512i* a) {
  __m512i of_four[4];
  for (int i = 0; i < 4; ++i) {
    const __m512i* v = a + 4 * i;
    const __m512i low =
        _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    const __m512i high =
        _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    of_four[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
  }
  return Joined(Joined(of_four[0], of_four[1]), Joined(of_four[2], of_four[3]));
}

// Two tokens (one and what rounding left of it), `blocks` apart in scales and sums and `stride` in values:
// sums[t][r] += scale * (the block's sum of integers).
template <int kWidth, typename Block>
void AddBlock(const Block& block, const Machine<kWidth>& machine, size_t rows, const int8_t* x,
              size_t stride, const float* scale, const int32_t* value_sums, size_t blocks, int offset,
              MatrixView<float> sums) {
  constexpr size_t kTokens = 2;
  typename Block::States states(machine);
  __m512i values[kTokens][4], offsets[kTokens];
  __m512 scales[kTokens];
  for (size_t t = 0; t < kTokens; ++t) {
    for (int s = 0; s < 4; ++s) values[t][s] = _mm512_loadu_si512(x + t * stride + s * 64);
    scales[t] = _mm512_set1_ps(scale[t * blocks]);
    offsets[t] = _mm512_set1_epi32(offset * value_sums[t * blocks]);
  }
  alignas(64) __m512i products[kTokens][kRowsTogether];
  for (size_t first = 0; first < rows; first += kRowsTogether) {
    const size_t count = std::min(kRowsTogether, rows - first);
    for (size_t i = 0; i < count; ++i) {
      __m512i level[4];
      block.Prefetch(first + i);
      block.Row(first + i, machine, states, level);
#pragma GCC unroll 2
      for (size_t t = 0; t < kTokens; ++t) {
        __m512i sum = _mm512_setzero_si512();
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) AddProducts(sum, level[j], values[t][j]);
        products[t][i] = sum;
      }
    }
    const __mmask16 mask = static_cast<__mmask16>((1u << count) - 1);
    for (size_t t = 0; t < kTokens; ++t) {
      for (size_t i = count; i < kRowsTogether; ++i) products[t][i] = _mm512_setzero_si512();
      const __m512 exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(SumsOf(products[t]), offsets[t]));
      float* to = sums.row(t) + first;
      const __m512 before = _mm512_maskz_loadu_ps(mask, to);
      _mm512_mask_storeu_ps(to, mask, _mm512_fmadd_ps(scales[t], exact, before));
    }
  }
}

// Tokens whose products with 32 rows stay in registers.
constexpr size_t kTokenBlock = 8;
constexpr size_t kUnpackedRows = 128;

// Sixteen rows of levels + offset, [16, 256], as [64, 16, 4]: four columns of each row together.
inline void Interleave(const uint8_t* rows, uint8_t* out) {
  for (size_t s = 0; s < kStripsOfBlock; ++s) {
    __m512i v[16], w[16];
    for (size_t i = 0; i < 16; ++i) v[i] = _mm512_load_si512(rows + i * kTrellisBlock + s * 64);
    for (size_t i = 0; i < 16; i += 4) {
      const __m512i a = _mm512_unpacklo_epi32(v[i], v[i + 1]), b = _mm512_unpackhi_epi32(v[i], v[i + 1]);
      const __m512i c = _mm512_unpacklo_epi32(v[i + 2], v[i + 3]),
                    d = _mm512_unpackhi_epi32(v[i + 2], v[i + 3]);
      w[i] = _mm512_unpacklo_epi64(a, c);
      w[i + 1] = _mm512_unpackhi_epi64(a, c);
      w[i + 2] = _mm512_unpacklo_epi64(b, d);
      w[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    // w[4 g + j] has in quarter l column group 4 l + j of rows 4 g to 4 g + 3.
    for (size_t j = 0; j < 4; ++j) {
      const __m512i a = _mm512_shuffle_i32x4(w[j], w[4 + j], 0x88),
                    b = _mm512_shuffle_i32x4(w[j], w[4 + j], 0xDD);
      const __m512i c = _mm512_shuffle_i32x4(w[8 + j], w[12 + j], 0x88),
                    d = _mm512_shuffle_i32x4(w[8 + j], w[12 + j], 0xDD);
      uint8_t* to = out + (s * 16 + j) * 64;
      _mm512_store_si512(to, _mm512_shuffle_i32x4(a, c, 0x88));
      _mm512_store_si512(to + 4 * 64, _mm512_shuffle_i32x4(b, d, 0x88));
      _mm512_store_si512(to + 8 * 64, _mm512_shuffle_i32x4(a, c, 0xDD));
      _mm512_store_si512(to + 12 * 64, _mm512_shuffle_i32x4(b, d, 0xDD));
    }
  }
}

// sums[t][r] of kGroups times 16 rows and kTokens tokens.
template <size_t kGroups, size_t kTokens>
inline void MultiplyGroups(const uint8_t* levels, const int8_t* x, size_t x_stride, const float* scales,
                           const int32_t* value_sums, size_t blocks, int offset, float* sums, size_t stride,
                           size_t rows) {
  __m512i acc[kTokens][kGroups];
#pragma GCC unroll 8
  for (size_t t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (size_t g = 0; g < kGroups; ++g) acc[t][g] = _mm512_set1_epi32(-offset * value_sums[t * blocks]);
  }
  for (size_t c = 0; c < kTrellisBlock / 4; ++c) {
    __m512i w[kGroups];
#pragma GCC unroll 2
    for (size_t g = 0; g < kGroups; ++g) w[g] = _mm512_load_si512(levels + g * 16 * kTrellisBlock + c * 64);
#pragma GCC unroll 8
    for (size_t t = 0; t < kTokens; ++t) {
      int32_t four;
      std::memcpy(&four, x + t * x_stride + 4 * c, sizeof(four));
      const __m512i values = _mm512_set1_epi32(four);
#pragma GCC unroll 2
      for (size_t g = 0; g < kGroups; ++g) AddProducts(acc[t][g], w[g], values);
    }
  }
#pragma GCC unroll 8
  for (size_t t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (size_t g = 0; g < kGroups; ++g) {
      const size_t count = std::min<size_t>(16, rows - 16 * g);
      const __mmask16 mask = static_cast<__mmask16>((1u << count) - 1);
      float* to = sums + t * stride + 16 * g;
      const __m512 before = _mm512_maskz_loadu_ps(mask, to);
      _mm512_mask_storeu_ps(
          to, mask,
          _mm512_fmadd_ps(_mm512_set1_ps(scales[t * blocks]), _mm512_cvtepi32_ps(acc[t][g]), before));
    }
  }
}

using Groups = void (*)(const uint8_t*, const int8_t*, size_t, const float*, const int32_t*, size_t, int,
                        float*, size_t, size_t);
template <size_t kGroups>
constexpr Groups kGroupsOfTokens[kTokenBlock + 1] = {nullptr,
                                                     MultiplyGroups<kGroups, 1>,
                                                     MultiplyGroups<kGroups, 2>,
                                                     MultiplyGroups<kGroups, 3>,
                                                     MultiplyGroups<kGroups, 4>,
                                                     MultiplyGroups<kGroups, 5>,
                                                     MultiplyGroups<kGroups, 6>,
                                                     MultiplyGroups<kGroups, 7>,
                                                     MultiplyGroups<kGroups, 8>};

// Many tokens. tiles: null where there are none.
template <int kWidth, typename Block>
void AddBlockOfMany(const Block& block, const Machine<kWidth>& machine, size_t rows,
                    const Int8Inputs& x, size_t first_token, size_t k, size_t blocks, int offset,
                    const Int8Tiles* tiles, MatrixView<float> y) {
  uint8_t* unpacked = Scratch<uint8_t, 71>(16 * kTrellisBlock);
  uint8_t* levels = Scratch<uint8_t, 72>(kUnpackedRows * kTrellisBlock);
  typename Block::States states(machine);
  for (size_t first = 0; first < rows; first += kUnpackedRows) {
    const size_t count = std::min(kUnpackedRows, rows - first);
    const size_t groups = (count + 15) / 16;
    for (size_t g = 0; g < groups; ++g) {
      const size_t of_group = std::min<size_t>(16, count - 16 * g);
      for (size_t i = 0; i < 16; ++i) {
        __m512i level[4];
        if (i < of_group) {
          block.Row(first + 16 * g + i, machine, states, level);
        } else {
          for (__m512i& zero : level) zero = _mm512_setzero_si512();
        }
        for (size_t s = 0; s < 4; ++s) _mm512_store_si512(unpacked + i * kTrellisBlock + s * 64, level[s]);
      }
      Interleave(unpacked, levels + g * 16 * kTrellisBlock);
    }
    size_t done = 0;
    for (; tiles != nullptr && done + kInt8Tile <= y.rows;) {
      const size_t token_tiles = std::min<size_t>(2, (y.rows - done) / kInt8Tile), at = (first_token + done) * blocks + k;
      const Int8Block of_block{x.values.data() + (first_token + done) * x.stride + k * kTrellisBlock, x.stride,
                               x.scales.data() + at, x.sums.data() + at, blocks};
      for (size_t g = 0; g < groups; g += 2) {
        tiles->Add(token_tiles, std::min<size_t>(2, groups - g), levels + g * 16 * kTrellisBlock, of_block, offset,
                   y.row(done) + first + 16 * g, y.stride, count - 16 * g);
      }
      done += token_tiles * kInt8Tile;
    }
    for (size_t t = done; t < y.rows; t += kTokenBlock) {
      const size_t tokens = std::min(kTokenBlock, y.rows - t);
      const int8_t* values = x.values.data() + (first_token + t) * x.stride + k * kTrellisBlock;
      const size_t at = (first_token + t) * blocks + k;
      for (size_t g = 0; g < groups; g += 2) {
        const Groups multiply = g + 1 < groups ? kGroupsOfTokens<2>[tokens] : kGroupsOfTokens<1>[tokens];
        multiply(levels + g * 16 * kTrellisBlock, values, x.stride, x.scales.data() + at, x.sums.data() + at,
                 blocks, offset, y.row(t) + first + 16 * g, y.stride, count - 16 * g);
      }
    }
  }
}

template <int kWidth>
void MultiplyWidth(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first,
                   const Int8Tiles* tiles, MatrixView<float> y) {
  const TrellisLayout& layout = w.layout;
  const size_t rows = layout.RowsOf(tile), blocks = layout.blocks();
  const Machine<kWidth> machine(w.tables, layout.states);
  const int offset = kWidth == 8 ? 128 : w.tables.offset;
  for (size_t t = 0; t < y.rows; ++t) std::fill_n(y.row(t), rows, 0.0f);
  for (size_t k = 0; k < blocks; ++k) {
    const uint8_t* bytes = w.codes.data() + layout.Begin(tile, k);
    const auto add = [&](const auto& block) {
      if (y.rows == 2) {
        const size_t at = first * blocks + k;
        AddBlock<kWidth>(block, machine, rows,
                         x.rounded.values.data() + first * x.rounded.stride + k * kTrellisBlock,
                         x.rounded.stride, x.rounded.scales.data() + at, x.rounded.sums.data() + at, blocks,
                         offset, y);
      } else {
        AddBlockOfMany<kWidth>(block, machine, rows, x.rounded, first, k, blocks, offset, tiles, y);
      }
    };
    const size_t strips = layout.StripsOf(k);
    if (strips == kStripsOfBlock) {
      add(WholeBlock<kWidth>(bytes, rows));
    } else {
      add(LastBlock<kWidth>(bytes, strips));
    }
  }
  AddBesideByVbmi(w, tile, x, first, y);
}

void MultiplyVbmi(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first,
                  MatrixView<float> y) {
  WithTrellisWidth(w.layout.width, [&](auto width) { MultiplyWidth<width()>(w, tile, x, first, nullptr, y); });
}

void MultiplyVbmiAndTiles(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first,
                          MatrixView<float> y) {
  if (y.rows < kInt8Tile) return MultiplyVbmi(w, tile, x, first, y);
  const Int8Tiles tiles;
  WithTrellisWidth(w.layout.width, [&](auto width) { MultiplyWidth<width()>(w, tile, x, first, &tiles, y); });
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

TrellisKernel VbmiTrellisKernel() {
  const bool has = __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni") &&
                   __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma");
  return has ? MultiplyVbmi : nullptr;
}
TrellisKernel TileTrellisKernel() {
  return VbmiTrellisKernel() != nullptr && HasInt8Tiles() ? MultiplyVbmiAndTiles : nullptr;
}

}  // namespace mica

#else

namespace mica {

TrellisKernel VbmiTrellisKernel() { return nullptr; }
TrellisKernel TileTrellisKernel() { return nullptr; }

}  // namespace mica

#endif
