#include "compress/inform/column_exponents.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/threads.h"

namespace mica {
namespace {

constexpr double kFarOctaves = 3;
constexpr int kMostOctaves = 60;
constexpr double kNothing = -std::numeric_limits<double>::infinity();

}  // namespace

std::vector<int8_t> ColumnExponents(MatrixView<const float> w) {
  constexpr size_t kColumns = 64;
  std::vector<double> octaves(w.cols);  // log2 of the RMS
  ParallelFor((w.cols + kColumns - 1) / kColumns, [&](size_t block) {
    const size_t first = block * kColumns, count = std::min(kColumns, w.cols - first);
    double sums[kColumns] = {};
    for (size_t r = 0; r < w.rows; ++r) {
      const float* row = w.row(r) + first;
      for (size_t c = 0; c < count; ++c) sums[c] += double{row[c]} * row[c];
    }
    for (size_t c = 0; c < count; ++c)
      octaves[first + c] = sums[c] > 0 ? 0.5 * std::log2(sums[c] / static_cast<double>(w.rows)) : kNothing;
  });
  std::vector<double> sorted;
  for (const double octave : octaves) {
    if (octave > kNothing) sorted.push_back(octave);
  }
  if (sorted.empty()) return {};
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  std::vector<int8_t> exponents(w.cols, 0);
  bool any = false;
  for (size_t c = 0; c < w.cols; ++c) {
    const double off = octaves[c] - *middle;
    if (octaves[c] == kNothing || std::abs(off) <= kFarOctaves) continue;
    exponents[c] =
        static_cast<int8_t>(std::clamp(static_cast<int>(std::lround(off)), -kMostOctaves, kMostOctaves));
    any = true;
  }
  return any ? exponents : std::vector<int8_t>();
}

}  // namespace mica
