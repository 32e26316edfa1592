#include "model/layer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "device/array.h"
#include "device/precision.h"
#include "model/rope.h"
#include "ops/activation/activation.h"
#include "ops/attention/attention.h"
#include "ops/convert/convert.h"
#include "ops/linalg/arrange.h"
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

// The same dense values as rows of `cols`.
ConstTensor Regrouped(ConstTensor x, size_t cols) {
  MICA_CHECK(x.stride == x.cols || x.rows <= 1);
  return {x.data, x.rows * x.cols / cols, cols, cols, x.dtype, x.device};
}

}  // namespace

size_t PortionTokens(Device device) { return device.is_cuda() ? 8192 : 2048; }

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
      traits_(weights.config().traits[weights.index()]),
      rope_(traits_.rope ? &weights.config().ropes[*traits_.rope] : nullptr) {
  for (const NormKind norm : kNormKinds)
    norms_[static_cast<size_t>(norm)] = CopyTo(arithmetic.device, weights.norm(norm));
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

DecoderLayer DecoderLayer::Resident(const ModelWeights& weights, size_t index, Device device) {
  DecoderLayer layer(LayerWeights(weights, index, device), Arithmetic(Precision::kFp32, device));
  for (const LinearKind kind : kLinearKinds)
    layer.residents_[static_cast<size_t>(kind)] = weights.ResidentLinear(device, index, kind);
  return layer;
}

size_t DecoderLayer::weight_bytes() const {
  size_t bytes = 0;
  for (const ResidentWeights& weights : residents_) bytes += weights.empty() ? 0 : weights.bytes();
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

void DecoderLayer::Enter(NormKind norm, ConstTensor x, Array& normed) const {
  normed.Resize(x.rows, x.cols, operands(), device());
  if (!config_->Has(norm)) return Convert(x, normed.view());
  RmsNorm(x, this->norm(norm), config_->norm_epsilon, normed.view());
}

ProductInputs DecoderLayer::Entering(NormKind norm, ConstTensor x) const {
  if (!config_->Has(norm)) return ProductInputs::Plain(x);
  return ProductInputs::Normed(x, this->norm(norm), config_->norm_epsilon);
}

void DecoderLayer::AttentionInput(ConstTensor x, Array& normed) const {
  Enter(NormKind::kAttentionInput, x, normed);
}
void DecoderLayer::MlpInput(ConstTensor x, Array& normed) const { Enter(NormKind::kMlpInput, x, normed); }

const RopeTable* DecoderLayer::key_rope() const {
  if (rope_ == nullptr) return nullptr;
  return config_->query_slope == 0.0 ? &query_table_ : &key_table_;
}

void DecoderLayer::PrepareRope(size_t window) const {
  if (rope_ == nullptr) return;
  if (table_window_ == 0 || (table_window_ != window && DependsOnWindow(*rope_))) {
    query_table_ = MakeRopeTable(*config_, *rope_, Turned::kQueries, window, device());
    if (config_->query_slope != 0.0)
      key_table_ = MakeRopeTable(*config_, *rope_, Turned::kKeys, window, device());
    table_window_ = window;
  }
  query_table_.Extend(window);
  if (config_->query_slope != 0.0) key_table_.Extend(window);
}

void DecoderLayer::Apply(ConstTensor x, std::initializer_list<OneLinear> linears) const {
  if (!resident()) {
    for (const OneLinear& one : linears) Multiply(x, linear(one.kind), bias(one.kind), one.y);
    return;
  }
  ApplyResident(ProductInputs::Plain(x), linears);
}

void DecoderLayer::ApplyResident(const ProductInputs& x, std::initializer_list<OneLinear> linears) const {
  std::vector<ResidentProduct> products;
  for (const OneLinear& one : linears)
    products.push_back({&residents_[static_cast<size_t>(one.kind)], bias(one.kind), one.y});
  MultiplyResident(x, products);
}

ConstTensor DecoderLayer::NormedHeads(ConstTensor raw, NormKind norm, Array& values) const {
  if (!config_->Has(norm)) return raw;
  const size_t group = config_->NormWidth(norm);
  values.Resize(raw.rows * (raw.cols / group), group, DType::kF32, device());
  RmsNorm(Regrouped(raw, group), this->norm(norm), config_->norm_epsilon, values.view());
  return Regrouped(std::as_const(values).view(), raw.cols);
}

void DecoderLayer::Project(ConstTensor normed, size_t window, Projections& out) const {
  PrepareRope(window);
  const size_t tokens = normed.rows, head_dim = config_->head_dim;
  out.q.Resize(config_->heads * tokens, head_dim, operands(), device());
  out.k.Resize(config_->kv_heads * tokens, head_dim, operands(), device());
  out.v.Resize(config_->kv_heads * tokens, head_dim, operands(), device());
  if (!resident() && !config_->Has(NormKind::kQuery) && !config_->Has(NormKind::kKey)) {
    return ProjectHeads(normed, weights_and_bias(LinearKind::kQ), weights_and_bias(LinearKind::kK),
                        weights_and_bias(LinearKind::kV), query_rope(), key_rope(), window, out.q.view(),
                        out.k.view(), out.v.view());
  }
  thread_local Array raw_v, values;
  out.raw_q.Resize(tokens, config_->q_width(), DType::kF32, device());
  out.raw_k.Resize(tokens, config_->kv_width(), DType::kF32, device());
  raw_v.Resize(tokens, config_->kv_width(), DType::kF32, device());
  Apply(normed, {{LinearKind::kQ, out.raw_q.view()},
                 {LinearKind::kK, out.raw_k.view()},
                 {LinearKind::kV, raw_v.view()}});
  SplitHeads(NormedHeads(out.raw_q.view(), NormKind::kQuery, values), query_rope(), window, out.q.view());
  SplitHeads(NormedHeads(out.raw_k.view(), NormKind::kKey, values), key_rope(), window, out.k.view());
  SplitHeads(raw_v.view(), nullptr, window, out.v.view());
}

void DecoderLayer::Continue(Tensor x, KeyCache& cache, size_t index, PassMemory& memory) const {
  MICA_CHECK(resident());
  const size_t tokens = x.rows, head_dim = config_->head_dim;
  PrepareRope(cache.capacity());
  memory.raw_q.Resize(tokens, config_->q_width(), DType::kF32, device());
  memory.raw_k.Resize(tokens, config_->kv_width(), DType::kF32, device());
  memory.raw_v.Resize(tokens, config_->kv_width(), DType::kF32, device());
  ApplyResident(Entering(NormKind::kAttentionInput, x), {{LinearKind::kQ, memory.raw_q.view()},
                                                         {LinearKind::kK, memory.raw_k.view()},
                                                         {LinearKind::kV, memory.raw_v.view()}});
  memory.q.Resize(config_->heads * tokens, head_dim, DType::kF32, device());
  const CachedKeys keys = cache.Layer(index);
  CacheHeads({NormedHeads(memory.raw_q.view(), NormKind::kQuery, memory.normed_q),
              NormedHeads(memory.raw_k.view(), NormKind::kKey, memory.normed_k), memory.raw_v.view(),
              query_rope(), key_rope()},
             cache.past(), memory.q.view(), keys);
  memory.context.Resize(tokens, config_->q_width(), DType::kF32, device());
  CachedAttention({tokens, config_->heads, config_->kv_heads, head_dim},
                  {memory.q.view(), cache.past(), config_->score_factor, config_->attention_cap, traits_.sliding},
                  keys, memory.context.view());
  AddResident(LinearKind::kO, NormKind::kAttentionOutput, ProductInputs::Plain(memory.context.view()), x, memory);
  memory.gate.Resize(tokens, config_->ffn, DType::kF32, device());
  memory.up.Resize(tokens, config_->ffn, DType::kF32, device());
  ApplyResident(Entering(NormKind::kMlpInput, x),
                {{LinearKind::kGate, memory.gate.view()}, {LinearKind::kUp, memory.up.view()}});
  AddResident(LinearKind::kDown, NormKind::kMlpOutput,
              ProductInputs::Gated(config_->activation, memory.gate.view(), memory.up.view()), x, memory);
}

void DecoderLayer::AddResident(LinearKind kind, NormKind norm, const ProductInputs& inputs, Tensor x,
                               PassMemory& memory) const {
  if (!config_->Has(norm)) {
    const ResidentProduct product = {&residents_[static_cast<size_t>(kind)], bias(kind), x,
                                     config_->residual_factor};
    return MultiplyResident(inputs, {&product, 1});
  }
  memory.outputs.Resize(x.rows, x.cols, DType::kF32, device());
  ApplyResident(inputs, {{kind, memory.outputs.view()}});
  memory.normed_outputs.Resize(x.rows, x.cols, DType::kF32, device());
  RmsNorm(std::as_const(memory.outputs).view(), this->norm(norm), config_->norm_epsilon,
          memory.normed_outputs.view());
  const Tensor added = memory.normed_outputs.view();
  if (config_->residual_factor != 1.0f) ScaleValues(config_->residual_factor, added, added);
  ScaleAndAdd(added, 1.0f, x);
}

AttentionInputs DecoderLayer::AttentionOf(const Projections& projections) const {
  return {projections.q.view(), projections.k.view(),    projections.v.view(),
          config_->score_factor, config_->attention_cap, traits_.sliding};
}

void DecoderLayer::Attend(const Projections& projections, size_t window, Array& context,
                          Tensor log_sums) const {
  const size_t tokens = projections.q.rows() / config_->heads;
  context.Resize(tokens, config_->q_width(), operands(), device());
  Attention({tokens, window, config_->heads, config_->kv_heads, config_->head_dim}, AttentionOf(projections),
            context.view(), log_sums);
}

void DecoderLayer::AttentionContext(ConstTensor normed, size_t window, Array& context) const {
  thread_local Projections projections;  // kept for the same reason as in Forward
  Project(normed, window, projections);
  Attend(projections, window, context, {});
}

void DecoderLayer::AddBranch(LinearKind kind, NormKind norm, ConstTensor inputs, Tensor x) const {
  if (!resident() && !config_->Has(norm) && config_->residual_factor == 1.0f)
    return MultiplyAdd(inputs, linear(kind), bias(kind), x);
  thread_local Array outputs, normed;
  outputs.Resize(x.rows, x.cols, DType::kF32, device());
  Apply(inputs, {{kind, outputs.view()}});
  Array* added = &outputs;
  if (config_->Has(norm)) {
    normed.Resize(x.rows, x.cols, DType::kF32, device());
    RmsNorm(std::as_const(outputs).view(), this->norm(norm), config_->norm_epsilon, normed.view());
    added = &normed;
  }
  ScaleAndAdd(x, config_->residual_factor, added->view());
  Copy(std::as_const(*added).view(), x);
}

void DecoderLayer::AddAttention(ConstTensor context, Tensor x) const {
  AddBranch(LinearKind::kO, NormKind::kAttentionOutput, context, x);
}

void DecoderLayer::MlpHidden(ConstTensor normed, Array& hidden) const {
  hidden.Resize(normed.rows, config_->ffn, operands(), device());
  if (resident()) {
    thread_local Array gate, up;
    gate.Resize(normed.rows, config_->ffn, DType::kF32, device());
    up.Resize(normed.rows, config_->ffn, DType::kF32, device());
    Apply(normed, {{LinearKind::kGate, gate.view()}, {LinearKind::kUp, up.view()}});
    return Gated(config_->activation, gate.view(), up.view(), hidden.view());
  }
  MultiplyGated(normed, weights_and_bias(LinearKind::kGate), weights_and_bias(LinearKind::kUp),
                config_->activation, hidden.view());
}

void DecoderLayer::AddMlp(ConstTensor hidden, Tensor x) const {
  AddBranch(LinearKind::kDown, NormKind::kMlpOutput, hidden, x);
}

}  // namespace mica
