#include "model/backward.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/system.h"
#include "base/threads.h"
#include "device/activations.h"
#include "device/precision.h"
#include "model/head_gradient.h"
#include "ops/tile/kernels.h"
#include "ops/transpose/transpose.h"

namespace mica {
namespace {

// Tokens of one run through a layer, whole windows of course.
constexpr size_t kRunTokens = 2048;
constexpr size_t kRowsEach = 64;  // rows of one work item of the elementwise parts

const KernelTable& Cpu() { return Kernels(Backend::kCpu); }

// Calls body(row) for all rows, spread over the threads.
template <typename Body>
void ForRows(size_t rows, const Body& body) {
  ParallelFor((rows + kRowsEach - 1) / kRowsEach, [&](size_t part) {
    const size_t end = std::min(rows, (part + 1) * kRowsEach);
    for (size_t r = part * kRowsEach; r < end; ++r) body(r);
  });
}

// A uniform number in [0, 1) that depends on nothing but the seed and the place (SplitMix64, Steele et al.
// 2014).
double Uniform(uint64_t seed, uint64_t place) {
  uint64_t z = seed + (place + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

// Gradients in the precision of the products.
void Round(MatrixView<const float> in, Precision precision, Activations& out) {
  out.Resize(in.rows, in.cols, precision);
  ForRows(in.rows, [&](size_t r) {
    if (precision == Precision::kFp32) {
      std::copy_n(in.row(r), in.cols, out.fp32().row(r));
    } else {
      Cpu().f32_to_bf16(in.row(r), in.cols, out.bf16().row(r));
    }
  });
}

void Product(const ActivationView& x, const PreparedWeights& w, const float* bias, bool add,
             MatrixView<float> y) {
  if (x.fp32.data != nullptr) {
    add ? MultiplyAdd(x.fp32, w, bias, y) : Multiply(x.fp32, w, bias, y);
  } else {
    add ? MultiplyAdd(x.bf16, w, bias, y) : Multiply(x.bf16, w, bias, y);
  }
}

// One decoder layer with the transposed matrices that carry gradients from its outputs to its inputs.
class LayerGradient {
 public:
  LayerGradient(LayerWeights weights, Precision precision)
      : layer_(weights, precision),
        config_(weights.config()),
        precision_(precision),
        index_(weights.index()) {
    for (const LinearKind kind : kLinearKinds) {
      const Matrix<float> w = weights.Take(kind);
      layer_.SetLinear(kind, w);
      transposed_[static_cast<size_t>(kind)] = PreparedWeights(Transposed(w), precision);
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
    log_sums_.resize(config_.heads * tokens);
    layer_.Attend(projections_, tokens, window, context_, log_sums_.data());
    Matrix<float> middle(tokens, config_.hidden);  // the residual stream between attention and MLP
    for (size_t t = 0; t < tokens; ++t) std::copy_n(x.row(t), x.cols, middle.row(t));
    layer_.AddAttention(context_.view(), middle);

    BackThroughMlp(middle, gradient, hook);
    BackThroughAttention(x, window, gradient, hook);
  }

 private:
  const PreparedWeights& transposed(LinearKind kind) const { return transposed_[static_cast<size_t>(kind)]; }
  const float* bias(LinearKind kind) const {
    return layer_.bias(kind).empty() ? nullptr : layer_.bias(kind).data();
  }
  void HandOut(LinearKind kind, const Activations& inputs, MatrixView<const float> gradient,
               const GradientHook& hook) const {
    hook({index_, kind, first_token_, inputs.view(), gradient});
  }

  void BackThroughMlp(MatrixView<const float> middle, MatrixView<float> gradient, const GradientHook& hook) {
    const size_t tokens = middle.rows;
    Activations normed, hidden;
    layer_.MlpInput(middle, normed);
    Matrix<float> gate(tokens, config_.ffn), up(tokens, config_.ffn), hidden_gradient(tokens, config_.ffn);
    Product(normed.view(), layer_.linear(LinearKind::kGate), bias(LinearKind::kGate), false, gate);
    Product(normed.view(), layer_.linear(LinearKind::kUp), bias(LinearKind::kUp), false, up);
    hidden.Resize(tokens, config_.ffn, precision_);
    ForRows(tokens, [&](size_t t) {
      if (precision_ == Precision::kFp32) {
        Cpu().swiglu_f32(gate.row(t), up.row(t), config_.ffn, hidden.fp32().row(t));
      } else {
        Cpu().swiglu_bf16(gate.row(t), up.row(t), config_.ffn, hidden.bf16().row(t));
      }
    });
    HandOut(LinearKind::kDown, hidden, gradient, hook);

    Round(gradient, precision_, rounded_);
    Product(rounded_.view(), transposed(LinearKind::kDown), nullptr, false, hidden_gradient);
    ForRows(tokens, [&](size_t t) {
      Cpu().swiglu_gradient(gate.row(t), up.row(t), hidden_gradient.row(t), config_.ffn, gate.row(t),
                            up.row(t));
    });
    HandOut(LinearKind::kGate, normed, gate, hook);
    HandOut(LinearKind::kUp, normed, up, hook);

    Matrix<float> normed_gradient(tokens, config_.hidden);
    Round(gate, precision_, rounded_);
    Product(rounded_.view(), transposed(LinearKind::kGate), nullptr, false, normed_gradient);
    Round(up, precision_, rounded_);
    Product(rounded_.view(), transposed(LinearKind::kUp), nullptr, true, normed_gradient);
    BackThroughNorm(middle, layer_.mlp_norm(), normed_gradient, gradient);
  }

  void BackThroughAttention(MatrixView<const float> x, size_t window, MatrixView<float> gradient,
                            const GradientHook& hook) {
    const size_t tokens = x.rows, head_dim = config_.head_dim, heads = config_.heads,
                 kv_heads = config_.kv_heads;
    HandOut(LinearKind::kO, context_, gradient, hook);
    Matrix<float> context_gradient(tokens, config_.q_width());
    Round(gradient, precision_, rounded_);
    Product(rounded_.view(), transposed(LinearKind::kO), nullptr, false, context_gradient);

    // Head by head, as the attention kernels want them.
    Matrix<float> split32, grad_q(heads * tokens, head_dim), grad_k(kv_heads * tokens, head_dim),
        grad_v(kv_heads * tokens, head_dim);
    Matrix<BF16> split16;
    if (precision_ == Precision::kFp32) {
      split32 = Matrix<float>(heads * tokens, head_dim);
    } else {
      split16 = Matrix<BF16>(heads * tokens, head_dim);
    }
    std::vector<float> means(heads * tokens);
    ForRows(tokens, [&](size_t t) {
      std::vector<float> context(head_dim);
      for (size_t head = 0; head < heads; ++head) {
        const float* values = context_gradient.row(t) + head * head_dim;
        const size_t row = head * tokens + t;
        if (precision_ == Precision::kFp32) {
          std::copy_n(values, head_dim, split32.row(row));
          means[row] = Cpu().dot(values, context_.fp32().row(t) + head * head_dim, head_dim);
        } else {
          Cpu().f32_to_bf16(values, head_dim, split16.row(row));
          Cpu().bf16_to_f32(context_.bf16().row(t) + head * head_dim, head_dim, context.data());
          means[row] = Cpu().dot(values, context.data(), head_dim);
        }
      }
    });
    const AttentionShape shape = {tokens, window, heads, kv_heads, head_dim};
    const AttentionGradients out = {grad_q.data(), grad_k.data(), grad_v.data()};
    const float factor = ScoreFactor(config_);
    if (precision_ == Precision::kFp32) {
      Cpu().attention_gradient_f32(shape,
                                   {projections_.q32.data(), projections_.k32.data(), projections_.v32.data(),
                                    split32.data(), log_sums_.data(), means.data(), factor},
                                   out);
    } else {
      Cpu().attention_gradient_bf16(
          shape,
          {projections_.q16.data(), projections_.k16.data(), projections_.v16.data(), split16.data(),
           log_sums_.data(), means.data(), factor},
          out);
    }

    Matrix<float> normed_gradient(tokens, config_.hidden);
    const auto finish = [&](LinearKind kind, const Matrix<float>& by_head, size_t count, bool rotated) {
      Matrix<float> joined(tokens, count * head_dim);
      ForRows(tokens, [&](size_t t) {
        std::vector<float> negative_sines(head_dim / 2);
        const float* sines = layer_.rope().sines(t % window);
        for (size_t i = 0; i < head_dim / 2; ++i) negative_sines[i] = -sines[i];
        for (size_t head = 0; head < count; ++head) {
          const float* values = by_head.row(head * tokens + t);
          float* target = joined.row(t) + head * head_dim;
          if (rotated) {  // the transpose of a rotation turns back
            Cpu().rope_f32(values, layer_.rope().cosines(t % window), negative_sines.data(), head_dim,
                           target);
          } else {
            std::copy_n(values, head_dim, target);
          }
        }
      });
      HandOut(kind, normed_, joined, hook);
      Round(joined, precision_, rounded_);
      Product(rounded_.view(), transposed(kind), nullptr, kind != LinearKind::kQ, normed_gradient);
    };
    finish(LinearKind::kQ, grad_q, heads, true);
    finish(LinearKind::kK, grad_k, kv_heads, true);
    finish(LinearKind::kV, grad_v, kv_heads, false);
    BackThroughNorm(x, layer_.attention_norm(), normed_gradient, gradient);
  }

  // gradient += the norm's share; the residual connection's share is what it already holds.
  void BackThroughNorm(MatrixView<const float> x, const std::vector<float>& weight,
                       const Matrix<float>& normed_gradient, MatrixView<float> gradient) const {
    ForRows(x.rows, [&](size_t t) {
      Cpu().add_rms_norm_gradient(x.row(t), weight.data(), normed_gradient.row(t), x.cols,
                                  config_.norm_epsilon, gradient.row(t));
    });
  }

  DecoderLayer layer_;
  const ModelConfig& config_;
  Precision precision_;
  size_t index_;
  size_t first_token_ = 0;
  std::array<PreparedWeights, kLinearKinds.size()> transposed_;
  Activations normed_, context_, rounded_;
  DecoderLayer::Projections projections_;
  std::vector<float> log_sums_;
};

// Tokens of the windows that go through a layer together.
size_t RunTokens(size_t window) { return std::max<size_t>(1, kRunTokens / window) * window; }

// Calls body(first token, tokens) for runs of whole windows.
template <typename Body>
void ForRuns(size_t tokens, size_t window, const Body& body) {
  const size_t step = RunTokens(window);
  for (size_t first = 0; first < tokens; first += step) {
    ThrowIfInterrupted();
    body(first, std::min(step, tokens - first));
  }
}

}  // namespace

BackwardResult RunBackward(const ModelWeights& weights, std::span<const int32_t> ids, size_t window,
                           size_t stored_bytes, const BackwardSettings& settings, const GradientHook& hook) {
  MICA_CHECK(window > 0 && ids.size() % window == 0);
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
      ForRuns(tokens, window, [&](size_t first, size_t count) {
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
    ForRuns(tokens, window, [&](size_t first, size_t count) {
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
      ForRuns(tokens, window, [&](size_t first, size_t count) {
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
