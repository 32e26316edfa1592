#include "compress/curvature/score_histogram.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/threads.h"

namespace mica {
namespace {

constexpr double kImportanceDamping = 1.0;  // of Fisher information, times its mean: as steps have it

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
  std::vector<std::vector<uint64_t>> counts(blocks, std::vector<uint64_t>(kScoreBins, 0));
  ParallelFor(blocks, [&](size_t block) {
    for (size_t r = block * kRowBlock; r < std::min(w.rows, (block + 1) * kRowBlock); ++r) {
      for (size_t c = 0; c < w.cols; ++c) {
        const double ratio = importance[r] * w(r, c) * w(r, c) / mean[c];
        const double position =
            ratio > 0 ? (std::log2(ratio) - kFirstScoreOctave) * kScoreBinsPerOctave : 0.0;
        ++counts[block][static_cast<size_t>(std::clamp(position, 0.0, static_cast<double>(kScoreBins - 1)))];
      }
    }
  });
  std::vector<double> shares(kScoreBins, 0.0);
  const double all = static_cast<double>(w.rows) * static_cast<double>(w.cols);
  for (size_t bin = 0; bin < kScoreBins; ++bin) {
    uint64_t total = 0;
    for (const std::vector<uint64_t>& part : counts) total += part[bin];
    shares[bin] = static_cast<double>(total) / all;
  }
  return shares;
}

}  // namespace mica
