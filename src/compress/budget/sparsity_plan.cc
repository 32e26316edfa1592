#include "compress/budget/sparsity_plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/threads.h"
#include "compress/curvature/score_histogram.h"

namespace mica {
namespace {

// Share of a column's weights whose score is below `ratio` times the column's mean. before: [kScoreBins + 1].
double ShareBelow(const std::vector<double>& before, double ratio) {
  if (!(ratio > 0)) return 0;
  const double position = (std::log2(ratio) - kFirstScoreOctave) * kScoreBinsPerOctave;
  if (position <= 0) return 0;
  if (position >= kScoreBins) return 1;
  const auto bin = static_cast<size_t>(position);
  return before[bin] + (position - static_cast<double>(bin)) * (before[bin + 1] - before[bin]);
}

}  // namespace

std::vector<std::vector<double>> PrunedShares(const std::vector<PruningDemand>& matrices, double rate) {
  MICA_CHECK(rate >= 0);
  MICA_CHECK(rate < 1);
  std::vector<std::vector<double>> before;  // [matrices][kScoreBins + 1] shares below each bin
  double weights = 0, low = INFINITY, high = 0;
  bool known = true;
  for (const PruningDemand& matrix : matrices) {
    weights += static_cast<double>(matrix.rows * matrix.column_score.size());
    known = known && matrix.score_shares.size() == kScoreBins;
    std::vector<double>& sums = before.emplace_back(1, 0.0);
    for (const double share : matrix.score_shares) sums.push_back(sums.back() + share);
    for (const double score : matrix.column_score) {
      if (score > 0) low = std::min(low, score);
      high = std::max(high, score);
    }
  }
  std::vector<std::vector<double>> shares;
  for (const PruningDemand& matrix : matrices) shares.emplace_back(matrix.column_score.size(), rate);
  if (!known || !(high > 0)) return shares;

  std::vector<double> pruned_of(matrices.size());
  const auto fill = [&](double log2_threshold) {
    const double threshold = std::exp2(log2_threshold);
    ParallelFor(matrices.size(), [&](size_t m) {
      double sum = 0;
      for (size_t c = 0; c < shares[m].size(); ++c) {
        const double score = matrices[m].column_score[c];
        shares[m][c] = score > 0 ? ShareBelow(before[m], threshold / score) : 1.0;
        sum += shares[m][c];
      }
      pruned_of[m] = static_cast<double>(matrices[m].rows) * sum;
    });
    return std::accumulate(pruned_of.begin(), pruned_of.end(), 0.0);
  };
  double below = std::log2(low) + kFirstScoreOctave - 1, above = std::log2(high) + kLastScoreOctave + 1;
  for (int step = 0; step < 60; ++step) {
    const double middle = 0.5 * (below + above);
    (fill(middle) < rate * weights ? below : above) = middle;
  }
  const double pruned = fill(above);
  // Columns that are always zero may take more than was asked for; what is left over is a rounding error.
  if (pruned > 0) {
    for (auto& matrix : shares) {
      for (double& share : matrix) share = std::min(1.0, share * std::min(1.0, rate * weights / pruned));
    }
  }
  return shares;
}

std::vector<uint64_t> PrunedBefore(size_t rows, const std::vector<double>& shares, size_t coded) {
  constexpr double kRounding = 1e-6;  // weights that sums of decimal shares may be off
  std::vector<uint64_t> before(coded + 1, 0);
  std::vector<double> sums(1, 0.0);
  for (size_t p = 0; p < coded; ++p) sums.push_back(sums.back() + shares[p]);
  const double all =
      std::accumulate(shares.begin() + static_cast<std::ptrdiff_t>(coded), shares.end(), sums.back());
  const auto wanted = static_cast<uint64_t>(std::ceil(all * static_cast<double>(rows) - kRounding));
  const uint64_t uncoded = uint64_t{rows} * (shares.size() - coded);
  if (wanted <= uncoded || !(sums.back() > 0)) return before;
  const double scale = static_cast<double>(wanted - uncoded) / sums.back();
  for (size_t p = 1; p < coded; ++p)
    before[p] = static_cast<uint64_t>(std::floor(sums[p] * scale + kRounding));
  before[coded] = wanted - uncoded;
  // No column loses more than it has, whatever the roundings.
  for (size_t p = coded; p-- > 0;)
    before[p] = std::max(before[p], before[p + 1] - std::min<uint64_t>(before[p + 1], rows));
  return before;
}

}  // namespace mica
