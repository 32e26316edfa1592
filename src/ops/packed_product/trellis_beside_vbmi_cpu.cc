// What stands beside the codes of a matrix of trellis integers, by AVX-512: exceptions and columns that are
// taken out.
#include "ops/packed_product/trellis_form.h"

#if (defined(__x86_64__)) && (defined(__GNUC__) || defined(__clang__))

#if !defined(__clang__)
// False alarms on what GCC 12's intrinsics leave undefined (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "device/scratch.h"

#if defined(__clang__)
#pragma clang attribute push(                                                       \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")
#endif

namespace mica {
namespace {

// What holds vectors in arrays must become one body of code, or they go through memory.
#define MICA_ONE_BODY [[gnu::always_inline]] inline

// Lane i: the sum of lanes 0 to i.
inline __m128i RunningSums(__m128i v) {
  v = _mm_add_epi16(v, _mm_slli_si128(v, 2));
  v = _mm_add_epi16(v, _mm_slli_si128(v, 4));
  return _mm_add_epi16(v, _mm_slli_si128(v, 8));
}

// What is beside the codes of one row, for two tokens whose values stand side by side.
class BesideOfTwo {
 public:
  BesideOfTwo(const float* values, size_t stride, int unit)
      : values_(reinterpret_cast<const double*>(values)),
        shift_(_mm_cvtsi32_si128(std::countr_zero(stride))),
        unit_(_mm512_set1_ps(static_cast<float>(unit))) {}

  // Columns `cols` of these levels.
  MICA_ONE_BODY void AddTaken(const uint32_t* cols, const int16_t* levels, size_t count) {
    for (size_t i = 0; i < count; i += 8) {
      const __mmask8 mask = MaskOf(count - i);
      Add(mask, _mm256_maskz_loadu_epi32(mask, cols + i), Pairs(_mm_maskz_loadu_epi16(mask, levels + i)));
    }
  }
  MICA_ONE_BODY void AddExceptions(const TrellisException* items, size_t count) {
    __m128i last = _mm_setzero_si128();  // column of the entry before, in all lanes
    for (size_t i = 0; i < count; i += 8) {
      const __mmask8 mask = MaskOf(count - i);
      const __m128i item = _mm_maskz_loadu_epi16(mask, items + i);
      const __m128i skipped = _mm_and_si128(item, _mm_set1_epi16(kMostExceptionCols));
      const __m128i cols = _mm_add_epi16(last, RunningSums(skipped));
      last = _mm_shuffle_epi8(cols, _mm_set1_epi16(0x0F0E));
      Add(mask, _mm256_cvtepu16_epi32(cols), _mm512_mul_ps(Pairs(_mm_srai_epi16(item, kExceptionColBits)), unit_));
    }
  }
  // The sums of both, in the lowest lanes.
  MICA_ONE_BODY __m128 Sums() const {
    const __m512 pairs = _mm512_add_ps(lanes_, _mm512_permute_ps(lanes_, 0x4E));
    const __m256 low = _mm512_castps512_ps256(pairs), high = _mm512_extractf32x8_ps(pairs, 1);
    const __m128 low_sum = _mm_add_ps(_mm256_castps256_ps128(low), _mm256_extractf128_ps(low, 1));
    return _mm_add_ps(low_sum, _mm_add_ps(_mm256_castps256_ps128(high), _mm256_extractf128_ps(high, 1)));
  }

 private:
  static __mmask8 MaskOf(size_t left) { return static_cast<__mmask8>((1u << std::min<size_t>(8, left)) - 1); }
  // Each of eight twice.
  static __m512 Pairs(__m128i v) {
    const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    return _mm512_cvtepi32_ps(_mm512_permutexvar_epi32(twice, _mm512_castsi256_si512(_mm256_cvtepi16_epi32(v))));
  }
  MICA_ONE_BODY void Add(__mmask8 mask, __m256i cols, __m512 levels) {
    const __m512d of =
        _mm512_mask_i32gather_pd(_mm512_setzero_pd(), mask, _mm256_sll_epi32(cols, shift_), values_, 4);
    lanes_ = _mm512_fmadd_ps(levels, _mm512_castpd_ps(of), lanes_);
  }

  const double* values_;
  __m128i shift_;
  __m512 unit_, lanes_ = _mm512_setzero_ps();  // pairs: of items i, i + 8, ...
};

// Some of what is beside the codes of a row: of item i, where its column's values of sixteen tokens stand, and its level.
struct BesideItems {
  const uint32_t* at;
  const float* level;
  size_t count;
};

// sums[i % 8] += items for sixteen tokens.
MICA_ONE_BODY void AddItems(const BesideItems& items, const float* values, __m512 (&sums)[8]) {
  size_t i = 0;
  for (; i + 8 <= items.count; i += 8) {
#pragma GCC unroll 8
    for (size_t j = 0; j < 8; ++j)
      sums[j] = _mm512_fmadd_ps(_mm512_set1_ps(items.level[i + j]), _mm512_loadu_ps(values + items.at[i + j]), sums[j]);
  }
#pragma GCC unroll 7
  for (size_t j = 0; j < 7; ++j) {
    if (i + j >= items.count) break;
    sums[j] = _mm512_fmadd_ps(_mm512_set1_ps(items.level[i + j]), _mm512_loadu_ps(values + items.at[i + j]), sums[j]);
  }
}

// y[t, r] of all rows of a tile = a_r (y[t, r] + what is beside its codes), of many tokens. The items of all rows are
// decoded once; then sixteen tokens at a time, whose values stay in the second-level cache.
void AddBesideOfMany(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first, MatrixView<float> y) {
  constexpr uint32_t kTokens = 16;
  MICA_CHECK(x.value_stride() == kTokens);
  const size_t rows = w.layout.RowsOf(tile), taken = w.taken.size(), position = tile * w.layout.tile_rows;
  const TrellisWeights::Exceptions& exceptions = w.exceptions[tile];
  uint32_t* at = Scratch<uint32_t, 73>(exceptions.items.size() + rows * taken);
  float* level = Scratch<float, 74>(exceptions.items.size() + rows * taken);
  size_t n = 0;
  const TrellisException* item = exceptions.items.data();
  for (size_t r = 0; r < rows; ++r) {
    for (size_t i = 0; i < taken; ++i, ++n) {
      at[n] = w.taken[i] * kTokens;
      level[n] = static_cast<float>(w.taken_levels(position + r, i));
    }
    uint32_t col = 0;
    for (size_t i = 0; i < exceptions.CountOf(r); ++i, ++n, ++item) {
      col += static_cast<uint32_t>(ColsOf(*item));
      at[n] = col * kTokens;
      level[n] = static_cast<float>(UnitsOf(*item) * w.exception_unit);
    }
  }
  for (size_t t = 0; t < y.rows; t += kTokens) {
    const float* values = x.ValuesOf(first + t);
    const size_t tokens = std::min<size_t>(kTokens, y.rows - t);
    size_t begin = 0;
    for (size_t r = 0; r < rows; ++r) {
      const size_t count = exceptions.CountOf(r);
      __m512 sums[8];
#pragma GCC unroll 8
      for (__m512& sum : sums) sum = _mm512_setzero_ps();
      AddItems({at + begin, level + begin, taken}, values, sums);
      AddItems({at + begin + taken, level + begin + taken, count}, values, sums);
      begin += taken + count;
      alignas(64) float more[kTokens];
      _mm512_store_ps(more, _mm512_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])),
                                          _mm512_add_ps(_mm512_add_ps(sums[4], sums[5]), _mm512_add_ps(sums[6], sums[7]))));
      const float scale = w.row_scale[position + r];
      for (size_t i = 0; i < tokens; ++i) y(t + i, r) = scale * (y(t + i, r) + more[i]);
    }
  }
}

}  // namespace

void AddBesideByVbmi(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first,
                     MatrixView<float> y) {
  if (y.rows > 2) return AddBesideOfMany(w, tile, x, first, y);
  const TrellisLayout& layout = w.layout;
  const size_t rows = layout.RowsOf(tile);
  const TrellisWeights::Exceptions& exceptions = w.exceptions[tile];
  const TrellisException* items = exceptions.items.data();
  const size_t at = first % 2;  // of a pair of tokens
  MICA_CHECK(at + y.rows <= 2);
  const float* values = x.values.empty() ? nullptr : x.ValuesOf(first - at);
  for (size_t r = 0; r < rows; items += exceptions.CountOf(r), ++r) {
    const size_t position = tile * layout.tile_rows + r, count = exceptions.CountOf(r);
    BesideOfTwo beside(values, x.value_stride(), w.exception_unit);
    beside.AddTaken(w.taken.data(), w.taken.empty() ? nullptr : w.taken_levels.row(position), w.taken.size());
    beside.AddExceptions(items, count);
    const __m128 more = beside.Sums();
    const float scale = w.row_scale[position];
    const float of_two[] = {_mm_cvtss_f32(more), _mm_cvtss_f32(_mm_movehdup_ps(more))};
    for (size_t t = 0; t < y.rows; ++t) y(t, r) = scale * (y(t, r) + of_two[at + t]);
  }
}

#undef MICA_ONE_BODY

}  // namespace mica

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
