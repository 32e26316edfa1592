// What stands beside the codes of a matrix of trellis integers, by AVX2: exceptions and columns that are
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

// The eight sums of either token, in the order of MultiplyTrellisRef: in the two lowest lanes.
MICA_ONE_BODY __m128 SumsOf(__m256 one, __m256 other) {
  const __m256 pairs = _mm256_hadd_ps(one, other), fours = _mm256_hadd_ps(pairs, pairs);
  return _mm_add_ps(_mm256_castps256_ps128(fours), _mm256_extractf128_ps(fours, 1));
}

// Two values of one column, and of another above them.
MICA_ONE_BODY __m128 TwoAndTwo(const float* one, const float* other) {
  const __m128 low = _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(one)));
  return _mm_loadh_pi(low, reinterpret_cast<const __m64*>(other));
}

// Of two tokens, whose values stand together by column. Of eight sums the first takes the first, the ninth,
// ... of what there is.
void AddBesideOfTwo(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first,
                    MatrixView<float> y) {
  const size_t rows = w.layout.RowsOf(tile), taken = w.taken.size(), padded = (taken + 7) / 8 * 8;
  // Of the taken columns.
  float* of_taken = Scratch<float, 75>(2 * padded + 2);
  std::fill_n(of_taken, 2 * padded, 0.0f);
  const float* values = x.ValuesOf(0);
  for (size_t i = 0; i < taken; ++i) {
    of_taken[i] = values[2 * w.taken[i]];
    of_taken[padded + i] = values[2 * w.taken[i] + 1];
  }
  alignas(16) constexpr int16_t kFirst[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  // The last column of eight, in all of them.
  const __m128i last = _mm_set1_epi16(0x0F0E);
  const __m128i cols_mask = _mm_set1_epi16(kMostExceptionCols);
  const __m256 unit = _mm256_set1_ps(static_cast<float>(w.exception_unit));
  const TrellisWeights::Exceptions& exceptions = w.exceptions[tile];
  const TrellisException* items = exceptions.items.data();
  const TrellisException* const end = items + exceptions.items.size();
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
    const size_t count = exceptions.CountOf(r);
    __m128i col = _mm_setzero_si128();
    for (size_t i = 0; i < count; i += 8, items += std::min<size_t>(8, count - (i - 8))) {
      const size_t own = std::min<size_t>(8, count - i);
      __m128i item;
      if (end - items >= 8) {
        item = _mm_loadu_si128(reinterpret_cast<const __m128i*>(items));
      } else {
        alignas(16) TrellisException some[8] = {};
        std::copy_n(items, own, some);
        item = _mm_load_si128(reinterpret_cast<const __m128i*>(some));
      }
      // Those of the next row become zeros behind the last column.
      item = _mm_and_si128(item, _mm_loadu_si128(reinterpret_cast<const __m128i*>(kFirst + 8 - own)));
      __m128i sums = _mm_and_si128(item, cols_mask);
      sums = _mm_add_epi16(sums, _mm_slli_si128(sums, 2));
      sums = _mm_add_epi16(sums, _mm_slli_si128(sums, 4));
      sums = _mm_add_epi16(sums, _mm_slli_si128(sums, 8));
      sums = _mm_add_epi16(sums, col);
      col = _mm_shuffle_epi8(sums, last);
      alignas(16) uint16_t c[8];
      _mm_store_si128(reinterpret_cast<__m128i*>(c), sums);
      const auto two = [&](size_t j) __attribute__((always_inline)) {
        return TwoAndTwo(values + 2 * size_t{c[j]}, values + 2 * size_t{c[j + 1]});
      };
      const __m256 a = _mm256_insertf128_ps(_mm256_castps128_ps256(two(0)), two(4), 1);
      const __m256 b = _mm256_insertf128_ps(_mm256_castps128_ps256(two(2)), two(6), 1);
      const __m256 units = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_srai_epi16(item, kExceptionColBits)));
      add(_mm256_mul_ps(units, unit), _mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xDD));
    }
    alignas(16) float more[4];
    _mm_store_ps(more, SumsOf(lanes[0], lanes[1]));
    const float scale = w.row_scale[position];
    for (size_t t = 0; t < y.rows; ++t) y(t, r) = scale * (y(t, r) + more[first + t]);
  }
}

// What a tile's rows have beside their codes: columns and what their levels have more.
struct Exceptions {
  const uint32_t* cols;
  const float* levels;
  size_t count;
};
// Those of one row, whose entries begin at `items`, which then is behind them; of the last eight, those that
// there are not are zeros of column 0.
Exceptions OfRow(const TrellisWeights& w, size_t tile, size_t r, const TrellisException*& items,
                 uint32_t* cols, float* levels) {
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

// The same of more tokens, whose values stand `stride` apart by column: eight of them through all rows, so
// that their values stay in the second-level cache.
void AddBesideOfMany(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first,
                     MatrixView<float> y) {
  const size_t rows = w.layout.RowsOf(tile), taken = w.taken.size(), most = MostOfARow(w, tile);
  const size_t stride = x.value_stride();
  uint32_t* cols = Scratch<uint32_t, 74>(rows * most + 1);
  float* levels = Scratch<float, 74>(rows * most + 1);
  thread_local std::vector<Exceptions> of_rows;
  of_rows.clear();
  const TrellisException* items = w.exceptions[tile].items.data();
  for (size_t r = 0; r < rows; ++r)
    of_rows.push_back(OfRow(w, tile, r, items, cols + r * most, levels + r * most));
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
      _mm256_store_ps(
          more,
          _mm256_add_ps(_mm256_add_ps(_mm256_add_ps(lanes[0], lanes[1]), _mm256_add_ps(lanes[2], lanes[3])),
                        _mm256_add_ps(_mm256_add_ps(lanes[4], lanes[5]), _mm256_add_ps(lanes[6], lanes[7]))));
      const float scale = w.row_scale[position];
      for (size_t j = 0; j < tokens; ++j) y(t + j, r) = scale * (y(t + j, r) + more[j]);
    }
  }
}

#undef MICA_ONE_BODY

}  // namespace

void AddBesideByAvx2(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first,
                     MatrixView<float> y) {
  if (!x.values.empty())
    return x.tokens == 2 ? AddBesideOfTwo(w, tile, x, first, y) : AddBesideOfMany(w, tile, x, first, y);
  const size_t rows = w.layout.RowsOf(tile);
  const float* scales = w.row_scale.data() + tile * w.layout.tile_rows;
  for (size_t t = 0; t < y.rows; ++t) {
    for (size_t r = 0; r < rows; ++r) y(t, r) *= scales[r];
  }
}

}  // namespace mica

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
