#include "base/finite.h"

#include <cmath>

#include "base/error.h"
#include "base/threads.h"

namespace mica {

void CheckFinite(MatrixView<const float> values, std::string_view what) {
  ParallelFor(values.rows, [&](size_t r) {
    const float* row = values.row(r);
    float sum = 0;  // of zeros, unless a value is not finite
    for (size_t c = 0; c < values.cols; ++c) sum += row[c] * 0.0f;
    if (sum == 0.0f) return;
    for (size_t c = 0; c < values.cols; ++c) {
      if (!std::isfinite(row[c]))
        Fail("{}: row {}, column {} is {}, expected a finite number", what, r, c, row[c]);
    }
  });
}

void CheckFitsHalf(MatrixView<const float> values, std::string_view what, std::span<const uint8_t> widths) {
  MICA_CHECK(widths.empty() || widths.size() == values.cols);
  constexpr float kRoundsToInfinity = 65520.0f;  // half a step above the largest
  ParallelFor(values.rows, [&](size_t r) {
    for (size_t c = 0; c < values.cols; ++c) {
      if ((widths.empty() || widths[c] == 16) && !(std::fabs(values(r, c)) < kRoundsToInfinity)) {
        Fail("{}: row {}, column {} is {}, but 16 bits (FP16) hold 65504 at most; give it fewer bits", what,
             r, c, values(r, c));
      }
    }
  });
}

}  // namespace mica
