#include "format/entropy/entropy_matrix.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "base/error.h"

namespace mica {

const Trellis& TrellisOf(int states) {
  static const Trellis kScalar = {{}, {}, 1};
  static const Trellis kFour = {{{{0, 2}, {2, 0}, {1, 3}, {3, 1}}}, {0, 0, 1, 1}, 2};
  static const Trellis kEight = {
      {{{0, 2}, {5, 7}, {1, 3}, {6, 4}, {2, 0}, {4, 6}, {3, 1}, {7, 5}}}, {0, 1, 0, 1, 0, 1, 0, 1}, 2};
  MICA_CHECK(states == 1 || states == 4 || states == 8);
  return states == 1 ? kScalar : states == 4 ? kFour : kEight;
}

std::vector<uint32_t> StoredRowOrder(const EntropyFrame& matrix) {
  std::vector<uint32_t> order(matrix.rows);
  std::iota(order.begin(), order.end(), 0u);
  if (!matrix.row_key.empty()) {
    std::stable_sort(order.begin(), order.end(),
                     [&](uint32_t a, uint32_t b) { return matrix.row_key[a] < matrix.row_key[b]; });
  }
  return order;
}

float EntropyStep(int exponent, int resolution) {
  // Square roots and products of doubles are correctly rounded everywhere, exp2 is not.
  static const std::array<float, kFineStepResolution> kFractions = [] {
    std::array<float, kFineStepResolution> fractions{};
    for (size_t i = 0; i < kFineStepResolution; ++i) {
      double value = 1.0, root = 2.0;
      for (size_t bit = kFineStepResolution / 2; bit > 0; bit /= 2) {
        root = std::sqrt(root);
        if ((i & bit) != 0) value *= root;
      }
      fractions[i] = static_cast<float>(value);
    }
    return fractions;
  }();
  MICA_CHECK(resolution == kStepResolution || resolution == kFineStepResolution);
  MICA_CHECK(std::abs(exponent) <= kMaxStepOctaves * resolution);
  const int fine = exponent * (kFineStepResolution / resolution);
  // Fractions lie from 1 to 2: no exponent leaves those of normal numbers.
  const float fraction = kFractions[static_cast<size_t>(fine & (kFineStepResolution - 1))];
  return std::bit_cast<float>(std::bit_cast<uint32_t>(fraction) + (static_cast<uint32_t>(fine >> 6) << 23));
}

void DecodeTile(const EntropyMatrix& matrix, std::span<const uint32_t> order, size_t tile,
                MatrixView<float> out) {
  MICA_CHECK(out.rows == matrix.rows);
  MICA_CHECK(out.cols == matrix.cols);
  MICA_CHECK(order.size() == matrix.rows);
  const Trellis& trellis = TrellisOf(matrix.states);
  std::vector<uint8_t> states(matrix.cols, 0);
  std::vector<float> col_steps;
  for (const int16_t step : matrix.col_step) col_steps.push_back(EntropyStep(step, kStepResolution));
  const size_t end = std::min(matrix.rows, (tile + 1) * matrix.tile_rows);
  for (size_t p = tile * matrix.tile_rows; p < end; ++p) {
    const size_t r = order[p];
    const float row_step = EntropyStep(matrix.row_step[r], matrix.row_resolution);
    for (size_t c = 0; c < matrix.cols; ++c) {
      const int n = matrix.n(r, c);
      const int level = trellis.Level(n, trellis.quantiser[states[c]]);
      states[c] = trellis.next[states[c]][static_cast<size_t>(std::abs(n) & 1)];
      out(r, c) = static_cast<float>(level) * (row_step * col_steps[c]);
    }
  }
}
}  // namespace mica
