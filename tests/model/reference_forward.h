// The whole decoder in double precision, one token and one number at a time, straight from the definitions:
// the oracle of the forward and backward pass. Reads tensors from the checkpoint by name and shares no code
// with src/model but the configuration.
#pragma once

#include <algorithm>
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
      for (size_t i = 0; i < hidden; ++i)
        x[t][i] = config_.embedding_factor * embedding[static_cast<size_t>(ids[t]) * hidden + i];
    }
    for (size_t layer = 0; layer < config_.layers; ++layer) {
      const std::string p = "model.layers." + std::to_string(layer) + ".";
      const auto norm = [&](NormKind kind, Rows rows) {
        return config_.Has(kind) ? Norm(rows, NormTensorName(config_.family->names, layer, kind) + ".weight") : rows;
      };
      Add(norm(NormKind::kAttentionOutput,
               Attention(norm(NormKind::kAttentionInput, x), layer, p + "self_attn.", nudge)), &x);
      const Rows normed = norm(NormKind::kMlpInput, x);
      Rows gate = Linear(normed, p + "mlp.gate_proj", nudge);
      const Rows up = Linear(normed, p + "mlp.up_proj", nudge);
      for (size_t t = 0; t < tokens; ++t) {
        for (size_t i = 0; i < gate[t].size(); ++i) gate[t][i] = Activated(gate[t][i]) * up[t][i];
      }
      Add(norm(NormKind::kMlpOutput, Linear(gate, p + "mlp.down_proj", nudge)), &x);
    }
    const Rows normed = Norm(x, "model.norm.weight");
    Rows logits = Product(normed, tensors_.at(config_.tied_head ? "model.embed_tokens.weight" : "lm_head.weight"),
                          config_.vocab);
    for (Vector& row : logits) {
      for (double& logit : row) logit = Capped(logit * config_.logit_factor, config_.logit_cap);
    }
    return logits;
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
  void Add(const Rows& y, Rows* x) const {
    for (size_t t = 0; t < y.size(); ++t) {
      for (size_t i = 0; i < y[t].size(); ++i) (*x)[t][i] += config_.residual_factor * y[t][i];
    }
  }

  static double Capped(double x, double cap) { return cap > 0 ? cap * std::tanh(x / cap) : x; }

  double Activated(double gate) const {
    if (config_.activation == Activation::kSilu) return gate / (1.0 + std::exp(-gate));
    return 0.5 * gate * (1.0 + std::tanh(std::sqrt(2.0 / std::numbers::pi) * (gate + 0.044715 * gate * gate * gate)));
  }

  // Groups of as many values as the norm has weights.
  Rows Norm(const Rows& x, const std::string& name) const {
    Rows y = x;
    const Vector& weight = tensors_.at(name);
    const size_t group = weight.size();
    for (Vector& row : y) {
      for (size_t first = 0; first < row.size(); first += group) {
        double squares = 0.0;
        for (size_t i = 0; i < group; ++i) squares += row[first + i] * row[first + i];
        const double factor = 1.0 / std::sqrt(squares / static_cast<double>(group) + config_.norm_epsilon);
        for (size_t i = 0; i < group; ++i) row[first + i] *= factor * (weight[i] + config_.family->norm_offset);
      }
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
  static double Frequency(const RopeConfig& rope, size_t i, size_t window) {
    const double d = static_cast<double>(rope.channels), index = static_cast<double>(i);
    const double length = static_cast<double>(window), original = rope.original_positions;
    const double plain = std::pow(rope.theta, -2.0 * index / d);
    switch (rope.scaling) {
      case RopeScaling::kNone:
        return plain;
      case RopeScaling::kLinear:
        return plain / rope.factor;
      case RopeScaling::kDynamic: {
        if (length <= original) return plain;
        const double base =
            rope.theta * std::pow(rope.factor * length / original - (rope.factor - 1.0), d / (d - 2.0));
        return std::pow(base, -2.0 * index / d);
      }
      case RopeScaling::kLlama3: {
        const double wavelength = 2.0 * std::numbers::pi / plain;
        if (wavelength > original / rope.low_frequency) return plain / rope.factor;
        if (wavelength < original / rope.high_frequency) return plain;
        const double smooth =
            (original / wavelength - rope.low_frequency) / (rope.high_frequency - rope.low_frequency);
        return (1.0 - smooth) * plain / rope.factor + smooth * plain;
      }
      case RopeScaling::kYarn: {
        const auto pair = [&](double turns) {
          return d * std::log(original / (turns * 2.0 * std::numbers::pi)) / (2.0 * std::log(rope.theta));
        };
        const double low = std::max(std::floor(pair(rope.beta_fast)), 0.0);
        const double high = std::min(std::ceil(pair(rope.beta_slow)), d - 1.0);
        const double ramp = std::min(std::max((index - low) / (high == low ? 0.001 : high - low), 0.0), 1.0);
        return plain / rope.factor * ramp + plain * (1.0 - ramp);
      }
      case RopeScaling::kLongrope:
        return plain / (length > original ? rope.long_factors : rope.short_factors)[i];
    }
    return 0;
  }

  void Rotate(const RopeConfig& rope, bool queries, Rows* x) const {
    const size_t half = rope.channels / 2;
    for (size_t t = 0; t < x->size(); ++t) {
      double amplitude = rope.amplitude;
      if (queries && config_.query_slope != 0.0)
        amplitude *= 1.0 + config_.query_slope *
                               std::log(1.0 + std::floor(static_cast<double>(t) / config_.query_positions));
      for (size_t head = 0; head < (*x)[t].size() / config_.head_dim; ++head) {
        double* values = (*x)[t].data() + head * config_.head_dim;
        for (size_t i = 0; i < half; ++i) {
          const double angle = static_cast<double>(t) * Frequency(rope, i, x->size());
          const double a = values[i], b = values[i + half];
          values[i] = amplitude * (a * std::cos(angle) - b * std::sin(angle));
          values[i + half] = amplitude * (b * std::cos(angle) + a * std::sin(angle));
        }
      }
    }
  }

  Rows Attention(const Rows& x, size_t layer, const std::string& prefix, const Nudge& nudge) const {
    Rows q = Linear(x, prefix + "q_proj", nudge), k = Linear(x, prefix + "k_proj", nudge);
    const Rows v = Linear(x, prefix + "v_proj", nudge);
    if (config_.Has(NormKind::kQuery)) q = Norm(q, prefix + "q_norm.weight");
    if (config_.Has(NormKind::kKey)) k = Norm(k, prefix + "k_norm.weight");
    const LayerTraits& traits = config_.traits[layer];
    if (traits.rope) {
      Rotate(config_.ropes[*traits.rope], true, &q);
      Rotate(config_.ropes[*traits.rope], false, &k);
    }
    const size_t d = config_.head_dim, group = config_.heads / config_.kv_heads;
    Rows context(x.size(), Vector(config_.heads * d, 0.0));
    for (size_t head = 0; head < config_.heads; ++head) {
      const size_t kv = head / group * d;
      for (size_t t = 0; t < x.size(); ++t) {
        const size_t first = traits.sliding != 0 && t + 1 > traits.sliding ? t + 1 - traits.sliding : 0;
        Vector weights(t + 1, 0.0);
        double total = 0.0;
        for (size_t s = first; s <= t; ++s) {
          for (size_t i = 0; i < d; ++i) weights[s] += q[t][head * d + i] * k[s][kv + i];
          weights[s] = std::exp(Capped(weights[s] * config_.score_factor, config_.attention_cap));
          total += weights[s];
        }
        for (size_t s = first; s <= t; ++s) {
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
