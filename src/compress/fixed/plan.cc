#include "compress/fixed/plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/threads.h"
#include "compress/budget/sparsity_plan.h"
#include "format/mask/sparsity_pattern.h"

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

ColumnPlan MakePlan(size_t rows, const std::vector<float>& diagonal, const std::vector<uint8_t>& widths,
                    const FixedSolverSettings& settings) {
  ColumnPlan plan;
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

}  // namespace mica
