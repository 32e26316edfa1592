// The integers of one column against exhaustive search and against the same recursion in FP64.
#include "ops/trellis/step_chooser.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "tests/compress/entropy/step_oracle.h"

namespace mica {
namespace {

// A decision made by less than this (squared steps) may fall the other way in FP32.
constexpr double kNearTie = 1e-4;

struct Choice {
  const char* name;
  bool rates;
  double lambda;
  double zero_price;
};
const Choice kChoices[] = {{"distortion", false, 0, 0},
                           {"rates", true, 0.25, 0},
                           {"high lambda", true, 1, 0},
                           {"zero price", false, 0, 0.6},
                           {"rates and zero price", true, 0.25, 1.5}};

// A random column of a tile, as the class takes it and as the oracle does. Weights lie within `reach` steps.
class Tile {
 public:
  Tile(size_t rows, bool feedback, double reach, uint64_t seed)
      : w_(rows), step_(rows), inverse_(rows), row_class_(rows), v_(rows, rows, 0.0f) {
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<double> uniform(-1, 1);
    col_class_ = static_cast<int>(random() % 5) - 2;
    for (size_t r = 0; r < rows; ++r) {
      step_[r] = static_cast<float>(std::exp2(uniform(random)));
      inverse_[r] = 1.0f / step_[r];
      w_[r] = static_cast<float>(reach * uniform(random)) * step_[r];
      row_class_[r] = static_cast<int16_t>(20 + random() % 14);
      for (size_t k = r; k < rows && feedback; ++k)
        v_(r, k) = static_cast<float>(k == r ? 1 + 0.5 * uniform(random) : 0.4 * uniform(random));
    }
    if (!feedback) v_ = {};
  }

  TileColumn Column(bool rates) const {
    return {w_.data(),
            step_.data(),
            inverse_.data(),
            rates ? row_class_.data() : nullptr,
            rates ? col_class_ : 0,
            w_.size(),
            v_.empty() ? nullptr : v_.data(),
            v_.cols()};
  }
  OracleColumn Oracle(const EntropyRates* rates, const StepPrices& settings) const {
    OracleColumn column;
    column.w.assign(w_.begin(), w_.end());
    column.step.assign(step_.begin(), step_.end());
    if (!v_.empty()) {
      column.v = Matrix<double>(v_.rows(), v_.cols());
      for (size_t i = 0; i < v_.size(); ++i) column.v.data()[i] = v_.data()[i];
    }
    std::vector<int> classes;
    for (const int16_t row : row_class_) classes.push_back(row + col_class_);
    column.price = OraclePrice(rates, classes, settings);
    return column;
  }
  void SetWeight(size_t r, float w) { w_[r] = w; }

 private:
  std::vector<float> w_, step_, inverse_;
  std::vector<int16_t> row_class_;
  int col_class_;
  Matrix<float> v_;
};

StepPrices SettingsOf(const Choice& choice, bool trellis) {
  StepPrices settings;
  settings.trellis = trellis;
  settings.lambda = choice.lambda;
  settings.zero_price = choice.zero_price;
  return settings;
}

std::vector<int> Follow(const StepChooser& chooser, const TileColumn& column) {
  std::vector<int16_t> n(column.rows);
  chooser.FollowTrellis(column, n.data());
  return {n.begin(), n.end()};
}

// Fills the part of the stack that the next call will use.
[[gnu::noinline]] void Scribble(int byte) {
  volatile uint8_t memory[1 << 16];
  for (volatile uint8_t& one : memory) one = static_cast<uint8_t>(byte);
}

TEST(FollowTrellis, FindsTheCheapestOfAllPaths) {
  const EntropyRates default_rates(DefaultEntropyTables(kTrellisStates));
  for (const Choice& choice : kChoices) {
    const StepPrices settings = SettingsOf(choice, true);
    const EntropyRates* rates = choice.rates ? &default_rates : nullptr;
    const StepChooser chooser(rates, settings);
    int clear = 0, trials = 0;
    for (size_t rows = 1; rows <= 6; ++rows) {
      for (uint64_t seed = 0; seed < 40; ++seed, ++trials) {
        const Tile tile(rows, false, 4, 100 * rows + seed);
        OracleColumn column = tile.Oracle(rates, settings);
        // Levels beyond lie 7 steps away; those of equal parity within 2 steps cost less, whatever the bits.
        column.most = 6;
        for (size_t r = 0; r < rows; ++r) {
          for (int q = 0; q < 2; ++q) {
            for (int m = 0; m <= column.most; ++m) ASSERT_LT(2.0 * 2.0 + column.price(q, r, m), 7.0 * 7.0);
          }
        }
        const std::vector<int> n = Follow(chooser, tile.Column(choice.rates));
        const OraclePath expected = CheapestOfAllPaths(column);
        EXPECT_NEAR(PathCost(column, n), expected.cost, 1e-5 * (1 + expected.cost))
            << choice.name << ", " << rows << " rows, seed " << seed;
        if (expected.margin < kNearTie) continue;
        EXPECT_EQ(n, expected.n) << choice.name << ", " << rows << " rows, seed " << seed;
        ++clear;
      }
    }
    EXPECT_GE(clear, trials * 98 / 100) << choice.name;
  }
}

TEST(FollowTrellis, DecidesWindowByWindowOnWhatItLooksAt) {
  const EntropyRates default_rates(DefaultEntropyTables(kTrellisStates));
  for (const Choice& choice : kChoices) {
    for (const auto& [window, ahead] : {std::pair<size_t, size_t>{1, 0}, {2, 3}, {3, 2}, {4, 0}, {8, 8}}) {
      for (const bool feedback : {false, true}) {
        StepPrices settings = SettingsOf(choice, true);
        settings.window = window;
        settings.ahead = ahead;
        const EntropyRates* rates = choice.rates ? &default_rates : nullptr;
        const StepChooser chooser(rates, settings);
        int clear = 0, other = 0;
        for (uint64_t seed = 0; seed < 20; ++seed) {
          const Tile tile(40, feedback, 4, 300 + seed);
          const OracleColumn column = tile.Oracle(rates, settings);
          const OraclePath expected = SurvivingPath(column, window, ahead);
          if (expected.margin < kNearTie) continue;
          EXPECT_EQ(Follow(chooser, tile.Column(choice.rates)), expected.n)
              << choice.name << ", window " << window << ", ahead " << ahead << ", seed " << seed;
          ++clear;
          other += expected.n != SurvivingPath(column).n;
        }
        EXPECT_GE(clear, 15) << choice.name;
        if (window + ahead < 16) {
          EXPECT_GT(other, 0) << choice.name;  // decided too early now and then
        }
      }
    }
  }
}

TEST(FollowTrellis, AWindowThatSeesAllRowsDecidesAsWithoutOne) {
  const EntropyRates rates(DefaultEntropyTables(kTrellisStates));
  for (uint64_t seed = 0; seed < 10; ++seed) {
    const Tile tile(kCodedTileRows, false, 4, 70 + seed);
    StepPrices whole = SettingsOf(kChoices[1], true), windows = whole;
    windows.window = 1;
    windows.ahead = kCodedTileRows;
    const std::vector<int> expected = Follow(StepChooser(&rates, whole), tile.Column(true));
    EXPECT_EQ(Follow(StepChooser(&rates, windows), tile.Column(true)), expected);
    windows.window = 8;
    windows.ahead = 0;
    EXPECT_NE(Follow(StepChooser(&rates, windows), tile.Column(true)), expected);  // another search indeed
  }
}

TEST(FollowTrellis, CostsTheLeastPossibleOverAWholeTile) {
  const EntropyRates default_rates(DefaultEntropyTables(kTrellisStates));
  for (const Choice& choice : kChoices) {
    const StepPrices settings = SettingsOf(choice, true);
    const EntropyRates* rates = choice.rates ? &default_rates : nullptr;
    for (const size_t rows : {size_t{7}, size_t{100}, kCodedTileRows}) {
      for (uint64_t seed = 0; seed < 10; ++seed) {
        // Zero is a candidate where it is the nearest level of its parity or the one before: below 6 steps.
        const Tile tile(rows, false, choice.zero_price > 0 ? 6 : 12, 1000 * rows + seed);
        const OracleColumn column = tile.Oracle(rates, settings);
        const double cost = PathCost(column, Follow(StepChooser(rates, settings), tile.Column(choice.rates)));
        const double least = LeastCost(column);
        EXPECT_NEAR(cost, least, 1e-5 * (1 + least)) << choice.name << ", " << rows << " rows, seed " << seed;
      }
    }
  }
}

TEST(FollowTrellis, WithRowFeedbackKeepsTheSameSurvivors) {
  const EntropyRates default_rates(DefaultEntropyTables(kTrellisStates));
  for (const Choice& choice : kChoices) {
    const StepPrices settings = SettingsOf(choice, true);
    const EntropyRates* rates = choice.rates ? &default_rates : nullptr;
    const StepChooser chooser(rates, settings);
    int clear = 0, trials = 0;
    for (const size_t rows : {1, 2, 3, 4, 5, 6, 12, 20}) {
      for (uint64_t seed = 0; seed < 30; ++seed, ++trials) {
        const Tile tile(rows, true, 4, 10000 * rows + seed);
        const OracleColumn column = tile.Oracle(rates, settings);
        const OraclePath expected = SurvivingPath(column);
        if (expected.margin < kNearTie) continue;
        const std::vector<int> n = Follow(chooser, tile.Column(choice.rates));
        EXPECT_EQ(n, expected.n) << choice.name << ", " << rows << " rows, seed " << seed;
        EXPECT_NEAR(PathCost(column, n), expected.cost, 1e-9 * (1 + expected.cost));
        ++clear;
      }
    }
    EXPECT_GE(clear, trials * 9 / 10) << choice.name;
  }
}

TEST(FollowTrellis, DiagonalFeedbackIsNone) {
  const StepPrices settings = SettingsOf(kChoices[0], true);
  const StepChooser chooser(nullptr, settings);
  Matrix<float> diagonal(40, 40, 0.0f);
  for (size_t r = 0; r < 40; ++r) diagonal(r, r) = 0.5f + static_cast<float>(r);
  for (uint64_t seed = 0; seed < 10; ++seed) {
    const Tile tile(40, false, 6, seed);
    TileColumn column = tile.Column(false);
    const std::vector<int> without = Follow(chooser, column);
    column.v = diagonal.data();
    column.v_stride = 40;
    EXPECT_EQ(Follow(chooser, column), without);
  }
}

// What no integer reaches, and what is no number, gets the largest integers there are, whatever lay in
// memory.
TEST(FollowTrellis, ValuesBeyondAllIntegersEndWithTheLargest) {
  const EntropyRates default_rates(DefaultEntropyTables(kTrellisStates));
  for (const Choice& choice : kChoices) {
    const StepChooser chooser(choice.rates ? &default_rates : nullptr, SettingsOf(choice, true));
    for (const bool feedback : {false, true}) {
      for (const float huge : {1e10f, -1e10f, 3e38f, -3e38f, INFINITY, -INFINITY, NAN}) {
        Tile tile(40, feedback, 4, 3);
        tile.SetWeight(20, huge);
        std::vector<int> n(40);
        for (const int scribble : {0x00, 0xFF, 0x7F}) {
          Scribble(scribble);
          std::vector<int> again = Follow(chooser, tile.Column(choice.rates));
          if (scribble != 0x00) {
            EXPECT_EQ(again, n);
          }
          n = std::move(again);
        }
        EXPECT_GE(std::abs(n[20]), 16000) << choice.name << ", " << huge;
        EXPECT_EQ(n[20] < 0, huge < 0) << choice.name << ", " << huge;
        for (const int one : n) EXPECT_LE(std::abs(one), kMaxInteger);
      }
    }
  }
}

TEST(Round, ValuesBeyondAllIntegersGetTheLargest) {
  const EntropyRates default_rates(DefaultEntropyTables(1));
  for (const Choice& choice : kChoices) {
    const StepChooser chooser(choice.rates ? &default_rates : nullptr, SettingsOf(choice, false));
    const Tile tile(1, false, 4, 3);
    for (const float huge : {1e10f, 3e38f, INFINITY}) {
      EXPECT_EQ(chooser.Round(huge, tile.Column(choice.rates), 0), kMaxInteger) << choice.name;
      EXPECT_EQ(chooser.Round(-huge, tile.Column(choice.rates), 0), -kMaxInteger) << choice.name;
    }
    EXPECT_EQ(chooser.Round(NAN, tile.Column(choice.rates), 0), kMaxInteger) << choice.name;
  }
}

TEST(Round, TakesTheCheapestOfTheIntegersConsidered) {
  const EntropyRates default_rates(DefaultEntropyTables(1));
  for (const Choice& choice : kChoices) {
    const StepPrices settings = SettingsOf(choice, false);
    const EntropyRates* rates = choice.rates ? &default_rates : nullptr;
    const StepChooser chooser(rates, settings);
    int clear = 0, trials = 0;
    for (uint64_t seed = 0; seed < 20; ++seed) {
      const Tile tile(100, false, seed < 10 ? 3 : 20, 7 + seed);
      const TileColumn given = tile.Column(choice.rates);
      const OracleColumn column = tile.Oracle(rates, settings);
      for (size_t r = 0; r < 100; ++r, ++trials) {
        OracleColumn alone;
        alone.w = {column.w[r]};
        alone.step = {column.step[r]};
        alone.price = [&](int q, size_t, int m) { return column.price(q, r, m); };
        // Where a bit weighs much, an integer two below the nearest, which needs no escape, would cost less
        // than the three that are considered; else these suffice.
        const OraclePath three = RoundedOneByOne(alone, /*only_near=*/true);
        const OraclePath expected = choice.lambda < 1 ? RoundedOneByOne(alone, /*only_near=*/false) : three;
        if (std::min(three.margin, expected.margin) < kNearTie) continue;
        EXPECT_EQ(chooser.Round(given.w[r], given, r), expected.n[0])
            << choice.name << ": " << column.w[r] / column.step[r] << " steps";
        ++clear;
      }
    }
    EXPECT_GE(clear, trials * 99 / 100) << choice.name;
  }
}

TEST(Round, ByHand) {
  const Tile tile(1, false, 1, 1);
  TileColumn column = tile.Column(false);
  const float step = 0.5f, inverse = 2.0f;
  column.step = &step;
  column.inverse = &inverse;
  const StepChooser plain(nullptr, {});
  EXPECT_EQ(plain.Round(0.0f, column, 0), 0);
  EXPECT_EQ(plain.Round(0.24f, column, 0), 0);
  EXPECT_EQ(plain.Round(-0.26f, column, 0), -1);
  EXPECT_EQ(plain.Round(0.25f, column, 0), 1);  // halves go up
  EXPECT_EQ(plain.Round(3.7f, column, 0), 7);
  EXPECT_EQ(plain.Round(1e9f, column, 0), kMaxInteger);
  EXPECT_EQ(plain.Round(-1e9f, column, 0), -kMaxInteger);
  StepPrices priced;
  priced.zero_price = 3.5;  // a weight of 2 steps saves 4, one of 1.5 saves 2.25 - 0.25
  const StepChooser sparse(nullptr, priced);
  EXPECT_EQ(sparse.Round(1.0f, column, 0), 2);
  EXPECT_EQ(sparse.Round(-1.0f, column, 0), -2);
  EXPECT_EQ(sparse.Round(0.75f, column, 0), 0);
}

}  // namespace
}  // namespace mica
