#include "compress/budget/rate_control.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"

namespace mica {
namespace {

// Three matrices whose weights, at c = 1, have sizes of `octaves` above or below a step.
std::vector<StepSizes> Sizes(float octaves) {
  std::vector<StepSizes> sizes(3);
  for (size_t i = 0; i < sizes.size(); ++i) {
    sizes[i].row.assign(100 + 50 * i, octaves);
    for (size_t c = 0; c < 80; ++c) sizes[i].col.push_back(0.02f * static_cast<float>(c));
  }
  return sizes;
}
constexpr double kWeights = (100 + 150 + 200) * 80;

TEST(RateControlTest, PredictionsOfAllMatricesMeetTheBudget) {
  for (const bool trellis : {false, true}) {
    for (const double bits : {0.6, 2.16, 4.0, 7.5}) {
      RateControl control(Sizes(3), bits * kWeights, 0, trellis);
      for (int i = 0; i < 3; ++i) {
        const RateControl::Choice choice = control.Next();
        EXPECT_EQ(choice.zero_price, 0);
        control.Record(choice.predicted[0].bits, choice.predicted[0].zeros);
      }
      EXPECT_NEAR(control.bits_so_far() / kWeights, bits, 1e-6);
    }
  }
}

TEST(RateControlTest, WhatIsStoredWhateverTheStepIsPaidFirst) {
  const double least = 3 * 0.4 * kWeights;
  RateControl paid(Sizes(3), 3 * kWeights, 0, true, {0.1 * least, 0.7 * least, 0.2 * least});
  RateControl plain(Sizes(3), 3 * kWeights - least, 0, true);
  const RateControl::Choice choice = paid.Next(3), same = plain.Next(3);
  EXPECT_NEAR(choice.log2_c, same.log2_c, 1e-9);
  EXPECT_NEAR(choice.predicted[1].bits, same.predicted[1].bits + 0.7 * least, 1e-6 * least);
}

TEST(RateControlTest, HighRatesFollowTheLaw) {
  // One bit for each doubling of size over step, plus the entropy of the weights' distribution.
  RateControl coarse(Sizes(3), 5 * kWeights, 0, false), fine(Sizes(3), 8 * kWeights, 0, false);
  EXPECT_NEAR(coarse.Next().log2_c - fine.Next().log2_c, 3.0, 0.01);
  // Weights twice as large take a step twice as large for the same bits.
  RateControl larger(Sizes(4), 5 * kWeights, 0, false);
  EXPECT_NEAR(larger.Next().log2_c - coarse.Next().log2_c, 1.0, 1e-6);
}

TEST(RateControlTest, MatricesThatTookMoreMakeTheRestCheaper) {
  RateControl control(Sizes(3), 3 * kWeights, 0, false);
  const RateControl::Choice first = control.Next();
  control.Record(1.2 * first.predicted[0].bits, first.predicted[0].zeros);
  const RateControl::Choice second = control.Next();
  EXPECT_GT(second.log2_c, first.log2_c);
  control.Record(second.predicted[0].bits, second.predicted[0].zeros);
  const RateControl::Choice third = control.Next();
  control.Record(third.predicted[0].bits, third.predicted[0].zeros);
  EXPECT_LT(control.bits_so_far(), 3 * kWeights);
}

TEST(RateControlTest, OneChoiceServesMatricesThatAreSolvedTogether) {
  RateControl together(Sizes(3), 3 * kWeights, 0, false), apart(Sizes(3), 3 * kWeights, 0, false);
  const RateControl::Choice both = together.Next(2);
  ASSERT_EQ(both.predicted.size(), 2u);
  EXPECT_EQ(both.log2_c, apart.Next().log2_c);
  EXPECT_EQ(both.predicted[1].bits, apart.Next().predicted[0].bits);
}

TEST(RateControlTest, WhatIsNotRecordedYetIsExpectedToTakeWhatWasPredicted) {
  // The second choice does not know that the first matrix took more; the third does.
  RateControl late(Sizes(3), 3 * kWeights, 0, false), known(Sizes(3), 3 * kWeights, 0, false);
  const RateControl::Choice first = late.Next(), second = late.Next();
  EXPECT_NEAR(second.log2_c, first.log2_c, 1e-9);
  late.Record(1.2 * first.predicted[0].bits, 0);
  const RateControl::Choice third = late.Next();
  EXPECT_GT(third.log2_c, second.log2_c);
  // A choice that is taken from a record leaves the same state.
  known.Take(first.predicted);
  known.Take(second.predicted);
  known.Record(1.2 * first.predicted[0].bits, 0);
  EXPECT_EQ(known.Next().log2_c, third.log2_c);
}

TEST(RateControlTest, ZerosHaveAPriceWhereTheRateAloneGivesTooFew) {
  RateControl control(Sizes(3), 2.6 * kWeights, 0.5, false);
  double zeros = 0;
  for (int i = 0; i < 3; ++i) {
    const RateControl::Choice choice = control.Next();
    EXPECT_GT(choice.zero_price, 0.5);
    zeros += choice.predicted[0].zeros;
    control.Record(choice.predicted[0].bits, choice.predicted[0].zeros);
  }
  EXPECT_NEAR(zeros / kWeights, 0.5, 1e-3);
  EXPECT_NEAR(control.bits_so_far() / kWeights, 2.6, 1e-3);
  // Most zeros at a rate that the rest can use: beyond the usual prices.
  EXPECT_GT(RateControl(Sizes(3), 1.0 * kWeights, 0.92, false).Next().zero_price, 64);
  // At low rate half of the weights are zero anyway.
  EXPECT_EQ(RateControl(Sizes(3), 1.2 * kWeights, 0.5, false).Next().zero_price, 0);
}

TEST(RateControlTest, RefusesMoreBitsThanWhatIsLeftCanUse) {
  EXPECT_THROW(RateControl(Sizes(3), 3.0 * kWeights, 0.95, false), Error);
  EXPECT_NO_THROW(RateControl(Sizes(3), 3.0 * kWeights, 0.5, false));
}

}  // namespace
}  // namespace mica
