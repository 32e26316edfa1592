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

std::vector<uint32_t> ActivationOrder(const std::vector<double>& energy, const std::vector<double>& use) {
  MICA_CHECK(energy.size() == use.size());
  std::vector<uint32_t> order(energy.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return energy[a] * use[a] > energy[b] * use[b]; });
  return order;
}

std::vector<uint32_t> StoredOrder(const std::vector<uint32_t>& order, const std::vector<uint8_t>& widths,
                                  const MaskKind& mask) {
  const size_t cols = order.size(), cell = mask.CellCols(), cells = (cols + cell - 1) / cell;
  const auto whole = [&](size_t c) { return (c + 1) * cell <= cols; };
  std::vector<size_t> place(cells, 0);  // sum of its columns' positions in `order`
  for (size_t p = 0; p < cols; ++p) place[order[p] / cell] += p;
  std::vector<size_t> sorted(cells);
  std::iota(sorted.begin(), sorted.end(), size_t{0});
  std::stable_sort(sorted.begin(), sorted.end(), [&](size_t a, size_t b) {
    if (widths[a * cell] != widths[b * cell]) return widths[a * cell] > widths[b * cell];
    return whole(a) != whole(b) ? whole(a) : place[a] < place[b];
  });
  std::vector<uint32_t> stored;
  for (const size_t c : sorted) {
    for (size_t j = c * cell; j < std::min(cols, (c + 1) * cell); ++j) {
      MICA_CHECK(widths[j] == widths[c * cell]);
      stored.push_back(static_cast<uint32_t>(j));
    }
  }
  return stored;
}

ColumnPlan MakePlan(size_t rows, const std::vector<uint32_t>& order, const std::vector<uint8_t>& widths,
                    const FixedSolverSettings& settings) {
  ColumnPlan plan;
  plan.mask = MaskOf(settings.sparsity);
  plan.order = StoredOrder(order, widths, plan.mask);
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
