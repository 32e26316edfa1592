#include "experiment/quality/loss_law.h"

#include <algorithm>
#include <cmath>

namespace mica {
namespace {

// Where in the range that ends the search to aim: what is missed on either side is still in it.
constexpr double kAim = 0.95;
// A loss that is not positive (of a text that the compressed model predicts better) has no logarithm.
constexpr double kLeastLoss = 1e-6;
// ln of the factor by which a loss falls with each bit, as far as it is believed; zeros that are forced cost the same at
// any number of bits and make it small.
constexpr double kLeastSlope = 0.2, kMostSlope = 8.0;
constexpr double kSameBits = 0.0005;  // budgets nearer than this are one
constexpr double kSteps = 1000;       // budgets are whole thousandths of a bit, which people can repeat

double LogOf(double loss) { return std::log(std::max(loss, kLeastLoss)); }

// The trials by how far their loss is from the goal, nearest first.
std::vector<Trial> Nearest(std::vector<Trial> trials, const LossGoal& goal) {
  std::stable_sort(trials.begin(), trials.end(), [&](const Trial& a, const Trial& b) {
    return std::fabs(LogOf(a.loss) - LogOf(goal.most)) < std::fabs(LogOf(b.loss) - LogOf(goal.most));
  });
  return trials;
}

// How ln(loss) falls with each bit, by the two trials nearest to the goal.
double SlopeOf(const std::vector<Trial>& nearest) {
  if (nearest.size() > 1 && std::fabs(nearest[1].bits - nearest[0].bits) > kSameBits) {
    const double slope =
        (LogOf(nearest[0].loss) - LogOf(nearest[1].loss)) / (nearest[1].bits - nearest[0].bits);
    return std::clamp(slope, kLeastSlope, kMostSlope);
  }
  return std::log(kUsualFactor);
}

}  // namespace

std::optional<size_t> BestTrial(const std::vector<Trial>& trials, const LossGoal& goal) {
  std::optional<size_t> best;
  for (size_t i = 0; i < trials.size(); ++i) {
    if (trials[i].loss <= goal.most && (!best || trials[i].bits < trials[*best].bits)) best = i;
  }
  return best;
}

std::optional<double> PredictedLoss(const std::vector<Trial>& trials, const LossGoal& goal, double bits) {
  if (trials.empty()) return std::nullopt;
  const std::vector<Trial> nearest = Nearest(trials, goal);
  return std::exp(LogOf(nearest[0].loss) - SlopeOf(nearest) * (bits - nearest[0].bits));
}

std::optional<double> NextBits(const std::vector<Trial>& trials, const LossGoal& goal, double first) {
  const auto rounded = [&](double bits) {
    return std::clamp(std::round(bits * kSteps) / kSteps, goal.least_bits, goal.most_bits);
  };
  if (trials.empty()) return rounded(first);
  const std::optional<size_t> best = BestTrial(trials, goal);
  if (trials.size() >= (best ? kUsualTrials : kMostTrials)) return std::nullopt;
  if (best && trials[*best].loss >= kGoalReached * goal.most) return std::nullopt;
  const std::vector<Trial> nearest = Nearest(trials, goal);
  double next = nearest[0].bits + (LogOf(nearest[0].loss) - LogOf(kAim * goal.most)) / SlopeOf(nearest);
  // Between the most bits that do not keep the goal and the fewest that do.
  double below = goal.least_bits, above = goal.most_bits;
  bool failed = false;
  for (const Trial& trial : trials) {
    if (trial.loss > goal.most && (!failed || trial.bits > below)) below = trial.bits, failed = true;
  }
  if (best) above = trials[*best].bits;
  if (failed && best && above > below) {
    const double margin = 0.02 * (above - below);
    next = std::clamp(next, below + margin, above - margin);
  } else if (failed && !best && next < below + kSameBits) {
    next = below + (goal.most_bits - below) / 4;  // a loss that did not fall as it should
  }
  next = rounded(next);
  const bool tried = std::any_of(trials.begin(), trials.end(), [&](const Trial& trial) {
    return std::fabs(trial.bits - next) < kSameBits;
  });
  return tried ? std::nullopt : std::optional(next);
}

}  // namespace mica
