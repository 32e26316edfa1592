#include "generate/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_set>

#include "base/error.h"

namespace mica {
namespace {

struct Candidate {
  int32_t id;
  float logit;
  double probability = 0;
};

bool Before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

void Penalise(std::span<float> logits, std::span<const int32_t> text, float penalty) {
  for (const int32_t id : std::unordered_set<int32_t>(text.begin(), text.end())) {
    float& logit = logits[static_cast<size_t>(id)];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

// Probabilities of the candidates, whose largest logit comes first.
void SetProbabilities(std::vector<Candidate>& candidates, double temperature) {
  double sum = 0;
  const double largest = candidates.front().logit;
  for (Candidate& candidate : candidates) {
    candidate.probability = std::exp((candidate.logit - largest) / temperature);
    sum += candidate.probability;
  }
  for (Candidate& candidate : candidates) candidate.probability /= sum;
}

}  // namespace

double Sampler::Uniform() { return static_cast<double>(random_() >> 11) * 0x1.0p-53; }

int32_t Sampler::Choose(std::span<float> logits, std::span<const int32_t> text) {
  if (options_.repeat_penalty != 1.0) Penalise(logits, text, static_cast<float>(options_.repeat_penalty));
  const auto largest = std::max_element(logits.begin(), logits.end());
  if (!std::isfinite(*largest))
    Fail("the model's largest logit is {}, expected a number; its weights or activations overflow", *largest);
  if (options_.temperature == 0.0) return static_cast<int32_t>(largest - logits.begin());

  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t id = 0; id < logits.size(); ++id) candidates.push_back({static_cast<int32_t>(id), logits[id]});
  size_t kept = candidates.size();
  if (options_.top_k > 0 && static_cast<size_t>(options_.top_k) < kept) {
    kept = static_cast<size_t>(options_.top_k);
    std::partial_sort(candidates.begin(), candidates.begin() + static_cast<ptrdiff_t>(kept), candidates.end(),
                      Before);
    candidates.resize(kept);
  } else {
    std::sort(candidates.begin(), candidates.end(), Before);
  }
  SetProbabilities(candidates, 1.0);
  if (options_.top_p < 1.0) {
    double sum = 0;
    for (kept = 0; kept < candidates.size() && (kept == 0 || sum < options_.top_p); ++kept)
      sum += candidates[kept].probability;
    candidates.resize(kept);
  }
  if (options_.min_p > 0.0) {
    const double least = options_.min_p * candidates.front().probability;
    while (candidates.size() > 1 && candidates.back().probability < least) candidates.pop_back();
  }
  SetProbabilities(candidates, options_.temperature);
  double left = Uniform();
  for (const Candidate& candidate : candidates) {
    left -= candidate.probability;
    if (left < 0) return candidate.id;
  }
  return candidates.back().id;
}

std::vector<TokenChance> LikeliestTokens(std::span<const float> logits, size_t count, int32_t id) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  const double log_sum = largest + std::log(sum);
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < logits.size(); ++i) candidates.push_back({static_cast<int32_t>(i), logits[i]});
  count = std::min(count, candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + static_cast<ptrdiff_t>(count), candidates.end(),
                    Before);
  std::vector<TokenChance> chances;
  for (size_t i = 0; i < count; ++i) chances.push_back({candidates[i].id, candidates[i].logit - log_sum});
  chances.push_back({id, logits[static_cast<size_t>(id)] - log_sum});
  return chances;
}

}  // namespace mica
