// Which token comes next, by the logits of a model.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace mica {

// In the order in which they work: the penalty changes logits; top_k, top_p and min_p leave fewer candidates;
// temperature sharpens what is left (the order of llama.cpp's samplers).
struct SamplingOptions {
  double temperature = 0.0;     // 0: the largest logit, whatever the others say
  int top_k = 0;                // so many of the largest logits; 0: all
  double top_p = 1.0;           // the fewest most likely ones whose probabilities reach it
  double min_p = 0.0;           // those whose probability is at least this share of the largest one's
  double repeat_penalty = 1.0;  // logits of tokens that the text has are divided by it where they are positive,
                                // else multiplied (Keskar et al. 2019)
  uint64_t seed = 0;
};

struct TokenChance {
  int32_t id = 0;
  double log_probability = 0;  // of the model's own distribution, nats
};

// Draws are a function of the seed and the order of calls alone: the same on every machine.
class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) {}

  // The next token by `logits` [vocab], which are changed; text: the tokens before it. Ties go to the smaller
  // id. Throws Error where no logit is finite.
  int32_t Choose(std::span<float> logits, std::span<const int32_t> text);

 private:
  double Uniform();  // [0, 1)

  SamplingOptions options_;
  std::mt19937_64 random_;
};

// The `count` most likely tokens, the likeliest first, and that of `id` behind them.
std::vector<TokenChance> LikeliestTokens(std::span<const float> logits, size_t count, int32_t id);

}  // namespace mica
