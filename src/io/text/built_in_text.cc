#include "io/text/built_in_text.h"

// Of built_in_text.S.
extern "C" const std::byte mica_calibration_text[];
extern "C" const std::byte mica_calibration_text_end[];

namespace mica {

std::span<const std::byte> BuiltInCalibrationText() {
  return {mica_calibration_text, mica_calibration_text_end};
}

}  // namespace mica
