#include "compress/calibrate/ordered_sum.h"

#include <utility>

#include "base/error.h"
#include "ops/linalg/arrange.h"

namespace mica {

void OrderedSum::Add(Array block) {
  const Group& group = blocks_.group();
  const size_t ranks = blocks_.ranks(step_++);
  MICA_CHECK(block.empty() == (group.rank() >= ranks));
  if (group.alone()) {
    if (!sum_.empty()) ScaleAndAdd(std::as_const(sum_).view(), 1.0f, block.view());
    sum_ = std::move(block);
    return;
  }
  const size_t size = group.size();
  const Part mine = PartOf(rows_, group.rank(), size);
  std::vector<ConstTensor> to(size);
  std::vector<Tensor> from(size);
  Array received(ranks * mine.count, cols_, DType::kF32, device_);
  for (size_t r = 0; r < size; ++r) {
    const Part part = PartOf(rows_, r, size);
    if (!block.empty()) to[r] = std::as_const(block).view().Rows(part.first, part.count);
    if (r < ranks) from[r] = received.view().Rows(r * mine.count, mine.count);
  }
  group.Exchange(to, from);
  if (mine.count == 0) return;
  Array sum(mine.count, cols_, DType::kF32, device_);
  ConstTensor so_far = sum_.empty() ? ConstTensor() : std::as_const(sum_).view();
  for (size_t r = 0; r < ranks; ++r) {
    if (so_far.data != nullptr) ScaleAndAdd(so_far, 1.0f, from[r]);
    so_far = from[r];
  }
  Copy(so_far, sum.view());
  sum_ = std::move(sum);
}

Array OrderedSum::Take() {
  MICA_CHECK(step_ == blocks_.steps());
  const Group& group = blocks_.group();
  if (group.alone()) return std::move(sum_);
  Array all(rows_, cols_, DType::kF32, device_);
  std::vector<Part> parts;
  for (size_t r = 0; r < group.size(); ++r) parts.push_back(PartOf(rows_, r, group.size()));
  if (!sum_.empty()) Copy(std::as_const(sum_).view(), all.view().Rows(parts[group.rank()].first, sum_.rows()));
  sum_ = Array();
  group.ShareRows(all.view(), parts);
  return all;
}

void OrderedValues::Add(std::span<const double> values) {
  for (const std::vector<double>& of_rank : blocks_.group().Gather(values)) {
    if (of_rank.empty()) continue;
    if (sum_.empty()) {
      sum_ = of_rank;
      continue;
    }
    MICA_CHECK(of_rank.size() == sum_.size());
    for (size_t i = 0; i < sum_.size(); ++i) sum_[i] += of_rank[i];
  }
}

}  // namespace mica
