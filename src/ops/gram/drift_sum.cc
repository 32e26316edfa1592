#include "ops/gram/drift_sum.h"

#include <algorithm>

#include "base/error.h"
#include "base/matrix.h"
#include "base/threads.h"
#include "ops/cuda_ops.h"
#include "ops/tile/dispatch.h"
#include "ops/tile/tile_product.h"

namespace mica {
namespace {

constexpr size_t kDifferenceCols = 128;  // rows of the sum that one thread computes at a time

template <typename T>
void AddTokens(MatrixView<const T> original, MatrixView<const T> moved, MatrixView<const T> x,
               MatrixView<float> sum) {
  const size_t tokens = x.rows, cols = x.cols;
  Matrix<T> dense(tokens, cols);  // x without gaps between rows, as the product wants it
  ParallelFor((tokens + 255) / 256, [&](size_t block) {
    for (size_t t = block * 256; t < std::min(tokens, block * 256 + 256); ++t)
      std::copy_n(x.row(t), cols, dense.row(t));
  });
  ParallelFor((sum.rows + kDifferenceCols - 1) / kDifferenceCols, [&](size_t tile) {
    const size_t first = tile * kDifferenceCols, count = std::min(kDifferenceCols, sum.rows - first);
    Matrix<T> difference(tokens, count);
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t c = 0; c < count; ++c) {
        difference(t, c) = Narrow<T>(Widen(original(t, first + c)) - Widen(moved(t, first + c)));
      }
    }
    TileProductTransposedA(difference.data(), dense.data(), count, cols, tokens, true, sum.row(first));
  });
}

}  // namespace

void AddDriftSum(ConstTensor original, ConstTensor moved, ConstTensor x, Tensor sum) {
  MICA_CHECK(original.rows == x.rows);
  MICA_CHECK(moved.rows == x.rows);
  MICA_CHECK(x.cols == sum.cols);
  MICA_CHECK(original.cols == sum.rows);
  MICA_CHECK(moved.cols == sum.rows);
  MICA_CHECK(sum.stride == sum.cols);
  if (x.rows == 0) return;
  if (x.device.is_cuda()) return Cuda().AddDriftSum(original, moved, x, sum);
  DispatchOperand(x.dtype, [&](auto type) {
    using T = decltype(type);
    AddTokens<T>(original.host<T>(), moved.host<T>(), x.host<T>(), sum.host<float>());
  });
}

}  // namespace mica
