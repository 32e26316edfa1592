#include "generate/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "base/error.h"

namespace mica {
namespace {

// How often each id is drawn, and that the logits are those of these probabilities.
std::map<int32_t, double> Shares(const SamplingOptions& options, const std::vector<double>& probabilities) {
  constexpr int kDraws = 20000;
  Sampler sampler(options);
  std::map<int32_t, double> shares;
  for (int i = 0; i < kDraws; ++i) {
    std::vector<float> logits;
    for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)) + 3.0f);
    shares[sampler.Choose(logits, {})] += 1.0 / kDraws;
  }
  return shares;
}

TEST(Sampling, ZeroTemperatureTakesTheLargestLogitAndTheSmallerIdOfTwo) {
  std::vector<float> logits = {1, 5, 5, -2};
  EXPECT_EQ(Sampler({}).Choose(logits, {}), 1);
}

TEST(Sampling, DrawsByProbability) {
  const auto shares = Shares({.temperature = 1.0, .seed = 4}, {0.5, 0.3, 0.2});
  EXPECT_NEAR(shares.at(0), 0.5, 0.02);
  EXPECT_NEAR(shares.at(1), 0.3, 0.02);
  EXPECT_NEAR(shares.at(2), 0.2, 0.02);
}

TEST(Sampling, TemperatureRaisesProbabilitiesToItsInverse) {
  const auto shares = Shares({.temperature = 0.5, .seed = 4}, {0.5, 0.3, 0.2});
  EXPECT_NEAR(shares.at(0), 0.25 / 0.38, 0.02);
  EXPECT_NEAR(shares.at(2), 0.04 / 0.38, 0.02);
}

TEST(Sampling, TopKTopPAndMinPLeaveTheLikeliest) {
  const std::vector<double> probabilities = {0.1, 0.4, 0.2, 0.3};
  EXPECT_EQ(Shares({.temperature = 1.0, .top_k = 2}, probabilities).size(), 2u);
  // .4 and .3 do not reach .75, with .2 they do.
  EXPECT_EQ(Shares({.temperature = 1.0, .top_p = 0.75}, probabilities).size(), 3u);
  EXPECT_EQ(Shares({.temperature = 1.0, .top_p = 0.0}, probabilities).size(), 1u);
  // At least .45 of .4.
  EXPECT_EQ(Shares({.temperature = 1.0, .min_p = 0.45}, probabilities).size(), 3u);
  const auto two = Shares({.temperature = 1.0, .top_k = 2, .seed = 1}, probabilities);
  EXPECT_NEAR(two.at(1), 0.4 / 0.7, 0.02);
}

TEST(Sampling, TheRepeatPenaltyMakesWhatTheTextHasLessLikely) {
  std::vector<float> logits = {4, 3, -1};
  EXPECT_EQ(Sampler({.repeat_penalty = 2.0}).Choose(logits, std::vector<int32_t>{0, 0}), 1);
  logits = {-1, -1.5};
  EXPECT_EQ(Sampler({.repeat_penalty = 2.0}).Choose(logits, std::vector<int32_t>{0}), 1);
}

TEST(Sampling, OneSeedIsOneRow) {
  const auto draws = [](uint64_t seed) {
    Sampler sampler({.temperature = 1.0, .seed = seed});
    std::vector<int32_t> ids;
    for (int i = 0; i < 50; ++i) {
      std::vector<float> logits(100, 0.0f);
      ids.push_back(sampler.Choose(logits, {}));
    }
    return ids;
  };
  EXPECT_EQ(draws(7), draws(7));
  EXPECT_NE(draws(7), draws(8));
}

TEST(Sampling, LogitsThatAreNoNumbersAreRefused) {
  std::vector<float> logits(3, -std::numeric_limits<float>::infinity());
  EXPECT_THROW(Sampler({}).Choose(logits, {}), Error);
}

TEST(Sampling, LikeliestTokensComeFirstAndTheOwnLast) {
  const std::vector<float> logits = {std::log(0.2f), std::log(0.5f), std::log(0.3f)};
  const std::vector<TokenChance> chances = LikeliestTokens(logits, 2, 0);
  ASSERT_EQ(chances.size(), 3u);
  EXPECT_EQ(chances[0].id, 1);
  EXPECT_EQ(chances[1].id, 2);
  EXPECT_EQ(chances[2].id, 0);
  EXPECT_NEAR(chances[0].log_probability, std::log(0.5), 1e-6);
  EXPECT_NEAR(chances[2].log_probability, std::log(0.2), 1e-6);
}

}  // namespace
}  // namespace mica
