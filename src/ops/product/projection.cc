#include "ops/product/projection.h"

#include <algorithm>

#include "base/error.h"
#include "ops/cuda_ops.h"
#include "ops/product/tiles.h"
#include "ops/rope/turn.h"
#include "ops/tile/dispatch.h"
#include "ops/tile/kernels.h"

namespace mica {
namespace {

// out[heads * tokens, head_dim] from one tile: row t of the tile is token first_token + t.
template <typename T>
void SplitHeads(const ProductTile& tile, const ConstTensor& bias, const RopeTable* rope, size_t window,
                size_t tokens, MatrixView<T> out) {
  const OperandKernels<T>& kernels = Kernels(Backend::kCpu).of<T>();
  const size_t head_dim = out.cols;
  tile.AddBias(bias);
  for (size_t t = 0; t < tile.tokens; ++t) {
    const size_t token = tile.first_token + t;
    for (size_t column = 0; column < tile.outputs; column += head_dim) {
      const float* values = tile.row(t) + column;
      T* target = out.row((tile.first_output + column) / head_dim * tokens + token);
      TurnHead<T>(kernels, values, rope, token % window, head_dim, target);
    }
  }
}

void Check(const ConstTensor& x, const Linear& linear, const Tensor& out) {
  const size_t head_dim = out.cols;
  MICA_CHECK(x.cols == linear.weights->inputs());
  MICA_CHECK(x.dtype == linear.weights->operands());
  MICA_CHECK(out.dtype == x.dtype);
  MICA_CHECK(out.rows * head_dim == x.rows * linear.weights->outputs());
  MICA_CHECK(linear.bias.empty() || linear.bias.cols == linear.weights->outputs());
  MICA_CHECK(x.device.is_cuda() || linear.weights->block_outputs(0) % head_dim == 0);
}

}  // namespace

size_t HeadBlockOutputs(size_t head_dim) { return std::max<size_t>(1, kBlockOutputs / head_dim) * head_dim; }

void ProjectHeads(ConstTensor x, const Linear& q, const Linear& k, const Linear& v, const RopeTable* q_rope,
                  const RopeTable* k_rope, size_t window, Tensor q_out, Tensor k_out, Tensor v_out) {
  MICA_CHECK(window > 0);
  MICA_CHECK(x.rows % window == 0);
  for (const RopeTable* rope : {q_rope, k_rope})
    MICA_CHECK(x.rows == 0 || rope == nullptr || rope->positions() >= window);
  Check(x, q, q_out);
  Check(x, k, k_out);
  Check(x, v, v_out);
  if (x.device.is_cuda()) return Cuda().ProjectHeads(x, q, k, v, q_rope, k_rope, window, q_out, k_out, v_out);
  DispatchOperand(x.dtype, [&](auto type) {
    using T = decltype(type);
    const MatrixView<T> heads[] = {q_out.host<T>(), k_out.host<T>(), v_out.host<T>()};
    const ConstTensor biases[] = {q.bias, k.bias, v.bias};
    const RopeTable* turns[] = {q_rope, k_rope, nullptr};
    MultiplyTiles(x, {q.weights, k.weights, v.weights}, [&](const ProductTile& tile) {
      SplitHeads(tile, biases[tile.matrix], turns[tile.matrix], window, x.rows, heads[tile.matrix]);
    });
  });
}

}  // namespace mica
