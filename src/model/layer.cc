#include "model/layer.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/threads.h"
#include "device/activations.h"
#include "device/precision.h"
#include "ops/tile/kernels.h"

namespace mica {
namespace {

// Working memory of Forward without a hook is that of this many tokens, or of one window when that is longer.
// Larger portions fall out of the last-level cache.
constexpr size_t kPortionTokens = 2048;
// Tokens normalised by one work item.
constexpr size_t kNormTokens = 64;

const KernelTable& Cpu() { return Kernels(Backend::kCpu); }

// Rows of q, k and v are prepared in blocks of whole heads, so that a tile of their products holds whole
// heads.
size_t BlockOutputs(const ModelConfig& config, LinearKind kind) {
  if (kind != LinearKind::kQ && kind != LinearKind::kK && kind != LinearKind::kV) return kBlockOutputs;
  return std::max<size_t>(1, kBlockOutputs / config.head_dim) * config.head_dim;
}

// out[heads * tokens, head_dim] from one tile of q, k (rotated) or v: row t of the tile is token first_token
// + t.
template <typename T>
void SplitHeads(const ProductTile& tile, const ModelConfig& config, const RopeTable* rope, size_t window,
                size_t tokens, const float* bias, Matrix<T>& out) {
  const KernelTable& kernels = Cpu();
  for (size_t t = 0; t < tile.tokens; ++t) {
    const size_t token = tile.first_token + t;
    for (size_t column = 0; column < tile.outputs; column += config.head_dim) {
      float* values = tile.values + t * tile.outputs + column;
      if (bias != nullptr) kernels.add(bias + tile.first_output + column, config.head_dim, values);
      T* target = out.row((tile.first_output + column) / config.head_dim * tokens + token);
      if constexpr (std::is_same_v<T, float>) {
        if (rope == nullptr) {
          std::copy_n(values, config.head_dim, target);
        } else {
          kernels.rope_f32(values, rope->cosines(token % window), rope->sines(token % window),
                           config.head_dim, target);
        }
      } else {
        if (rope == nullptr) {
          kernels.f32_to_bf16(values, config.head_dim, target);
        } else {
          kernels.rope_bf16(values, rope->cosines(token % window), rope->sines(token % window),
                            config.head_dim, target);
        }
      }
    }
  }
}

void AddBiases(const ProductTile& tile, const std::vector<float>& bias) {
  if (bias.empty()) return;
  for (size_t t = 0; t < tile.tokens; ++t) {
    Cpu().add(bias.data() + tile.first_output, tile.outputs, tile.values + t * tile.outputs);
  }
}

}  // namespace

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

DecoderLayer::DecoderLayer(const ModelWeights& weights, size_t index, Precision precision)
    : DecoderLayer(LayerWeights(weights, index), precision) {
  for (const LinearKind kind : kLinearKinds) SetLinear(kind, weights.Linear(index, kind));
}

DecoderLayer::DecoderLayer(const LayerWeights& weights, Precision precision)
    : config_(&weights.config()),
      precision_(precision),
      attention_norm_(weights.attention_norm()),
      mlp_norm_(weights.mlp_norm()),
      rope_(weights.config()) {
  for (const LinearKind kind : kLinearKinds) biases_[static_cast<size_t>(kind)] = weights.bias(kind);
}

void DecoderLayer::SetLinear(LinearKind kind, MatrixView<const float> weights) {
  const MatrixShape shape = LinearShape(*config_, kind);
  MICA_CHECK(weights.rows == shape.rows && weights.cols == shape.cols);
  PreparedWeights& prepared = linears_[static_cast<size_t>(kind)];
  prepared = PreparedWeights();
  prepared = PreparedWeights(weights, precision_, BlockOutputs(*config_, kind));
}

size_t DecoderLayer::weight_bytes() const {
  size_t bytes = 0;
  for (const PreparedWeights& weights : linears_) bytes += weights.bytes();
  return bytes;
}

void DecoderLayer::Forward(MatrixView<float> x, size_t window, const InputHook& hook) const {
  MICA_CHECK(window > 0 && x.rows % window == 0 && x.cols == config_->hidden);
  if (x.rows == 0) return;
  const size_t portion = hook ? x.rows : std::max<size_t>(1, kPortionTokens / window) * window;
  // Kept from call to call: fresh pages cost several percent of the time.
  thread_local Activations normed, context, hidden;
  for (size_t first = 0; first < x.rows; first += portion) {
    const MatrixView<float> part = x.Rows(first, std::min(portion, x.rows - first));
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

void DecoderLayer::Norm(MatrixView<const float> x, const std::vector<float>& weight,
                        Activations& normed) const {
  MICA_CHECK(x.cols == config_->hidden);
  normed.Resize(x.rows, x.cols, precision_);
  ParallelFor((x.rows + kNormTokens - 1) / kNormTokens, [&](size_t part) {
    const size_t end = std::min(x.rows, (part + 1) * kNormTokens);
    for (size_t t = part * kNormTokens; t < end; ++t) {
      if (precision_ == Precision::kFp32) {
        Cpu().rms_norm_f32(x.row(t), weight.data(), x.cols, config_->norm_epsilon, normed.fp32().row(t));
      } else {
        Cpu().rms_norm_bf16(x.row(t), weight.data(), x.cols, config_->norm_epsilon, normed.bf16().row(t));
      }
    }
  });
}

void DecoderLayer::AttentionInput(MatrixView<const float> x, Activations& normed) const {
  Norm(x, attention_norm_, normed);
}
void DecoderLayer::MlpInput(MatrixView<const float> x, Activations& normed) const {
  Norm(x, mlp_norm_, normed);
}

void DecoderLayer::Project(const ActivationView& normed, size_t window, Projections& out) const {
  CheckWindow(*config_, window);
  const size_t tokens = normed.tokens(), head_dim = config_->head_dim;
  MICA_CHECK(tokens % window == 0);
  rope_.Extend(window);
  const PreparedWeights *q = &linear(LinearKind::kQ), *k = &linear(LinearKind::kK),
                        *v = &linear(LinearKind::kV);
  const auto split = [&](const ProductTile& tile, auto& q_out, auto& k_out, auto& v_out) {
    switch (tile.matrix) {
      case 0:
        SplitHeads(tile, *config_, &rope_, window, tokens, bias_or_null(LinearKind::kQ), q_out);
        break;
      case 1:
        SplitHeads(tile, *config_, &rope_, window, tokens, bias_or_null(LinearKind::kK), k_out);
        break;
      default:
        SplitHeads(tile, *config_, nullptr, window, tokens, bias_or_null(LinearKind::kV), v_out);
        break;
    }
  };
  if (precision_ == Precision::kFp32) {
    Reshape(out.q32, config_->heads * tokens, head_dim);
    Reshape(out.k32, config_->kv_heads * tokens, head_dim);
    Reshape(out.v32, config_->kv_heads * tokens, head_dim);
    MultiplyTiles(normed.fp32, {q, k, v},
                  [&](const ProductTile& tile) { split(tile, out.q32, out.k32, out.v32); });
  } else {
    Reshape(out.q16, config_->heads * tokens, head_dim);
    Reshape(out.k16, config_->kv_heads * tokens, head_dim);
    Reshape(out.v16, config_->kv_heads * tokens, head_dim);
    MultiplyTiles(normed.bf16, {q, k, v},
                  [&](const ProductTile& tile) { split(tile, out.q16, out.k16, out.v16); });
  }
}

void DecoderLayer::Attend(const Projections& projections, size_t tokens, size_t window, Activations& context,
                          float* log_sums) const {
  const AttentionShape shape = {tokens, window, config_->heads, config_->kv_heads, config_->head_dim};
  const float factor = ScoreFactor(*config_);
  context.Resize(tokens, config_->q_width(), precision_);
  if (precision_ == Precision::kFp32) {
    Cpu().attention_f32(shape, projections.q32.data(), projections.k32.data(), projections.v32.data(), factor,
                        context.fp32(), log_sums);
  } else {
    Cpu().attention_bf16(shape, projections.q16.data(), projections.k16.data(), projections.v16.data(),
                         factor, context.bf16(), log_sums);
  }
}

void DecoderLayer::AttentionContext(const ActivationView& normed, size_t window, Activations& context) const {
  thread_local Projections projections;  // kept for the same reason as in Forward
  Project(normed, window, projections);
  Attend(projections, normed.tokens(), window, context, nullptr);
}

void DecoderLayer::AddAttention(const ActivationView& context, MatrixView<float> x) const {
  if (precision_ == Precision::kFp32) {
    MultiplyAdd(context.fp32, linear(LinearKind::kO), bias_or_null(LinearKind::kO), x);
  } else {
    MultiplyAdd(context.bf16, linear(LinearKind::kO), bias_or_null(LinearKind::kO), x);
  }
}

void DecoderLayer::MlpHidden(const ActivationView& normed, Activations& hidden) const {
  hidden.Resize(normed.tokens(), config_->ffn, precision_);
  const auto activate = [&](const ProductTile& gate, const ProductTile& up, auto out, auto kernel) {
    AddBiases(gate, bias(LinearKind::kGate));
    AddBiases(up, bias(LinearKind::kUp));
    for (size_t t = 0; t < gate.tokens; ++t) {
      kernel(gate.values + t * gate.outputs, up.values + t * gate.outputs, gate.outputs,
             out.row(gate.first_token + t) + gate.first_output);
    }
  };
  const PreparedWeights &gate_weights = linear(LinearKind::kGate), &up_weights = linear(LinearKind::kUp);
  if (precision_ == Precision::kFp32) {
    MultiplyTilePairs(normed.fp32, gate_weights, up_weights,
                      [&](const ProductTile& gate, const ProductTile& up) {
                        activate(gate, up, hidden.fp32(), Cpu().swiglu_f32);
                      });
  } else {
    MultiplyTilePairs(normed.bf16, gate_weights, up_weights,
                      [&](const ProductTile& gate, const ProductTile& up) {
                        activate(gate, up, hidden.bf16(), Cpu().swiglu_bf16);
                      });
  }
}

void DecoderLayer::AddMlp(const ActivationView& hidden, MatrixView<float> x) const {
  if (precision_ == Precision::kFp32) {
    MultiplyAdd(hidden.fp32, linear(LinearKind::kDown), bias_or_null(LinearKind::kDown), x);
  } else {
    MultiplyAdd(hidden.bf16, linear(LinearKind::kDown), bias_or_null(LinearKind::kDown), x);
  }
}

}  // namespace mica
