#include "model/layer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "device/array.h"
#include "device/precision.h"
#include "model/rope.h"
#include "ops/attention/attention.h"
#include "ops/norm/norm.h"
#include "ops/product/gated.h"
#include "ops/product/product.h"
#include "ops/product/projection.h"

namespace mica {
namespace {

// Rows of q, k and v are prepared in blocks of whole heads, so that a tile of their products holds whole
// heads.
size_t BlockOutputs(const ModelConfig& config, LinearKind kind) {
  if (kind != LinearKind::kQ && kind != LinearKind::kK && kind != LinearKind::kV) return kBlockOutputs;
  return HeadBlockOutputs(config.head_dim);
}

}  // namespace

size_t PortionTokens(Device device) { return device.is_cuda() ? 8192 : 2048; }

float ScoreFactor(const ModelConfig& config) { return 1.0f / std::sqrt(static_cast<float>(config.head_dim)); }

InputKind InputOf(LinearKind kind) {
  switch (kind) {
    case LinearKind::kQ:
    case LinearKind::kK:
    case LinearKind::kV:
      return InputKind::kAttention;
    case LinearKind::kO:
      return InputKind::kOutput;
    case LinearKind::kGate:
    case LinearKind::kUp:
      return InputKind::kMlp;
    case LinearKind::kDown:
      return InputKind::kDown;
  }
  MICA_CHECK(false);
}

DecoderLayer::DecoderLayer(const ModelWeights& weights, size_t index, Arithmetic arithmetic)
    : DecoderLayer(LayerWeights(weights, index), arithmetic) {
  const bool on_gpu = arithmetic.device.is_cuda();  // which takes weights as they are, once rounded
  if (on_gpu) {
    auto matrices = weights.LinearsOn(arithmetic.device, index, operands());
    for (size_t k = 0; k < matrices.size(); ++k) linears_[k] = PreparedWeights(std::move(matrices[k]));
    return;
  }
  for (const LinearKind kind : kLinearKinds)
    SetLinear(kind, weights.LinearOn(arithmetic.device, index, kind, DType::kF32).view());
}

DecoderLayer::DecoderLayer(const LayerWeights& weights, Arithmetic arithmetic)
    : config_(&weights.config()),
      arithmetic_(arithmetic),
      attention_norm_(CopyTo(arithmetic.device, weights.attention_norm())),
      mlp_norm_(CopyTo(arithmetic.device, weights.mlp_norm())),
      rope_(RopeFrequencies(weights.config()), arithmetic.device) {
  for (const LinearKind kind : kLinearKinds)
    biases_[static_cast<size_t>(kind)] = CopyTo(arithmetic.device, weights.bias(kind));
}

void DecoderLayer::SetLinear(LinearKind kind, ConstTensor weights) {
  const MatrixShape shape = LinearShape(*config_, kind);
  MICA_CHECK(weights.rows == shape.rows);
  MICA_CHECK(weights.cols == shape.cols);
  MICA_CHECK(weights.device == device());
  PreparedWeights& prepared = linears_[static_cast<size_t>(kind)];
  prepared = PreparedWeights();
  prepared = PreparedWeights(weights, operands(), BlockOutputs(*config_, kind));
}

size_t DecoderLayer::weight_bytes() const {
  size_t bytes = 0;
  for (const PreparedWeights& weights : linears_) bytes += weights.bytes();
  return bytes;
}

void DecoderLayer::Forward(Tensor x, size_t window, const InputHook& hook) const {
  MICA_CHECK(window > 0);
  MICA_CHECK(x.rows % window == 0);
  MICA_CHECK(x.cols == config_->hidden);
  if (x.rows == 0) return;
  const size_t portion = hook ? x.rows : std::max<size_t>(1, PortionTokens(device()) / window) * window;
  // Kept from call to call: fresh pages cost several percent of the time.
  thread_local Array normed, context, hidden;
  for (size_t first = 0; first < x.rows; first += portion) {
    const Tensor part = x.Rows(first, std::min(portion, x.rows - first));
    AttentionInput(part, normed);
    if (hook) hook(InputKind::kAttention, normed.view());
    AttentionContext(normed.view(), window, context);
    if (hook) hook(InputKind::kOutput, context.view());
    AddAttention(context.view(), part);
    MlpInput(part, normed);
    if (hook) hook(InputKind::kMlp, normed.view());
    MlpHidden(normed.view(), hidden);
    if (hook) hook(InputKind::kDown, hidden.view());
    AddMlp(hidden.view(), part);
  }
}

void DecoderLayer::Norm(ConstTensor x, ConstTensor weight, Array& normed) const {
  normed.Resize(x.rows, x.cols, operands(), device());
  RmsNorm(x, weight, config_->norm_epsilon, normed.view());
}

void DecoderLayer::AttentionInput(ConstTensor x, Array& normed) const { Norm(x, attention_norm(), normed); }
void DecoderLayer::MlpInput(ConstTensor x, Array& normed) const { Norm(x, mlp_norm(), normed); }

void DecoderLayer::Project(ConstTensor normed, size_t window, Projections& out) const {
  CheckWindow(*config_, window);
  rope_.Extend(window);
  const size_t tokens = normed.rows, head_dim = config_->head_dim;
  out.q.Resize(config_->heads * tokens, head_dim, operands(), device());
  out.k.Resize(config_->kv_heads * tokens, head_dim, operands(), device());
  out.v.Resize(config_->kv_heads * tokens, head_dim, operands(), device());
  ProjectHeads(normed, weights_and_bias(LinearKind::kQ), weights_and_bias(LinearKind::kK),
               weights_and_bias(LinearKind::kV), rope_, window, out.q.view(), out.k.view(), out.v.view());
}

void DecoderLayer::Attend(const Projections& projections, size_t window, Array& context,
                          Tensor log_sums) const {
  const size_t tokens = projections.q.rows() / config_->heads;
  context.Resize(tokens, config_->q_width(), operands(), device());
  Attention({tokens, window, config_->heads, config_->kv_heads, config_->head_dim},
            {projections.q.view(), projections.k.view(), projections.v.view(), ScoreFactor(*config_)},
            context.view(), log_sums);
}

void DecoderLayer::AttentionContext(ConstTensor normed, size_t window, Array& context) const {
  thread_local Projections projections;  // kept for the same reason as in Forward
  Project(normed, window, projections);
  Attend(projections, window, context, {});
}

void DecoderLayer::AddAttention(ConstTensor context, Tensor x) const {
  MultiplyAdd(context, linear(LinearKind::kO), bias(LinearKind::kO), x);
}

void DecoderLayer::MlpHidden(ConstTensor normed, Array& hidden) const {
  hidden.Resize(normed.rows, config_->ffn, operands(), device());
  MultiplyGated(normed, weights_and_bias(LinearKind::kGate), weights_and_bias(LinearKind::kUp),
                hidden.view());
}

void DecoderLayer::AddMlp(ConstTensor hidden, Tensor x) const {
  MultiplyAdd(hidden, linear(LinearKind::kDown), bias(LinearKind::kDown), x);
}

}  // namespace mica
