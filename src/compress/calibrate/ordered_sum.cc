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

Array OrderedSum::Take(std::optional<size_t> only) {
  MICA_CHECK(step_ == blocks_.steps());
  const Group& group = blocks_.group();
  if (group.alone()) return std::move(sum_);
  const Array mine = std::move(sum_);
  std::vector<ConstTensor> to(group.size());
  std::vector<Tensor> from(group.size());
  Array all;
  if (!only || *only == group.rank()) all = Array(rows_, cols_, DType::kF32, device_);
  for (size_t r = 0; r < group.size(); ++r) {
    const Part part = PartOf(rows_, r, group.size());
    if (!all.empty()) from[r] = all.view().Rows(part.first, part.count);
    if (!only || *only == r) to[r] = mine.view();
  }
  group.Exchange(to, from);
  return all;
}

const std::vector<double>& OrderedValues::Sum() {
  if (mine_.empty()) return sum_;
  MICA_CHECK(mine_.size() == blocks_.steps());
  std::vector<double> all;
  for (const std::vector<double>& values : mine_) all.insert(all.end(), values.begin(), values.end());
  mine_.clear();
  const std::vector<std::vector<double>> by_rank = blocks_.group().Gather(all);
  // The first rank has a block in every step.
  const size_t length = by_rank[0].size() / blocks_.steps();
  sum_.assign(length, 0.0);
  for (size_t step = 0; step < blocks_.steps(); ++step) {
    for (size_t rank = 0; rank < blocks_.ranks(step); ++rank) {
      MICA_CHECK(by_rank[rank].size() >= (step + 1) * length);
      for (size_t i = 0; i < length; ++i) sum_[i] += by_rank[rank][step * length + i];
    }
  }
  return sum_;
}

}  // namespace mica
