#include "model/backward.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/system.h"
#include "device/array.h"
#include "device/precision.h"
#include "model/head_gradient.h"
#include "model/window.h"
#include "ops/activation/activation.h"
#include "ops/attention/attention.h"
#include "ops/convert/convert.h"
#include "ops/norm/norm.h"
#include "ops/product/product.h"
#include "ops/rope/rope.h"
#include "ops/transpose/transpose.h"

namespace mica {
namespace {

// A uniform number in [0, 1) that depends on nothing but the seed and the place (SplitMix64, Steele et al.
// 2014).
double Uniform(uint64_t seed, uint64_t place) {
  uint64_t z = seed + (place + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

// One decoder layer with the transposed matrices that carry gradients from its outputs to its inputs.
class LayerGradient {
 public:
  LayerGradient(LayerWeights weights, Precision precision)
      : layer_(weights, precision), config_(weights.config()), index_(weights.index()) {
    for (const LinearKind kind : kLinearKinds) {
      const Matrix<float> w = weights.Take(kind);
      layer_.SetLinear(kind, w);
      transposed_[static_cast<size_t>(kind)] = PreparedWeights(Transposed(w), OperandType(precision));
    }
  }

  // x: the layer's inputs. gradient: with respect to its outputs in, to its inputs out. first_token: place of
  // row 0 in the text.
  void Run(MatrixView<const float> x, size_t window, size_t first_token, MatrixView<float> gradient,
           const GradientHook& hook) {
    first_token_ = first_token;
    const size_t tokens = x.rows;
    // Forward once more, keeping what the way back needs.
    layer_.AttentionInput(x, normed_);
    layer_.Project(normed_.view(), window, projections_);
    log_sums_ = Matrix<float>(config_.heads, tokens);
    layer_.Attend(projections_, window, context_, log_sums_);
    Matrix<float> middle(tokens, config_.hidden);  // the residual stream between attention and MLP
    for (size_t t = 0; t < tokens; ++t) std::copy_n(x.row(t), x.cols, middle.row(t));
    layer_.AddAttention(context_.view(), middle);

    BackThroughMlp(middle, gradient, hook);
    BackThroughAttention(x, window, gradient, hook);
  }

 private:
  const PreparedWeights& transposed(LinearKind kind) const { return transposed_[static_cast<size_t>(kind)]; }
  void HandOut(LinearKind kind, const Array& inputs, MatrixView<const float> gradient,
               const GradientHook& hook) const {
    hook({index_, kind, first_token_, inputs.view(), gradient});
  }
  // y = gradient W (or y += with add): what the inputs of a linear layer feel. The gradient is rounded to the
  // type of the products.
  void BackThroughLinear(LinearKind kind, ConstTensor gradient, bool add, MatrixView<float> y) {
    const ConstTensor operand = Converted(gradient, layer_.operands(), rounded_);
    (add ? MultiplyAdd : Multiply)(operand, transposed(kind), {}, y);
  }

  void BackThroughMlp(MatrixView<const float> middle, MatrixView<float> gradient, const GradientHook& hook) {
    const size_t tokens = middle.rows;
    Array normed, hidden(tokens, config_.ffn, layer_.operands());
    layer_.MlpInput(middle, normed);
    Matrix<float> gate(tokens, config_.ffn), up(tokens, config_.ffn), hidden_gradient(tokens, config_.ffn);
    Multiply(normed.view(), layer_.linear(LinearKind::kGate), layer_.bias(LinearKind::kGate), gate);
    Multiply(normed.view(), layer_.linear(LinearKind::kUp), layer_.bias(LinearKind::kUp), up);
    Swiglu(gate, up, hidden.view());
    HandOut(LinearKind::kDown, hidden, gradient, hook);

    BackThroughLinear(LinearKind::kDown, gradient, false, hidden_gradient);
    SwigluGradient(gate, up, hidden_gradient, gate, up);
    HandOut(LinearKind::kGate, normed, gate, hook);
    HandOut(LinearKind::kUp, normed, up, hook);

    Matrix<float> normed_gradient(tokens, config_.hidden);
    BackThroughLinear(LinearKind::kGate, gate, false, normed_gradient);
    BackThroughLinear(LinearKind::kUp, up, true, normed_gradient);
    BackThroughNorm(middle, layer_.mlp_norm(), normed_gradient, gradient);
  }

  void BackThroughAttention(MatrixView<const float> x, size_t window, MatrixView<float> gradient,
                            const GradientHook& hook) {
    const size_t tokens = x.rows, head_dim = config_.head_dim, heads = config_.heads,
                 kv_heads = config_.kv_heads;
    HandOut(LinearKind::kO, context_, gradient, hook);
    Matrix<float> context_gradient(tokens, config_.q_width());
    BackThroughLinear(LinearKind::kO, gradient, false, context_gradient);

    Matrix<float> grad_q(heads * tokens, head_dim), grad_k(kv_heads * tokens, head_dim),
        grad_v(kv_heads * tokens, head_dim);
    AttentionGradient(
        {tokens, window, heads, kv_heads, head_dim},
        {projections_.q.view(), projections_.k.view(), projections_.v.view(), ScoreFactor(config_)},
        {context_.view(), log_sums_, context_gradient}, {grad_q, grad_k, grad_v});

    Matrix<float> normed_gradient(tokens, config_.hidden);
    const auto finish = [&](LinearKind kind, const Matrix<float>& by_head, size_t count,
                            const RopeTable* rope) {
      Matrix<float> joined(tokens, count * head_dim);
      JoinHeads(by_head, rope, window, joined);
      HandOut(kind, normed_, joined, hook);
      BackThroughLinear(kind, joined, kind != LinearKind::kQ, normed_gradient);
    };
    finish(LinearKind::kQ, grad_q, heads, &layer_.rope());
    finish(LinearKind::kK, grad_k, kv_heads, &layer_.rope());
    finish(LinearKind::kV, grad_v, kv_heads, nullptr);
    BackThroughNorm(x, layer_.attention_norm(), normed_gradient, gradient);
  }

  // gradient += the norm's share; the residual connection's share is what it already holds.
  void BackThroughNorm(MatrixView<const float> x, const std::vector<float>& weight,
                       const Matrix<float>& normed_gradient, MatrixView<float> gradient) const {
    AddRmsNormGradient(x, weight, normed_gradient, config_.norm_epsilon, gradient);
  }

  DecoderLayer layer_;
  const ModelConfig& config_;
  size_t index_;
  size_t first_token_ = 0;
  std::array<PreparedWeights, kLinearKinds.size()> transposed_;
  Array normed_, context_, rounded_;
  DecoderLayer::Projections projections_;
  Matrix<float> log_sums_;  // [heads, tokens]
};

// Tokens of the windows that go through a layer together.

}  // namespace

BackwardResult RunBackward(const ModelWeights& weights, std::span<const int32_t> ids, size_t window,
                           size_t stored_bytes, const BackwardSettings& settings, const GradientHook& hook) {
  MICA_CHECK(window > 0);
  MICA_CHECK(ids.size() % window == 0);
  const ModelConfig& config = weights.config();
  CheckWindow(config, window);
  // Whole runs, so that the sums over tokens do not depend on where a group ends.
  const size_t run_bytes = config.layers * RunTokens(window) * config.hidden * sizeof(float);
  const size_t group = std::max<size_t>(1, stored_bytes / run_bytes) * RunTokens(window);
  BackwardResult result;
  for (size_t group_first = 0; group_first < ids.size(); group_first += group) {
    const size_t tokens = std::min(group, ids.size() - group_first);
    const auto group_ids = ids.subspan(group_first, tokens);
    std::vector<Matrix<float>> inputs;  // of each layer
    Matrix<float> x(tokens, config.hidden);
    weights.Embed(group_ids, x);
    for (size_t index = 0; index < config.layers; ++index) {
      inputs.push_back(x.Clone());
      const DecoderLayer layer(weights, index, settings.precision);
      ForRuns(tokens, RunTokens(window), [&](size_t first, size_t count) {
        ThrowIfInterrupted();
        layer.Forward(x.view().Rows(first, count), window);
        settings.advance(count);
      });
    }

    std::vector<int32_t> targets(tokens, -1);
    std::vector<double> uniforms(settings.sample_labels ? tokens : 0);
    for (size_t t = 0; t < tokens; ++t) {
      if ((t + 1) % window == 0) continue;  // the last token of a window predicts nothing
      targets[t] = group_ids[t + 1];
      ++result.predictions;
      if (settings.sample_labels) uniforms[t] = Uniform(settings.seed, group_first + t);
    }
    Matrix<float> gradient(tokens, config.hidden);
    ForRuns(tokens, RunTokens(window), [&](size_t first, size_t count) {
      ThrowIfInterrupted();
      const std::span<const int32_t> run_targets = std::span<const int32_t>(targets).subspan(first, count);
      const std::span<const double> run_uniforms =
          settings.sample_labels ? std::span<const double>(uniforms).subspan(first, count)
                                 : std::span<const double>();
      result.nll += HeadGradient(weights, settings.precision, x.view().Rows(first, count), run_targets,
                                 settings.sample_labels, run_uniforms, gradient.view().Rows(first, count));
    });
    x = Matrix<float>();

    for (size_t index = config.layers; index-- > 0;) {
      LayerGradient layer(LayerWeights(weights, index), settings.precision);
      ForRuns(tokens, RunTokens(window), [&](size_t first, size_t count) {
        ThrowIfInterrupted();
        layer.Run(inputs[index].view().Rows(first, count), window, group_first + first,
                  gradient.view().Rows(first, count), hook);
        settings.advance(count);
      });
      inputs.pop_back();
    }
  }
  return result;
}

}  // namespace mica
