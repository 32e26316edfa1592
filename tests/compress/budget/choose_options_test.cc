#include "compress/budget/choose_options.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace mica {
namespace {

using Units = std::vector<std::vector<UnitOption>>;

double LossOf(const Units& units, const std::vector<size_t>& choice) {
  double loss = 0;
  for (size_t u = 0; u < units.size(); ++u) loss += units[u][choice[u]].loss;
  return loss;
}

// The least loss of all choices that fit.
double LeastLoss(const Units& units, double most, size_t unit = 0, double bits = 0) {
  if (bits > most) return INFINITY;
  if (unit == units.size()) return 0;
  double least = INFINITY;
  for (const UnitOption& option : units[unit])
    least = std::min(least, option.loss + LeastLoss(units, most, unit + 1, bits + option.bits));
  return least;
}

// Options as types of tensors are: more bits, four times less loss a bit, some of them dominated.
Units RandomUnits(std::mt19937& random, size_t count) {
  std::uniform_real_distribution<double> uniform(0, 1);
  Units units;
  for (size_t u = 0; u < count; ++u) {
    std::vector<UnitOption> options;
    const double size = std::exp2(std::floor(4 * uniform(random))), scale = std::exp(4 * uniform(random));
    for (const double bits : {2.5, 3.4, 4.25, 4.5, 5.5})
      options.push_back({size * bits, size * scale * std::exp2(-2 * bits) * (0.6 + 0.8 * uniform(random))});
    units.push_back(options);
  }
  return units;
}

TEST(ChooseOptions, TakesTheCheapestWhereNothingElseFits) {
  const Units units = {{{8, 1}, {4, 3}, {4, 2}}, {{6, 5}}};
  EXPECT_EQ(ChooseOptions(units, 0), (std::vector<size_t>{2, 0}));
  EXPECT_EQ(ChooseOptions(units, 13.9), (std::vector<size_t>{2, 0}));
  EXPECT_EQ(ChooseOptions(units, 14), (std::vector<size_t>{0, 0}));
}

TEST(ChooseOptions, NeverTakesMoreThanTheBudgetAndIsNearTheBestChoice) {
  std::mt19937 random(7);
  double worst = 1, sum = 0;
  constexpr int kTrials = 60;
  for (int trial = 0; trial < kTrials; ++trial) {
    const Units units = RandomUnits(random, 6);
    const double least = BitsOfChoice(units, ChooseOptions(units, 0));
    const double most = least * (1.05 + 0.9 * std::uniform_real_distribution<double>(0, 1)(random));
    const std::vector<size_t> choice = ChooseOptions(units, most);
    EXPECT_LE(BitsOfChoice(units, choice), most);
    const double ratio = LossOf(units, choice) / LeastLoss(units, most);
    worst = std::max(worst, ratio);
    sum += ratio;
  }
  EXPECT_LT(worst, 1.005);
  EXPECT_LT(sum / kTrials, 1.0005);
}

TEST(ChooseOptions, MoreBitsAreNeverWorse) {
  std::mt19937 random(11);
  const Units units = RandomUnits(random, 40);
  double before = INFINITY;
  for (double most = BitsOfChoice(units, ChooseOptions(units, 0)); most < 1200; most += 40) {
    const double loss = LossOf(units, ChooseOptions(units, most));
    EXPECT_LE(loss, before * 1.001);
    before = loss;
  }
}

}  // namespace
}  // namespace mica
