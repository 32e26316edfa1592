// What is computed on the logits of an output head, whose rows come in slices so that nothing of size tokens
// x vocabulary is kept.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "device/tensor.h"
#include "ops/product/prepared_weights.h"
#include "ops/tile/kernels.h"

namespace mica {

// The residual stream and the final norm between it and the head (ops/norm/norm.h); normed again for each
// slice, in the type of the head's operands.
struct HeadInputs {
  ConstTensor x;     // [tokens, hidden] FP32
  ConstTensor norm;  // [1, hidden] FP32
  float epsilon = 0.0f;
  float cap = 0.0f;  // logits are cap tanh(logit / cap) (Gemma 2, 2024); 0: as they are
};

// Rows [first_id, first_id + rows.outputs()) of the head.
struct HeadSlice {
  const PreparedWeights& rows;
  size_t first_id = 0;
};

// What the slices seen so far say of each token; after the last one, of its whole distribution.
struct HeadScores {
  explicit HeadScores(size_t tokens) : sums(tokens), target_logits(tokens, 0.0f) {}
  // Logarithm of the sum of the exponentials of token t's logits.
  float LogSum(size_t t) const { return sums[t].max + std::log(sums[t].sum); }
  // -log softmax(logits of t)[target of t], nats.
  float NegativeLogLikelihood(size_t t) const {
    return sums[t].max - target_logits[t] + std::log(sums[t].sum);
  }

  std::vector<RunningSum> sums;      // [tokens]; untouched where there is no target
  std::vector<float> target_logits;  // [tokens]
};

// Adds a slice to the scores by an online log-sum-exp. targets: [tokens], negative: none.
void AddScores(const HeadInputs& in, const HeadSlice& slice, std::span<const int32_t> targets,
               HeadScores& scores);

// The label of each token in the gradient: its target, or one drawn from the model's distribution where it
// has a target: uniforms[t] in [0, 1) picks it from the cumulative distribution in the order of ids.
struct HeadLabels {
  HeadLabels(std::span<const int32_t> targets_, bool sample_, std::span<const double> uniforms_)
      : targets(targets_),
        sample(sample_),
        uniforms(uniforms_),
        cumulative(sample ? targets.size() : 0, 0.0),
        drawn(sample ? targets.size() : 0, 0) {}

  std::span<const int32_t> targets;  // [tokens], negative: none
  bool sample;
  std::span<const double> uniforms;  // [tokens] when sample

  // How far the draws are, slice by slice.
  std::vector<double> cumulative;
  std::vector<uint8_t> drawn;  // not bool: neighbours are written by other threads
};

// gradient += (softmax - label) W over the ids of one slice: what the sum of negative log likelihoods feels
// of the normed inputs. scores: complete. transposed: the slice's rows as [hidden, rows], prepared for the
// same operands; errors are rounded to their type. `last`: no slice follows. Slices come in rising order.
// gradient: [tokens, hidden] FP32.
void AddHeadGradient(const HeadInputs& in, const HeadSlice& slice, const PreparedWeights& transposed,
                     bool last, const HeadScores& scores, HeadLabels& labels, Tensor gradient);

// logits = cap tanh(logits / cap), cap > 0. FP32.
void CapLogits(float cap, Tensor logits);

// How far two distributions over the next token are apart, from their logits [tokens, vocab] FP32: kl[t] =
// sum_v p(v) ln(p(v) / q(v)) in nats, same_top[t] = 1 where both have their largest logit at the same place.
// q is overwritten.
void Divergence(ConstTensor p, Tensor q, std::span<float> kl, std::span<uint8_t> same_top);

}  // namespace mica
