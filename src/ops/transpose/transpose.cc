#include "ops/transpose/transpose.h"

#include <algorithm>

#include "base/error.h"
#include "base/threads.h"
#include "ops/cuda_ops.h"
#include "ops/tile/dispatch.h"

namespace mica {
namespace {

template <typename T>
void TransposeOnHost(MatrixView<const T> in, MatrixView<T> out) {
  constexpr size_t kBlock = 32;  // 32 x 32 FP32 in and out stay in the first-level cache
  ParallelFor((in.cols + kBlock - 1) / kBlock, [&](size_t part) {
    const size_t first_col = part * kBlock, end_col = std::min(in.cols, first_col + kBlock);
    for (size_t first_row = 0; first_row < in.rows; first_row += kBlock) {
      const size_t end_row = std::min(in.rows, first_row + kBlock);
      for (size_t c = first_col; c < end_col; ++c) {
        for (size_t r = first_row; r < end_row; ++r) out(c, r) = in(r, c);
      }
    }
  });
}

}  // namespace

void Transpose(ConstTensor in, Tensor out) {
  MICA_CHECK(in.rows == out.cols);
  MICA_CHECK(in.cols == out.rows);
  MICA_CHECK(in.dtype == out.dtype);
  if (out.device.is_cuda()) return Cuda().Transpose(in, out);
  DispatchFloat(in.dtype, [&](auto type) {
    using T = decltype(type);
    TransposeOnHost<T>(in.host<T>(), out.host<T>());
  });
}

Array Transposed(ConstTensor in) {
  Array out(in.cols, in.rows, in.dtype, in.device);
  Transpose(in, out.view());
  return out;
}

}  // namespace mica
