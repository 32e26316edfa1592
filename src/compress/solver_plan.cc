#include "compress/solver_plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/threads.h"

namespace mica {
namespace {

std::vector<ColumnBlock> MakeBlocks(const std::vector<ScaleGroup>& groups,
                                    const std::vector<uint8_t>& widths) {
  std::vector<ColumnBlock> blocks;
  for (size_t g = 0; g < groups.size();) {
    const size_t start = groups[g].start;
    if (groups[g].count > kBlockCols) {
      const size_t end = start + groups[g].count;
      for (size_t at = start; at < end; at += kBlockCols) {
        blocks.push_back({at, std::min(end, at + kBlockCols), g, g + 1, at == start, false});
      }
      ++g;
      continue;
    }
    ColumnBlock block{start, start, g, g, true, true};
    while (g < groups.size() && groups[g].bits == groups[block.first_group].bits &&
           groups[g].start + groups[g].count - start <= kBlockCols) {
      block.end = groups[g].start + groups[g].count;
      block.last_group = ++g;
    }
    blocks.push_back(block);
  }
  return blocks;
}

}  // namespace

MaskKind MaskOf(const SparsityPattern& sparsity) {
  if (sparsity.n == 0 && sparsity.m == 0) {
    if (!(sparsity.rate >= 0 && sparsity.rate < 1))
      Fail("sparsity is {}, expected a share from 0 to below 1", sparsity.rate);
    return sparsity.rate > 0 ? MaskKind::kBitmap : MaskKind::kNone;
  }
  if (sparsity.n == 2 && sparsity.m == 4) return MaskKind::kTwoOfFour;
  if (sparsity.n == 4 && sparsity.m == 8) return MaskKind::kFourOfEight;
  Fail("sparsity pattern is {}:{}, expected 2:4 or 4:8", sparsity.n, sparsity.m);
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

SolverPlan MakePlan(size_t rows, const std::vector<float>& diagonal, const std::vector<uint8_t>& widths,
                    const FixedSettings& settings) {
  SolverPlan plan;
  plan.mask = MaskOf(settings.sparsity);
  plan.order.resize(diagonal.size());
  std::iota(plan.order.begin(), plan.order.end(), 0u);
  std::stable_sort(plan.order.begin(), plan.order.end(), [&](uint32_t a, uint32_t b) {
    return widths[a] != widths[b] ? widths[a] > widths[b] : diagonal[a] > diagonal[b];
  });
  for (const uint32_t column : plan.order) plan.widths.push_back(widths[column]);
  plan.groups = ScaleGroups(plan.widths, settings.group_size);
  plan.blocks = MakeBlocks(plan.groups, plan.widths);
  plan.coded =
      static_cast<size_t>(std::find(plan.widths.begin(), plan.widths.end(), 0) - plan.widths.begin());
  if (plan.mask == MaskKind::kBitmap) {
    std::vector<double> shares(widths.size(), settings.sparsity.rate);
    if (!settings.pruned_shares.empty()) {
      MICA_CHECK(settings.pruned_shares.size() == widths.size());
      for (size_t p = 0; p < shares.size(); ++p) shares[p] = settings.pruned_shares[plan.order[p]];
    }
    plan.pruned_before = PrunedBefore(rows, shares, plan.coded);
  }
  return plan;
}

void PermutedMoments(MatrixView<const float> h, const std::vector<uint32_t>& order,
                     const std::vector<uint32_t>& dead, double dead_diagonal, double damping,
                     MatrixView<float> out) {
  ParallelFor(order.size(), [&](size_t i) {
    const float* from = h.row(order[i]);
    float* to = out.row(i);
    for (size_t j = 0; j < order.size(); ++j) to[j] = from[order[j]];
    for (const uint32_t j : dead) to[j] = 0.0f;
    to[i] = static_cast<float>(double{from[order[i]]} + damping);
  });
  for (const uint32_t i : dead) {
    std::fill_n(out.row(i), order.size(), 0.0f);
    out(i, i) = static_cast<float>(dead_diagonal + damping);
  }
}

}  // namespace mica
