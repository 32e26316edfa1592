#include "model/layer_weights.h"

#include <utility>

#include "base/error.h"

namespace mica {

LayerWeights::LayerWeights(const ModelWeights& weights, size_t index)
    : weights_(&weights),
      index_(index),
      attention_norm_(weights.AttentionNorm(index)),
      mlp_norm_(weights.MlpNorm(index)) {
  for (const LinearKind kind : kLinearKinds) biases_[static_cast<size_t>(kind)] = weights.Bias(index, kind);
}

const Matrix<float>& LayerWeights::Linear(LinearKind kind) {
  const size_t k = static_cast<size_t>(kind);
  MICA_CHECK(!taken_[k]);
  if (linears_[k].empty()) linears_[k] = weights_->Linear(index_, kind);
  return linears_[k];
}

Matrix<float> LayerWeights::Take(LinearKind kind) {
  Linear(kind);
  const size_t k = static_cast<size_t>(kind);
  taken_[k] = true;
  return std::move(linears_[k]);
}

}  // namespace mica
