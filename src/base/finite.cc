#include "base/finite.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/error.h"
#include "base/threads.h"

namespace mica {

size_t FirstNotFinite(std::span<const float> values) {
  constexpr uint32_t kExponent = 0x7F800000u;
  const auto is_bad = [](float value) { return (std::bit_cast<uint32_t>(value) & kExponent) == kExponent; };
  uint32_t bad = 0;  // without a branch, as vector code
  for (const float value : values) bad |= is_bad(value) ? 1u : 0u;
  if (bad == 0) return values.size();
  return static_cast<size_t>(std::find_if(values.begin(), values.end(), is_bad) - values.begin());
}

void CheckFinite(MatrixView<const float> values, std::string_view what) {
  ParallelFor(values.rows, [&](size_t r) {
    const size_t c = FirstNotFinite({values.row(r), values.cols});
    if (c == values.cols) return;
    Fail("{}: row {}, column {} is {}, expected a finite number", what, r, c, values(r, c));
  });
}

void CheckFitsHalf(MatrixView<const float> values, std::string_view what, std::span<const uint8_t> widths,
                   size_t first_row) {
  MICA_CHECK(widths.empty() || widths.size() == values.cols);
  constexpr float kRoundsToInfinity = 65520.0f;  // half a step above the largest
  ParallelFor(values.rows, [&](size_t r) {
    for (size_t c = 0; c < values.cols; ++c) {
      if ((widths.empty() || widths[c] == 16) && !(std::fabs(values(r, c)) < kRoundsToInfinity)) {
        Fail("{}: row {}, column {} is {}, but 16 bits (FP16) hold 65504 at most; give it fewer bits", what,
             first_row + r, c, values(r, c));
      }
    }
  });
}

}  // namespace mica
