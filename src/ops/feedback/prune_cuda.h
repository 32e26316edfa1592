// The mask of a block of columns on a CUDA device; included by *_cuda.cu only.
#pragma once

#include <cstdint>

#include "device/array.h"
#include "device/tensor.h"

namespace mica::cuda {

// Of the scores w^2 saliency row_importance of a block's weights the `count` smallest get keep 0, the others
// 1; of equal ones the first in column order, then row order.
class SmallestScores {
 public:
  // For blocks of up to `cols` columns of `rows` rows.
  SmallestScores(size_t cols, size_t rows, Device device);
  // w: [cols, rows] FP32; saliency: [cols], row_importance: [rows] or null, keep: [cols, rows], on the
  // device.
  void Prune(ConstTensor w, const float* saliency, const float* row_importance, uint64_t count,
             uint8_t* keep);

 private:
  Array scores_;  // [cols, rows]
  Array bins_;    // of the histogram; zero between passes
  Array ties_;    // [cols] scores that equal the threshold
  Array found_;   // Threshold
};

}  // namespace mica::cuda
