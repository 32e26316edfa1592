// What files in other programs' formats say of the compression that made them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "record/compression.h"

namespace mica {

// Keys and values: version of the program, settings, fingerprints of the original and of the calibration
// texts. Known before the run begins, so that their bytes can be counted.
std::vector<std::pair<std::string, std::string>> ProvenanceOf(const CompressionRecord& record);

}  // namespace mica
