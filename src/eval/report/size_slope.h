// What a smaller and a larger file would cost, from the slope of the loss.
#pragma once

#include <optional>

#include "eval/report/comparison.h"

namespace mica {

// By which a loss falls with each bit where nothing was measured but one file.
inline constexpr double kUsualLossFactor = 4.5;

// Of a comparison whose sets and compression are filled; absent where size, number of weights or a positive loss is not
// known. The slope is that of the compressions of a search for quality (record/compression.h) where there were
// several, else the usual one.
std::optional<SizeSlope> SlopeOf(const Comparison& comparison);

}  // namespace mica
