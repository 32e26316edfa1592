// The small vectors of coding `entropy` beside the integers: steps, classes and keys of rows and columns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "format/entropy/entropy_matrix.h"

namespace mica {

// Classes are coded relative to what the steps predict: four classes less for each octave of the step,
// rounded up.
inline int PredictedClass(int step, int resolution) {
  return -((4 * step) >> (resolution == kStepResolution ? 3 : 6));
}

// What stands at the head of L.side.
struct SideHeader {
  // Of row steps, row classes, row keys, column steps, column classes; one is not used.
  int16_t base[6];     // subtracted before coding
  uint32_t tables[5];  // PackKnot of their frequency tables
};
static_assert(sizeof(SideHeader) == 32);

std::vector<std::byte> EncodeSide(const EntropyFrame& frame);
// Fills row_step, row_class, row_key, col_step and col_class of a frame whose rows, cols and row_resolution
// are set; false when the bytes are not such a stream or a step is out of range.
bool DecodeSide(std::span<const std::byte> bytes, EntropyFrame& frame);

}  // namespace mica
