#include "compress/sparsity_plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/threads.h"

namespace mica {
namespace {

constexpr int kBinsPerOctave = 4;
constexpr int kFirstOctave = -32, kLastOctave = 16;
constexpr size_t kBins = static_cast<size_t>(kLastOctave - kFirstOctave) * kBinsPerOctave;
constexpr double kImportanceDamping = 1.0;  // of Fisher information, times its mean: as steps have it

// Share of a column's weights whose score is below `ratio` times the column's mean. before: [kBins + 1].
double ShareBelow(const std::vector<double>& before, double ratio) {
  if (!(ratio > 0)) return 0;
  const double position = (std::log2(ratio) - kFirstOctave) * kBinsPerOctave;
  if (position <= 0) return 0;
  if (position >= kBins) return 1;
  const auto bin = static_cast<size_t>(position);
  return before[bin] + (position - static_cast<double>(bin)) * (before[bin + 1] - before[bin]);
}

}  // namespace

std::vector<float> RowImportance(const std::vector<double>& fisher) {
  std::vector<float> importance(fisher.size(), 1.0f);
  const double mean = std::accumulate(fisher.begin(), fisher.end(), 0.0) / static_cast<double>(fisher.size());
  if (!(mean > 0)) return importance;
  for (size_t r = 0; r < fisher.size(); ++r) {
    importance[r] = static_cast<float>((fisher[r] / mean + kImportanceDamping) / (1 + kImportanceDamping));
  }
  return importance;
}

std::vector<double> ScoreShares(MatrixView<const float> w, const std::vector<float>& importance) {
  MICA_CHECK(importance.size() == w.rows);
  std::vector<double> mean(w.cols, 0.0);
  for (size_t r = 0; r < w.rows; ++r) {
    for (size_t c = 0; c < w.cols; ++c) mean[c] += importance[r] * w(r, c) * w(r, c);
  }
  for (double& m : mean) m /= static_cast<double>(w.rows);
  // Rows in parallel, counts of whole numbers: the same for any number of threads.
  constexpr size_t kRowBlock = 64;
  const size_t blocks = (w.rows + kRowBlock - 1) / kRowBlock;
  std::vector<std::vector<uint64_t>> counts(blocks, std::vector<uint64_t>(kBins, 0));
  ParallelFor(blocks, [&](size_t block) {
    for (size_t r = block * kRowBlock; r < std::min(w.rows, (block + 1) * kRowBlock); ++r) {
      for (size_t c = 0; c < w.cols; ++c) {
        const double ratio = importance[r] * w(r, c) * w(r, c) / mean[c];
        const double position = ratio > 0 ? (std::log2(ratio) - kFirstOctave) * kBinsPerOctave : 0.0;
        ++counts[block][static_cast<size_t>(std::clamp(position, 0.0, static_cast<double>(kBins - 1)))];
      }
    }
  });
  std::vector<double> shares(kBins, 0.0);
  const double all = static_cast<double>(w.rows) * static_cast<double>(w.cols);
  for (size_t bin = 0; bin < kBins; ++bin) {
    uint64_t total = 0;
    for (const std::vector<uint64_t>& part : counts) total += part[bin];
    shares[bin] = static_cast<double>(total) / all;
  }
  return shares;
}

std::vector<std::vector<double>> PrunedShares(const std::vector<PruningDemand>& matrices, double rate) {
  MICA_CHECK(rate >= 0 && rate < 1);
  std::vector<std::vector<double>> before;  // [matrices][kBins + 1] shares below each bin
  double weights = 0, low = INFINITY, high = 0;
  bool known = true;
  for (const PruningDemand& matrix : matrices) {
    weights += static_cast<double>(matrix.rows * matrix.column_score.size());
    known = known && matrix.score_shares.size() == kBins;
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

  const auto fill = [&](double log2_threshold) {
    double pruned = 0;
    for (size_t m = 0; m < matrices.size(); ++m) {
      double sum = 0;
      for (size_t c = 0; c < shares[m].size(); ++c) {
        const double score = matrices[m].column_score[c];
        shares[m][c] = score > 0 ? ShareBelow(before[m], std::exp2(log2_threshold) / score) : 1.0;
        sum += shares[m][c];
      }
      pruned += static_cast<double>(matrices[m].rows) * sum;
    }
    return pruned;
  };
  double below = std::log2(low) + kFirstOctave - 1, above = std::log2(high) + kLastOctave + 1;
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

}  // namespace mica
