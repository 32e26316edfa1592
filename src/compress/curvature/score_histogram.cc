#include "compress/curvature/score_histogram.h"

#include <cstddef>
#include <cstdint>
#include <numeric>

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

std::vector<double> ScoreShares(ConstTensor w, const std::vector<float>& importance) {
  const std::vector<uint64_t> counts = ScoreHistogram(w, importance);
  const double all = static_cast<double>(w.rows) * static_cast<double>(w.cols);
  std::vector<double> shares;
  for (const uint64_t count : counts) shares.push_back(static_cast<double>(count) / all);
  return shares;
}

}  // namespace mica
