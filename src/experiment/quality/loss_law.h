// How few bits keep a loss below a goal, from the few points that were measured: the loss falls by about the same
// factor with each bit.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

namespace mica {

// A compression that was measured.
struct Trial {
  double bits = 0;  // asked for, per compressed weight
  double loss = 0;  // nats a token
};

struct LossGoal {
  double most = 0;                      // nats a token that the loss may have
  double least_bits = 0, most_bits = 0;  // that can be asked for
};

// A measured loss between this share of the goal and the goal ends the search.
inline constexpr double kGoalReached = 0.9;
// Compressions after which the best that keeps the goal is taken, and after which the search ends in any case.
inline constexpr size_t kUsualTrials = 3, kMostTrials = 6;
// By which the loss falls with each bit, where nothing is measured.
inline constexpr double kUsualFactor = 4.5;

// Bits to try next; absent when the search is over: a trial is near enough, the fewest bits keep the goal, the most do
// not, or there were enough trials. first: what to begin with.
std::optional<double> NextBits(const std::vector<Trial>& trials, const LossGoal& goal, double first);
// What the law says of the loss at `bits`, from the trials before; absent without any.
std::optional<double> PredictedLoss(const std::vector<Trial>& trials, const LossGoal& goal, double bits);
// The trial with the fewest bits of those that keep the goal; absent when none does.
std::optional<size_t> BestTrial(const std::vector<Trial>& trials, const LossGoal& goal);

}  // namespace mica
