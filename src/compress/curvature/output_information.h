// What the final loss feels of the outputs of a matrix.
#pragma once

#include <vector>

#include "base/matrix.h"

namespace mica {

// What the final loss feels of the outputs of one matrix.
struct OutputInformation {
  std::vector<double> fisher;  // [rows] E[g_r^2]
  // [rows, block] E[g_r g_s] for the outputs s of the block of consecutive outputs that r is in (the last
  // block may be shorter; its columns beyond are not used); empty: not known.
  Matrix<float> moments;
};

}  // namespace mica
