#include "ops/product/gated.h"

#include "base/error.h"
#include "ops/cuda_ops.h"
#include "ops/product/tiles.h"
#include "ops/tile/dispatch.h"
#include "ops/tile/kernels.h"

namespace mica {

void MultiplyGated(ConstTensor x, const Linear& gate, const Linear& up, Activation activation, Tensor out) {
  MICA_CHECK(out.rows == x.rows);
  MICA_CHECK(out.cols == gate.weights->outputs());
  MICA_CHECK(x.cols == gate.weights->inputs());
  MICA_CHECK(x.cols == up.weights->inputs());
  MICA_CHECK(x.dtype == gate.weights->operands());
  MICA_CHECK(x.dtype == up.weights->operands());
  if (x.device.is_cuda()) return Cuda().MultiplyGated(x, gate, up, activation, out);
  DispatchOperand(out.dtype, [&](auto type) {
    using T = decltype(type);
    const MatrixView<T> hidden = out.host<T>();
    const auto gated = Kernels(Backend::kCpu).of<T>().gated;
    MultiplyTilePairs(x, *gate.weights, *up.weights, [&](const ProductTile& g, const ProductTile& u) {
      g.AddBias(gate.bias);
      u.AddBias(up.bias);
      for (size_t t = 0; t < g.tokens; ++t) {
        gated(activation, g.row(t), u.row(t), g.outputs, hidden.row(g.first_token + t) + g.first_output);
      }
    });
  });
}

}  // namespace mica
