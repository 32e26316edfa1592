// The whole decoder in double precision, one token and one number at a time, straight from the definitions:
// the oracle of the forward and backward pass. Reads tensors from the checkpoint by name and shares no code
// with src/model but the configuration.
#pragma once

#include <cmath>
#include <map>
#include <numbers>
#include <string>
#include <vector>

#include "io/container/checkpoint.h"
#include "model/config.h"

namespace mica::reference {

using Vector = std::vector<double>;
using Rows = std::vector<Vector>;

// Added to a linear layer's output at one place, for derivatives by differences.
struct Nudge {
  std::string linear;  // "model.layers.0.mlp.up_proj"
  size_t token = 0, row = 0;
  double amount = 0.0;
};

class Model {
 public:
  Model(const Checkpoint& checkpoint, const ModelConfig& config) : config_(config) {
    for (const TensorView& tensor : checkpoint.tensors()) {
      std::vector<float> values(tensor.elements());
      ReadFloats(tensor, 0, values);
      tensors_[tensor.name] = Vector(values.begin(), values.end());
    }
  }

  // logits[t] for one window of ids.
  Rows Logits(const std::vector<int32_t>& ids, const Nudge& nudge = {}) const {
    const size_t tokens = ids.size(), hidden = config_.hidden;
    Rows x(tokens, Vector(hidden));
    const Vector& embedding = tensors_.at("model.embed_tokens.weight");
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t i = 0; i < hidden; ++i) x[t][i] = embedding[static_cast<size_t>(ids[t]) * hidden + i];
    }
    for (size_t layer = 0; layer < config_.layers; ++layer) {
      const std::string p = "model.layers." + std::to_string(layer) + ".";
      Add(Attention(Norm(x, p + "input_layernorm.weight"), p + "self_attn.", nudge), &x);
      const Rows normed = Norm(x, p + "post_attention_layernorm.weight");
      Rows gate = Linear(normed, p + "mlp.gate_proj", nudge);
      const Rows up = Linear(normed, p + "mlp.up_proj", nudge);
      for (size_t t = 0; t < tokens; ++t) {
        for (size_t i = 0; i < gate[t].size(); ++i)
          gate[t][i] = gate[t][i] / (1.0 + std::exp(-gate[t][i])) * up[t][i];
      }
      Add(Linear(gate, p + "mlp.down_proj", nudge), &x);
    }
    const Rows normed = Norm(x, "model.norm.weight");
    return Product(normed, tensors_.at(config_.tied_head ? "model.embed_tokens.weight" : "lm_head.weight"),
                   config_.vocab);
  }

  // nll[t] = -log p(targets[t] | ids[0..t]).
  Vector Nll(const std::vector<int32_t>& ids, const std::vector<int32_t>& targets,
             const Nudge& nudge = {}) const {
    const Rows logits = Logits(ids, nudge);
    Vector nll(ids.size(), 0.0);
    for (size_t t = 0; t < ids.size(); ++t) {
      if (targets[t] < 0) continue;
      double sum = 0.0;
      for (const double logit : logits[t]) sum += std::exp(logit - logits[t][0]);
      nll[t] = logits[t][0] + std::log(sum) - logits[t][static_cast<size_t>(targets[t])];
    }
    return nll;
  }

 private:
  static void Add(const Rows& y, Rows* x) {
    for (size_t t = 0; t < y.size(); ++t) {
      for (size_t i = 0; i < y[t].size(); ++i) (*x)[t][i] += y[t][i];
    }
  }

  Rows Norm(const Rows& x, const std::string& name) const {
    Rows y = x;
    const Vector& weight = tensors_.at(name);
    for (Vector& row : y) {
      double squares = 0.0;
      for (const double value : row) squares += value * value;
      const double factor = 1.0 / std::sqrt(squares / static_cast<double>(row.size()) + config_.norm_epsilon);
      for (size_t i = 0; i < row.size(); ++i) row[i] *= factor * weight[i];
    }
    return y;
  }

  static Rows Product(const Rows& x, const Vector& weight, size_t outputs) {
    Rows y(x.size(), Vector(outputs, 0.0));
    for (size_t t = 0; t < x.size(); ++t) {
      const size_t cols = x[t].size();
      for (size_t o = 0; o < outputs; ++o) {
        for (size_t i = 0; i < cols; ++i) y[t][o] += x[t][i] * weight[o * cols + i];
      }
    }
    return y;
  }

  Rows Linear(const Rows& x, const std::string& name, const Nudge& nudge) const {
    const Vector& weight = tensors_.at(name + ".weight");
    const size_t outputs = weight.size() / x[0].size();
    Rows y = Product(x, weight, outputs);
    if (const auto bias = tensors_.find(name + ".bias"); bias != tensors_.end()) {
      for (Vector& row : y) {
        for (size_t o = 0; o < outputs; ++o) row[o] += bias->second[o];
      }
    }
    if (nudge.linear == name) y[nudge.token][nudge.row] += nudge.amount;
    return y;
  }

  // Angle per position of pair i (transformers: modeling_rope_utils).
  double Frequency(size_t i) const {
    const double plain =
        std::pow(config_.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(config_.head_dim));
    if (config_.rope_scaling == RopeScaling::kLinear) return plain / config_.rope_factor;
    if (config_.rope_scaling == RopeScaling::kNone) return plain;
    const double wavelength = 2.0 * std::numbers::pi / plain;
    const double longest = config_.rope_original_positions / config_.rope_low_frequency;
    const double shortest = config_.rope_original_positions / config_.rope_high_frequency;
    if (wavelength > longest) return plain / config_.rope_factor;
    if (wavelength < shortest) return plain;
    const double smooth = (config_.rope_original_positions / wavelength - config_.rope_low_frequency) /
                          (config_.rope_high_frequency - config_.rope_low_frequency);
    return (1.0 - smooth) * plain / config_.rope_factor + smooth * plain;
  }

  void Rotate(Rows* x) const {
    const size_t half = config_.head_dim / 2;
    for (size_t t = 0; t < x->size(); ++t) {
      for (size_t head = 0; head < (*x)[t].size() / config_.head_dim; ++head) {
        double* values = (*x)[t].data() + head * config_.head_dim;
        for (size_t i = 0; i < half; ++i) {
          const double angle = static_cast<double>(t) * Frequency(i);
          const double a = values[i], b = values[i + half];
          values[i] = a * std::cos(angle) - b * std::sin(angle);
          values[i + half] = b * std::cos(angle) + a * std::sin(angle);
        }
      }
    }
  }

  Rows Attention(const Rows& x, const std::string& prefix, const Nudge& nudge) const {
    Rows q = Linear(x, prefix + "q_proj", nudge), k = Linear(x, prefix + "k_proj", nudge);
    const Rows v = Linear(x, prefix + "v_proj", nudge);
    Rotate(&q);
    Rotate(&k);
    const size_t d = config_.head_dim, group = config_.heads / config_.kv_heads;
    Rows context(x.size(), Vector(config_.heads * d, 0.0));
    for (size_t head = 0; head < config_.heads; ++head) {
      const size_t kv = head / group * d;
      for (size_t t = 0; t < x.size(); ++t) {
        Vector weights(t + 1, 0.0);
        double total = 0.0;
        for (size_t s = 0; s <= t; ++s) {
          for (size_t i = 0; i < d; ++i) weights[s] += q[t][head * d + i] * k[s][kv + i];
          weights[s] = std::exp(weights[s] / std::sqrt(static_cast<double>(d)));
          total += weights[s];
        }
        for (size_t s = 0; s <= t; ++s) {
          for (size_t i = 0; i < d; ++i) context[t][head * d + i] += weights[s] / total * v[s][kv + i];
        }
      }
    }
    return Linear(context, prefix + "o_proj", nudge);
  }

  ModelConfig config_;
  std::map<std::string, Vector> tensors_;
};

// The summed negative log likelihood of one window's window - 1 predictions.
inline double WindowNll(const Model& model, const std::vector<int32_t>& ids, const Nudge& nudge = {}) {
  std::vector<int32_t> targets(ids.begin() + 1, ids.end());
  targets.push_back(-1);
  double sum = 0.0;
  for (const double nll : model.Nll(ids, targets, nudge)) sum += nll;
  return sum;
}

// Its derivative with respect to one output of a linear layer at one token, by central differences.
inline double OutputGradient(const Model& model, const std::vector<int32_t>& ids, const std::string& linear,
                             size_t token, size_t row) {
  const double step = 1e-4;
  return (WindowNll(model, ids, {linear, token, row, step}) -
          WindowNll(model, ids, {linear, token, row, -step})) /
         (2 * step);
}

}  // namespace mica::reference
