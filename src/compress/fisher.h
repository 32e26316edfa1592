// How much the final loss feels each output of each matrix: diagonal Fisher information from a backward pass.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "base/progress.h"
#include "compress/calibration.h"
#include "kernels/matmul.h"
#include "model/weights.h"

namespace mica {

struct FisherInformation {
  // rows[layer][kind][r] = mean over tokens of the squared gradient of the summed negative log likelihood at
  // output r of that matrix; empty when no windows were asked for.
  std::vector<std::array<std::vector<double>, kLinearKinds.size()>> rows;
};

// Over the first `windows` calibration windows, with the text's own next tokens as labels (the empirical
// Fisher information).
FisherInformation MeasureFisher(const ModelWeights& weights, const Calibration& calibration, size_t windows,
                                Precision precision, Progress& progress);

}  // namespace mica
