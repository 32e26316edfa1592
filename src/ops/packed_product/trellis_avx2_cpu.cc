// Products with trellis integers by AVX2: products of bytes are summed in 16 bits as long as they fit.
#include "ops/packed_product/trellis_form.h"

#if (defined(__x86_64__)) && (defined(__GNUC__) || defined(__clang__))

#include "ops/packed_product/trellis_avx2_rows.h"

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

using namespace trellis_avx2;

#define MICA_ONE_BODY [[gnu::always_inline]] inline

// Pairs of products of levels with values, 16 bits each.
template <int kWidth>
MICA_ONE_BODY __m256i Pairs(__m256i level, __m256i values) {
  // Levels of width 8 are signed.
  if constexpr (kWidth == 8)
    return _mm256_maddubs_epi16(_mm256_abs_epi8(level), _mm256_sign_epi8(values, level));
  return _mm256_maddubs_epi16(level, values);
}

// [i] the sum of all of v[i].
MICA_ONE_BODY __m256i SumsOf(const __m256i* v) {
  __m256i of_four[2];
  for (int i = 0; i < 2; ++i, v += 4) {
    const __m256i low =
        _mm256_add_epi32(_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]));
    const __m256i high =
        _mm256_add_epi32(_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
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
  const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                                          _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
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
void AddBlock(const Block& block, const Tables<kWidth>& tables, States states, size_t rows,
              const BlockInputs& x, int offset, MatrixView<float> sums) {
  constexpr size_t kTokens = 2, kDepth = DepthOf(kWidth);
  alignas(32) __m256i products[kTokens][kRowsTogether], quantisers[kChunkRows] = {};
  const __m256i ones = _mm256_set1_epi16(1);
  for (size_t chunk = 0; chunk < rows; chunk += kChunkRows) {
    const size_t of_chunk = std::min(kChunkRows, rows - chunk);
    const WholeBlock<kWidth> own = block.Rows(chunk, of_chunk);
    if constexpr (kWidth < 8)
      states.Quantisers(
          of_chunk, [&](size_t r) __attribute__((always_inline)) { return own.Parities(r); }, quantisers);
    for (size_t first = 0; first < of_chunk; first += kRowsTogether) {
      const size_t count = std::min(kRowsTogether, of_chunk - first);
      for (size_t r = 0; r < count; ++r) {
        own.Prefetch(first + r);
        __m256i sum[kTokens], pairs[kTokens];
        size_t taken = 0;
        own.Row(
            first + r, quantisers[first + r],
            tables, [&](size_t v, __m256i level) __attribute__((always_inline)) {
#pragma GCC unroll 2
              for (size_t t = 0; t < kTokens; ++t) {
                const __m256i more = Pairs<kWidth>(level, Load(x.values + t * x.stride + v * kBytes));
                pairs[t] = taken % kDepth == 0 ? more : _mm256_add_epi16(pairs[t], more);
                if ((taken + 1) % kDepth != 0) continue;
                const __m256i wide = _mm256_madd_epi16(pairs[t], ones);
                sum[t] = taken < kDepth ? wide : _mm256_add_epi32(sum[t], wide);
              }
              ++taken;
            });
#pragma GCC unroll 2
        for (size_t t = 0; t < kTokens; ++t) products[t][r] = sum[t];
      }
      for (size_t t = 0; t < kTokens; ++t) {
        for (size_t r = count; r < (count + 7) / 8 * 8; ++r) products[t][r] = _mm256_setzero_si256();
        const __m256i own_offset = _mm256_set1_epi32(offset * x.sums[t * x.blocks]);
        const __m256 scale = _mm256_set1_ps(x.scales[t * x.blocks]);
        for (size_t r = 0; r < count; r += 8)
          AddScaled(SumsOf(products[t] + r), own_offset, scale, count - r, sums.row(t) + chunk + first + r);
      }
    }
  }
}

// Rows whose levels are unpacked at once: with four columns of eight rows together they stay in the
// first-level cache.
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
      const __m256i d = _mm256_unpacklo_epi32(v[i + 2], v[i + 3]),
                    e = _mm256_unpackhi_epi32(v[i + 2], v[i + 3]);
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
void MultiplyGroups(const uint8_t* levels, const BlockInputs& x, int offset, size_t rows, float* sums,
                    size_t stride) {
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
void AddBlockOfMany(const Block& block, const Tables<kWidth>& tables, States states, size_t rows,
                    const BlockInputs& x, int offset, MatrixView<float> y) {
  uint8_t* unpacked = Scratch<uint8_t, 71>(kUnpackedRows * kTrellisBlock);
  uint8_t* levels = Scratch<uint8_t, 72>(kUnpackedRows * kTrellisBlock);
  alignas(32) __m256i quantisers[kChunkRows] = {};
  for (size_t first = 0; first < rows; first += kUnpackedRows) {
    const size_t count = std::min(kUnpackedRows, rows - first),
                 groups = (count + kGroupRows - 1) / kGroupRows;
    for (size_t chunk = 0; chunk < count; chunk += kChunkRows) {
      const size_t of_chunk = std::min(kChunkRows, count - chunk);
      const WholeBlock<kWidth> own = block.Rows(first + chunk, of_chunk);
      if constexpr (kWidth < 8)
        states.Quantisers(
            of_chunk, [&](size_t r) __attribute__((always_inline)) { return own.Parities(r); }, quantisers);
      for (size_t r = 0; r < of_chunk; ++r) {
        uint8_t* to = unpacked + (chunk + r) * kTrellisBlock;
        own.Row(
            r, quantisers[r], tables, [&](size_t v, __m256i level) __attribute__((always_inline)) {
              Store(to + v * kBytes, level);
            });
      }
    }
    std::memset(unpacked + count * kTrellisBlock, 0, (groups * kGroupRows - count) * kTrellisBlock);
    for (size_t g = 0; g < groups; ++g) Interleave(unpacked + g * kGroupBytes, levels + g * kGroupBytes);
    for (size_t t = 0; t < y.rows; t += kTokenBlock) {
      const size_t tokens = std::min(kTokenBlock, y.rows - t);
      const BlockInputs own = {x.values + t * x.stride, x.stride, x.scales + t * x.blocks,
                               x.sums + t * x.blocks, x.blocks};
      for (size_t g = 0; g < groups; g += kGroupBlock) {
        const Groups multiply =
            g + 1 < groups ? kGroupsOfTokens<kWidth, 2>[tokens] : kGroupsOfTokens<kWidth, 1>[tokens];
        multiply(levels + g * kGroupBytes, own, offset, count - g * kGroupRows,
                 y.row(t) + first + g * kGroupRows, y.stride);
      }
    }
  }
}

template <int kWidth>
void MultiplyWidth(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first,
                   MatrixView<float> y) {
  const TrellisLayout& layout = w.layout;
  const size_t rows = layout.RowsOf(tile), blocks = layout.blocks();
  const Tables<kWidth> tables(layout.states);
  const States states(layout.states);
  const int offset = kWidth == 8 ? 0 : w.tables.offset;
  for (size_t t = 0; t < y.rows; ++t) std::fill_n(y.row(t), rows, 0.0f);
  for (size_t k = 0; k < blocks; ++k) {
    const uint8_t* bytes = w.codes.data() + layout.Begin(tile, k);
    const size_t at = first * blocks + k;
    const BlockInputs own = {x.rounded.values.data() + first * x.rounded.stride + k * kTrellisBlock,
                             x.rounded.stride, x.rounded.scales.data() + at, x.rounded.sums.data() + at,
                             blocks};
    const auto add = [&](const auto& block) {
      if (y.rows == 2) {
        AddBlock<kWidth>(block, tables, states, rows, own, offset, y);
      } else {
        AddBlockOfMany<kWidth>(block, tables, states, rows, own, offset, y);
      }
    };
    const size_t strips = layout.StripsOf(k);
    if (strips == kStripsOfBlock) {
      add(WholeBlock<kWidth>(bytes, rows));
    } else {
      add(LastBlock<kWidth>(bytes, strips));
    }
  }
  AddBesideByAvx2(w, tile, x, first, y);
}

void MultiplyAvx2(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first,
                  MatrixView<float> y) {
  WithTrellisWidth(w.layout.width, [&](auto width) { MultiplyWidth<width()>(w, tile, x, first, y); });
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
