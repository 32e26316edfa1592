// Values that arithmetic cannot go on with, found before they spread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/matrix.h"

namespace mica {

// Index of the first value that is NaN or infinite, or values.size().
size_t FirstNotFinite(std::span<const float> values);

// Throws Error naming `what` and the place of the first value of a row that is NaN or infinite.
void CheckFinite(MatrixView<const float> values, std::string_view what);

// Throws Error naming `what` and the place of a value that FP16 does not hold (65504 at most). widths:
// [cols], looked at are the columns of 16 bits; empty: all. first_row: of the values in what they are called.
void CheckFitsHalf(MatrixView<const float> values, std::string_view what,
                   std::span<const uint8_t> widths = {}, size_t first_row = 0);

}  // namespace mica
