#include "compress/inform/column_exponents.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/census/census.h"

namespace mica {
namespace {

constexpr double kFarOctaves = 3;
constexpr int kMostOctaves = 60;
constexpr double kNothing = -std::numeric_limits<double>::infinity();

// The upper one of two in the middle; changes the order.
double Median(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

std::vector<int8_t> ColumnExponents(ConstTensor w) {
  // log2 of the median size of what is not 0: one weight that dwarfs its column says nothing of the others.
  std::vector<double> octaves(w.cols, kNothing);
  const std::vector<float> medians = ColumnMedians(w);
  for (size_t c = 0; c < w.cols; ++c) {
    if (medians[c] != 0) octaves[c] = std::log2(double{medians[c]});
  }
  std::vector<double> sorted;
  for (const double octave : octaves) {
    if (octave > kNothing) sorted.push_back(octave);
  }
  if (sorted.empty()) return {};
  const double usual = Median(sorted);
  std::vector<int8_t> exponents(w.cols, 0);
  bool any = false;
  for (size_t c = 0; c < w.cols; ++c) {
    const double off = octaves[c] - usual;
    if (octaves[c] == kNothing || std::abs(off) <= kFarOctaves) continue;
    exponents[c] =
        static_cast<int8_t>(std::clamp(static_cast<int>(std::lround(off)), -kMostOctaves, kMostOctaves));
    any = true;
  }
  return any ? exponents : std::vector<int8_t>();
}

}  // namespace mica
