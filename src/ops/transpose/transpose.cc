#include "ops/transpose/transpose.h"

#include <algorithm>

#include "base/threads.h"

namespace mica {

Matrix<float> Transposed(MatrixView<const float> in) {
  constexpr size_t kBlock = 32;  // 32 x 32 FP32 in and out stay in the first-level cache
  Matrix<float> out(in.cols, in.rows);
  ParallelFor((in.cols + kBlock - 1) / kBlock, [&](size_t part) {
    const size_t first_col = part * kBlock, end_col = std::min(in.cols, first_col + kBlock);
    for (size_t first_row = 0; first_row < in.rows; first_row += kBlock) {
      const size_t end_row = std::min(in.rows, first_row + kBlock);
      for (size_t c = first_col; c < end_col; ++c) {
        for (size_t r = first_row; r < end_row; ++r) out(c, r) = in(r, c);
      }
    }
  });
  return out;
}

}  // namespace mica
