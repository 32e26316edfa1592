#include "ops/product/product.h"

#include <algorithm>

#include "base/error.h"
#include "ops/cuda_ops.h"
#include "ops/product/tiles.h"
#include "ops/tile/kernels.h"

namespace mica {
namespace {

void Check(const ConstTensor& x, const PreparedWeights& w, const ConstTensor& bias, const Tensor& y) {
  MICA_CHECK(x.dtype == w.operands());
  MICA_CHECK(y.rows == x.rows);
  MICA_CHECK(y.cols == w.outputs());
  MICA_CHECK(bias.empty() || (bias.rows == 1 && bias.cols == w.outputs()));
}

// put(product, outputs, place in y) for each row of a tile.
template <typename Put>
void MultiplyInto(const ConstTensor& x, const PreparedWeights& w, const ConstTensor& bias, const Tensor& y,
                  const Put& put) {
  const MatrixView<float> out = y.host<float>();
  const MatrixView<const float> of_outputs = bias.host<float>();
  MultiplyTiles(x, {&w}, [&](const ProductTile& tile) {
    for (size_t t = 0; t < tile.tokens; ++t) {
      float* target = out.row(tile.first_token + t) + tile.first_output;
      put(tile.row(t), tile.outputs, target);
      if (!bias.empty()) {
        Kernels(Backend::kCpu).add(of_outputs.data + tile.first_output, tile.outputs, target);
      }
    }
  });
}

}  // namespace

void Multiply(ConstTensor x, const PreparedWeights& w, ConstTensor bias, Tensor y) {
  Check(x, w, bias, y);
  if (x.device.is_cuda()) return Cuda().Multiply(x, w, bias, y);
  MultiplyInto(x, w, bias, y, Kernels(Backend::kCpu).f32.from_f32);
}

void MultiplyAdd(ConstTensor x, const PreparedWeights& w, ConstTensor bias, Tensor y) {
  Check(x, w, bias, y);
  if (x.device.is_cuda()) return Cuda().MultiplyAdd(x, w, bias, y);
  MultiplyInto(x, w, bias, y, Kernels(Backend::kCpu).add);
}

}  // namespace mica
