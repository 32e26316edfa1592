#include "experiment/quality/loss_law.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

namespace mica {
namespace {

using ::testing::AllOf;
using ::testing::DoubleNear;
using ::testing::Ge;
using ::testing::Le;

// Tries until the law is satisfied; the trials.
std::vector<Trial> TryAll(const LossGoal& goal, double first, const std::function<double(double)>& loss_at) {
  std::vector<Trial> trials;
  while (const std::optional<double> bits = NextBits(trials, goal, first)) trials.push_back({*bits, loss_at(*bits)});
  return trials;
}

TEST(LossLawTest, ByHand) {
  const LossGoal goal{0.01, 1, 8};
  EXPECT_EQ(NextBits({}, goal, 3.0), 3.0);
  EXPECT_EQ(NextBits({}, goal, 9.0), 8.0);
  // ln(.02 / .0095) / ln 4.5 = .49495 bits more.
  EXPECT_EQ(NextBits({{3, 0.02}}, goal, 3), 3.495);
  // Two points: a factor of 4 a bit between them, so ln(.0125 / .0095) / ln 4 = .198 more than the nearer one.
  EXPECT_NEAR(*NextBits({{2, 0.05}, {3, 0.0125}}, goal, 3), 3.198, 1e-9);
  EXPECT_THAT(*PredictedLoss({{2, 0.05}, {3, 0.0125}}, goal, 3.5), DoubleNear(0.00625, 1e-12));
  EXPECT_FALSE(PredictedLoss({}, goal, 3));
  // Near enough below the goal: over. Above it, however near: not.
  EXPECT_FALSE(NextBits({{3, 0.0091}}, goal, 3));
  EXPECT_TRUE(NextBits({{3, 0.01001}}, goal, 3));
  EXPECT_EQ(BestTrial({{3, 0.02}, {4, 0.004}, {3.5, 0.009}}, goal), 2u);
  EXPECT_FALSE(BestTrial({{3, 0.02}}, goal));
}

TEST(LossLawTest, ThreeCompressionsAreEnoughForCurvesLikeOurs) {
  // ln(loss) bends: the factor falls from bit to bit, as measured ones do.
  for (const double factor : {3.0, 3.6, 4.5, 5.5}) {
    for (const double bend : {0.0, 0.08, -0.05}) {
      for (const double off : {-0.4, 0.0, 0.4}) {
        for (const double most : {0.03, 0.01, 0.003}) {
          // As the search begins: where such models usually have the loss, give or take.
          const double first = 3 + std::log(0.012 / most) / std::log(kUsualFactor) + off;
          const auto loss_at = [&](double bits) {
            return 0.012 * std::exp(-std::log(factor) * (bits - 3) + bend * (bits - 3) * (bits - 3));
          };
          const LossGoal goal{most, 1, 8};
          const std::vector<Trial> trials = TryAll(goal, first, loss_at);
          ASSERT_LE(trials.size(), 3u) << factor << " " << bend << " " << first << " " << most;
          ASSERT_TRUE(BestTrial(trials, goal));
          EXPECT_THAT(trials[*BestTrial(trials, goal)].loss, AllOf(Ge(0.9 * most), Le(most)))
              << factor << " " << bend << " " << first;
        }
      }
    }
  }
}

TEST(LossLawTest, ALossThatBitsDoNotMend) {
  // Half of the loss that is asked for is that of an embedding in few bits: the factor falls towards one.
  for (const double most : {0.03, 0.01, 0.003}) {
    for (const double off : {-0.3, 0.0, 0.3}) {
      const double first = 3 + std::log(0.012 / most) / std::log(kUsualFactor) + off;
      const LossGoal goal{most, 1, 8};
      const std::vector<Trial> trials = TryAll(
          goal, first, [&](double bits) { return most / 2 + 0.012 * std::pow(kUsualFactor, 3 - bits); });
      EXPECT_LE(trials.size(), 3u) << most << " " << off;
      ASSERT_TRUE(BestTrial(trials, goal));
      EXPECT_THAT(trials[*BestTrial(trials, goal)].loss, AllOf(Ge(0.9 * most), Le(most))) << most << " " << off;
    }
  }
}

TEST(LossLawTest, SizesThatOnlyCertainBitsHave) {
  // As types of blocks have them: what lies between two sizes is the smaller one.
  constexpr double kStep = 0.0625;
  for (const double most : {0.03, 0.01, 0.003}) {
    for (const double off : {-0.4, -0.1, 0.2, 0.4}) {
      const double first = 3 + std::log(0.012 / most) / std::log(kUsualFactor) + off;
      const LossGoal goal{most, 1, 8};
      const auto size_of = [](double bits) { return std::floor(bits / kStep + 1e-9) * kStep; };
      const auto loss_at = [&](double bits) { return 0.012 * std::pow(4.0, 3 - size_of(bits)); };
      const std::vector<Trial> trials = TryAll(goal, first, loss_at);
      EXPECT_LE(trials.size(), kMostTrials);
      ASSERT_TRUE(BestTrial(trials, goal));
      const double taken = trials[*BestTrial(trials, goal)].bits;
      EXPECT_LE(loss_at(taken), most);
      // A size less would do only where the search has ended by having tried enough.
      if (trials.size() < kUsualTrials && loss_at(taken) < kGoalReached * most) {
        EXPECT_GT(loss_at(size_of(taken) - kStep), most) << most << " " << off;
      }
    }
  }
}

TEST(LossLawTest, EndsOfTheRange) {
  const LossGoal goal{0.01, 1, 4};
  // Even the least bits keep the goal.
  std::vector<Trial> trials = TryAll(goal, 3, [](double bits) { return 0.001 * std::exp(1 - bits); });
  EXPECT_EQ(trials.back().bits, 1);
  EXPECT_TRUE(BestTrial(trials, goal));
  // Not even the most do.
  trials = TryAll(goal, 3, [](double bits) { return 0.5 + std::exp(-bits); });
  EXPECT_EQ(trials.back().bits, 4);
  EXPECT_FALSE(BestTrial(trials, goal));
  EXPECT_LE(trials.size(), kMostTrials);
  // A text that is predicted better than before has no logarithm.
  trials = TryAll(goal, 3, [](double bits) { return 0.02 - 0.008 * (bits - 1); });
  EXPECT_TRUE(BestTrial(trials, goal));
}

TEST(LossLawTest, NoisyLossesStayBetweenWhatIsKnown) {
  size_t call = 0;
  const LossGoal goal{0.01, 1, 8};
  const std::vector<Trial> trials = TryAll(goal, 3, [&](double bits) {
    return 0.012 * std::pow(4.5, 3 - bits) * (call++ % 2 == 0 ? 1.15 : 0.87);
  });
  EXPECT_LE(trials.size(), kMostTrials);
  EXPECT_TRUE(BestTrial(trials, goal));
}

}  // namespace
}  // namespace mica
