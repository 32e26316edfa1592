// The text that models are calibrated on where no other is given: data/CALIBRATION.md says what it is made
// of.
#pragma once

#include <cstddef>
#include <span>

namespace mica {

// Zstandard data, as they are in data/calibration.txt.zst; part of the program.
std::span<const std::byte> BuiltInCalibrationText();

}  // namespace mica
