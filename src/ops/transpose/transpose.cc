#include "ops/transpose/transpose.h"

#include <algorithm>

#include "base/threads.h"
#include "ops/cuda_ops.h"

namespace mica {

Array Transposed(ConstTensor in) {
  if (in.device.is_cuda()) return Cuda().Transposed(in);
  constexpr size_t kBlock = 32;  // 32 x 32 FP32 in and out stay in the first-level cache
  Array result(in.cols, in.rows, DType::kF32);
  const MatrixView<const float> from = in.host<float>();
  const MatrixView<float> out = result.view().host<float>();
  ParallelFor((in.cols + kBlock - 1) / kBlock, [&](size_t part) {
    const size_t first_col = part * kBlock, end_col = std::min(in.cols, first_col + kBlock);
    for (size_t first_row = 0; first_row < in.rows; first_row += kBlock) {
      const size_t end_row = std::min(in.rows, first_row + kBlock);
      for (size_t c = first_col; c < end_col; ++c) {
        for (size_t r = first_row; r < end_row; ++r) out(c, r) = from(r, c);
      }
    }
  });
  return result;
}

}  // namespace mica
