#include "model/layer_weights.h"

#include <utility>

#include "base/error.h"

namespace mica {

LayerWeights::LayerWeights(const ModelWeights& weights, size_t index, Device device)
    : weights_(&weights),
      index_(index),
      device_(device) {
  for (const NormKind norm : kNormKinds) norms_[static_cast<size_t>(norm)] = weights.Norm(index, norm);
  for (const LinearKind kind : kLinearKinds) biases_[static_cast<size_t>(kind)] = weights.Bias(index, kind);
}

const Array& LayerWeights::Linear(LinearKind kind) {
  const size_t k = static_cast<size_t>(kind);
  MICA_CHECK(!taken_[k]);
  if (linears_[k].empty()) linears_[k] = weights_->LinearOn(device_, index_, kind, DType::kF32);
  return linears_[k];
}

void LayerWeights::ReadAhead() {
  if (!device_.is_cuda()) return;
  for (const LinearKind kind : kLinearKinds) Linear(kind);
}

Array LayerWeights::Take(LinearKind kind) {
  Linear(kind);
  const size_t k = static_cast<size_t>(kind);
  taken_[k] = true;
  return std::move(linears_[k]);
}

}  // namespace mica
