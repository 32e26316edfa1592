// In which order the blocks of columns are solved and the errors of those that are taken from those to come:
// halves of halves, so that most of the work is in large products. The same on every device.
#pragma once

#include <algorithm>
#include <cstddef>

#include "base/system.h"
#include "ops/feedback/column_plan.h"

namespace mica {

// Columns behind `end` that must be as far advanced as those before it, for the cell of n:m that crosses it.
inline size_t Halo(const ColumnPlan& plan, size_t end) {
  return end < plan.coded && plan.mask.cols > 0 ? std::min(plan.mask.cols - 1, plan.coded - end) : 0;
}

// Calls for blocks [first, last) of the plan, on entry with all updates from before them:
// - work.SolveBlock(block), in order;
// - work.Subtract(start, done, from, to): what the errors of columns [start, done) do to columns [from, to);
// - work.FitLargeGroup(group): of a group of several blocks, when its first column is due.
template <typename Work>
void SolveBlocks(const ColumnPlan& plan, size_t first, size_t last, Work& work) {
  const std::vector<ColumnBlock>& blocks = plan.blocks;
  if (first == last) return;
  ThrowIfInterrupted();
  if (last - first == 1) return work.SolveBlock(blocks[first]);
  size_t middle = (first + last) / 2;
  size_t split = 0;  // the start of a group nearest to the middle
  for (size_t b = first + 1; b < last; ++b) {
    const auto distance = [&](size_t at) { return at > middle ? at - middle : middle - at; };
    if (blocks[b].starts_group && (split == 0 || distance(b) < distance(split))) split = b;
  }
  if (split != 0) {
    middle = split;
  } else if (blocks[first].starts_group && (last == blocks.size() || blocks[last].starts_group)) {
    const ScaleGroup& group = plan.groups[blocks[first].first_group];
    if (group.scale_row >= 0) work.FitLargeGroup(group);
  }
  SolveBlocks(plan, first, middle, work);
  const size_t start = blocks[first].start, done = blocks[middle].start, end = blocks[last - 1].end;
  const size_t from = done + Halo(plan, done), to = end + Halo(plan, end);
  if (from < to) work.Subtract(start, done, from, to);
  SolveBlocks(plan, middle, last, work);
}

}  // namespace mica
