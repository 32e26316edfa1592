#include "model/backward.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/system.h"
#include "device/array.h"
#include "device/precision.h"
#include "model/head_gradient.h"
#include "model/read_ahead.h"
#include "model/window.h"
#include "ops/activation/activation.h"
#include "ops/attention/attention.h"
#include "ops/convert/convert.h"
#include "ops/linalg/arrange.h"
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
  LayerGradient(LayerWeights weights, const Arithmetic& arithmetic)
      : layer_(weights, arithmetic), config_(weights.config()), index_(weights.index()) {
    for (const LinearKind kind : kLinearKinds) {
      const Array w = weights.Take(kind);
      layer_.SetLinear(kind, w.view());
      transposed_[static_cast<size_t>(kind)] =
          PreparedWeights(Transposed(w.view()).view(), arithmetic.operands());
    }
  }

  // x: the layer's inputs. gradient: with respect to its outputs in, to its inputs out. first_token: place of
  // row 0 in the text.
  void Run(ConstTensor x, size_t window, size_t first_token, Tensor gradient, const GradientHook& hook) {
    first_token_ = first_token;
    const size_t tokens = x.rows;
    // Forward once more, keeping what the way back needs.
    layer_.AttentionInput(x, normed_);
    layer_.Project(normed_.view(), window, projections_);
    log_sums_.Resize(config_.heads, tokens, DType::kF32, layer_.device());
    layer_.Attend(projections_, window, context_, log_sums_.view());
    Array middle = CopyTo(layer_.device(), x);  // the residual stream between attention and MLP
    layer_.AddAttention(context_.view(), middle.view());

    BackThroughMlp(middle.view(), gradient, hook);
    BackThroughAttention(x, window, gradient, hook);
  }

 private:
  const PreparedWeights& transposed(LinearKind kind) const { return transposed_[static_cast<size_t>(kind)]; }
  // FP32 on the layer's device, uninitialised.
  Array New(size_t rows, size_t cols) const { return Array(rows, cols, DType::kF32, layer_.device()); }
  void HandOut(LinearKind kind, const Array& inputs, ConstTensor gradient, const GradientHook& hook) const {
    hook({index_, kind, first_token_, inputs.view(), gradient});
  }
  // y = gradient W (or y += with add): what the inputs of a linear layer feel. The gradient is rounded to the
  // type of the products.
  void BackThroughLinear(LinearKind kind, ConstTensor gradient, bool add, Tensor y) {
    const ConstTensor operand = Converted(gradient, layer_.operands(), rounded_);
    (add ? MultiplyAdd : Multiply)(operand, transposed(kind), {}, y);
  }
  // What the outputs of a linear layer that adds to the residual stream feel, through the factor and the norm
  // between: `gradient` itself where there are none.
  ConstTensor OfBranch(LinearKind kind, NormKind norm, const Array& inputs, ConstTensor gradient, Array& felt) {
    if (!config_.Has(norm) && config_.residual_factor == 1.0f) return gradient;
    felt = New(gradient.rows, gradient.cols);
    ScaleValues(config_.residual_factor, gradient, felt.view());
    if (!config_.Has(norm)) return std::as_const(felt).view();
    Array outputs = New(gradient.rows, gradient.cols), of_outputs = New(gradient.rows, gradient.cols);
    Multiply(inputs.view(), layer_.linear(kind), layer_.bias(kind), outputs.view());
    FillZero(of_outputs.view());
    AddRmsNormGradient(outputs.view(), layer_.norm(norm), felt.view(), config_.norm_epsilon, of_outputs.view());
    felt = std::move(of_outputs);
    return std::as_const(felt).view();
  }
  // Adds to the gradient of the stream x what the inputs of a block feel. The residual connection's share is
  // what the gradient already holds.
  void BackThroughInput(NormKind norm, ConstTensor x, Array& felt, Tensor gradient) const {
    if (config_.Has(norm))
      return AddRmsNormGradient(x, layer_.norm(norm), felt.view(), config_.norm_epsilon, gradient);
    ScaleAndAdd(gradient, 1.0f, felt.view());
    Copy(std::as_const(felt).view(), gradient);
  }

  void BackThroughMlp(ConstTensor middle, Tensor gradient, const GradientHook& hook) {
    const size_t tokens = middle.rows;
    Array normed, hidden(tokens, config_.ffn, layer_.operands(), layer_.device());
    layer_.MlpInput(middle, normed);
    Array of_gate = New(tokens, config_.ffn), of_up = New(tokens, config_.ffn),
          of_hidden = New(tokens, config_.ffn);
    const Tensor gate = of_gate.view(), up = of_up.view(), hidden_gradient = of_hidden.view();
    Multiply(normed.view(), layer_.linear(LinearKind::kGate), layer_.bias(LinearKind::kGate), gate);
    Multiply(normed.view(), layer_.linear(LinearKind::kUp), layer_.bias(LinearKind::kUp), up);
    Gated(config_.activation, gate, up, hidden.view());
    Array felt;
    const ConstTensor of_down = OfBranch(LinearKind::kDown, NormKind::kMlpOutput, hidden, gradient, felt);
    HandOut(LinearKind::kDown, hidden, of_down, hook);

    BackThroughLinear(LinearKind::kDown, of_down, false, hidden_gradient);
    GatedGradient(config_.activation, gate, up, hidden_gradient, gate, up);
    HandOut(LinearKind::kGate, normed, gate, hook);
    HandOut(LinearKind::kUp, normed, up, hook);

    Array normed_gradient = New(tokens, config_.hidden);
    BackThroughLinear(LinearKind::kGate, gate, false, normed_gradient.view());
    BackThroughLinear(LinearKind::kUp, up, true, normed_gradient.view());
    BackThroughInput(NormKind::kMlpInput, middle, normed_gradient, gradient);
  }

  // What the outputs of q or k feel: back through the norm of heads, where there is one. joined: what its
  // results feel, [tokens, width].
  Array OfHeads(NormKind norm, const Array& raw, Array joined) const {
    if (!config_.Has(norm)) return joined;
    const size_t rows = joined.rows(), width = joined.cols(), group = config_.NormWidth(norm);
    Array felt = New(rows, width);
    FillZero(felt.view());
    const auto by_group = [&](auto x) {
      x.rows = rows * (width / group);
      x.cols = x.stride = group;
      return x;
    };
    AddRmsNormGradient(by_group(raw.view()), layer_.norm(norm), by_group(std::as_const(joined).view()),
                       config_.norm_epsilon, by_group(felt.view()));
    return felt;
  }

  void BackThroughAttention(ConstTensor x, size_t window, Tensor gradient, const GradientHook& hook) {
    const size_t tokens = x.rows, head_dim = config_.head_dim, heads = config_.heads,
                 kv_heads = config_.kv_heads;
    Array felt;
    const ConstTensor of_o = OfBranch(LinearKind::kO, NormKind::kAttentionOutput, context_, gradient, felt);
    HandOut(LinearKind::kO, context_, of_o, hook);
    Array context_gradient = New(tokens, config_.q_width());
    BackThroughLinear(LinearKind::kO, of_o, false, context_gradient.view());

    Array grad_q = New(heads * tokens, head_dim), grad_k = New(kv_heads * tokens, head_dim),
          grad_v = New(kv_heads * tokens, head_dim);
    AttentionGradient({tokens, window, heads, kv_heads, head_dim}, layer_.AttentionOf(projections_),
                      {context_.view(), log_sums_.view(), context_gradient.view()},
                      {grad_q.view(), grad_k.view(), grad_v.view()});

    Array normed_gradient = New(tokens, config_.hidden);
    const auto joined = [&](const Array& by_head, size_t count, const RopeTable* rope) {
      Array outputs = New(tokens, count * head_dim);
      JoinHeads(by_head.view(), rope, window, outputs.view());
      return outputs;
    };
    const auto finish = [&](LinearKind kind, const Array& outputs) {
      HandOut(kind, normed_, outputs.view(), hook);
      BackThroughLinear(kind, outputs.view(), kind != LinearKind::kQ, normed_gradient.view());
    };
    finish(LinearKind::kQ, OfHeads(NormKind::kQuery, projections_.raw_q,
                                   joined(grad_q, heads, layer_.query_rope())));
    finish(LinearKind::kK, OfHeads(NormKind::kKey, projections_.raw_k,
                                   joined(grad_k, kv_heads, layer_.key_rope())));
    finish(LinearKind::kV, joined(grad_v, kv_heads, nullptr));
    BackThroughInput(NormKind::kAttentionInput, x, normed_gradient, gradient);
  }

  DecoderLayer layer_;
  const ModelConfig& config_;
  size_t index_;
  size_t first_token_ = 0;
  std::array<PreparedWeights, kLinearKinds.size()> transposed_;
  Array normed_, context_, rounded_;
  DecoderLayer::Projections projections_;
  Array log_sums_;  // [heads, tokens]
};

}  // namespace

BackwardResult RunBackward(const ModelWeights& weights, std::span<const int32_t> ids, size_t window,
                           size_t stored_bytes, const BackwardSettings& settings, const GradientHook& hook) {
  MICA_CHECK(window > 0);
  MICA_CHECK(ids.size() % window == 0);
  const ModelConfig& config = weights.config();
  // Whole runs, so that the sums over tokens do not depend on where a group ends.
  const size_t run_bytes = config.layers * RunTokens(window) * config.hidden * sizeof(float);
  const size_t group = std::max<size_t>(1, stored_bytes / run_bytes) * RunTokens(window);
  const size_t all = std::max(ids.size(), settings.most_runs * RunTokens(window));
  const auto place = [&](size_t token) {
    if (settings.places.empty()) return token;
    return settings.places[token / RunTokens(window)] + token % RunTokens(window);
  };
  BackwardResult result;
  for (size_t group_first = 0; group_first < all; group_first += group) {
    const size_t tokens = std::min(group, ids.size() - std::min(group_first, ids.size()));
    if (tokens == 0) {
      // Others have one run more.
      for (size_t index = config.layers; index-- > 0;) settings.layer_done(index, true);
      continue;
    }
    const auto group_ids = ids.subspan(group_first, tokens);
    const Device device = settings.arithmetic.device;
    std::vector<Array> inputs;  // of each layer
    Array x(tokens, config.hidden, DType::kF32, device);
    weights.Embed(group_ids, x.view());
    ReadAhead<const DecoderLayer> forward(config.layers, device, [&](size_t index) {
      return std::make_unique<const DecoderLayer>(weights, index, settings.arithmetic);
    });
    for (size_t index = 0; index < config.layers; ++index) {
      inputs.push_back(CopyTo(device, x.view()));
      const std::unique_ptr<const DecoderLayer> layer = forward.Next();
      ForRuns(tokens, RunTokens(window), [&](size_t first, size_t count) {
        ThrowIfInterrupted();
        layer->Forward(x.view().Rows(first, count), window);
        settings.advance(count);
      });
    }

    std::vector<int32_t> targets(tokens, -1);
    std::vector<double> uniforms(settings.sample_labels ? tokens : 0);
    for (size_t t = 0; t < tokens; ++t) {
      if ((t + 1) % window == 0) continue;  // the last token of a window predicts nothing
      targets[t] = group_ids[t + 1];
      ++result.predictions;
      if (settings.sample_labels) uniforms[t] = Uniform(settings.seed, place(group_first + t));
    }
    Array gradient(tokens, config.hidden, DType::kF32, device);
    ForRuns(tokens, RunTokens(window), [&](size_t first, size_t count) {
      ThrowIfInterrupted();
      const std::span<const int32_t> run_targets = std::span<const int32_t>(targets).subspan(first, count);
      const std::span<const double> run_uniforms =
          settings.sample_labels ? std::span<const double>(uniforms).subspan(first, count)
                                 : std::span<const double>();
      result.nll += HeadGradient(weights, settings.arithmetic, x.view().Rows(first, count), run_targets,
                                 settings.sample_labels, run_uniforms, gradient.view().Rows(first, count));
    });
    x = Array();

    ReadAhead<LayerWeights> back(config.layers, device, [&](size_t i) {
      auto layer = std::make_unique<LayerWeights>(weights, config.layers - 1 - i, device);
      layer->ReadAhead();
      return layer;
    });
    for (size_t index = config.layers; index-- > 0;) {
      LayerGradient layer(std::move(*back.Next()), settings.arithmetic);
      ForRuns(tokens, RunTokens(window), [&](size_t first, size_t count) {
        ThrowIfInterrupted();
        const Tensor of_run = gradient.view().Rows(first, count);
        layer.Run(inputs[index].view().Rows(first, count), window, place(group_first + first), of_run, hook);
        if (index == 0 && settings.at_embedding) {
          if (config.embedding_factor != 1.0f) ScaleValues(config.embedding_factor, of_run, of_run);
          settings.at_embedding(place(group_first + first), of_run);
        }
        if (settings.run_done) settings.run_done(index);
        settings.advance(count);
      });
      if (settings.layer_done) settings.layer_done(index, group_first + group >= all);
      inputs.pop_back();
    }
  }
  return result;
}

}  // namespace mica
