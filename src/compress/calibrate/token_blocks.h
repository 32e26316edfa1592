// How calibration tokens are dealt to ranks, so that sums over them do not depend on how many there are.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "device/group.h"
#include "model/window.h"

namespace mica {

// Consecutive tokens of a text.
struct TokenRange {
  size_t first = 0, count = 0;
  bool empty() const { return count == 0; }
};

// The tokens of a calibration in *blocks* of whole runs (model/window.h), which go round the ranks of a group: in
// step s, rank r has block s * size + r. A sum over tokens is taken over each block by itself, on whichever rank has
// it, and the blocks' sums are added in their order (ordered_sum.h): after each step all that has been summed is one.
class TokenBlocks {
 public:
  // Blocks of all ranks at most, and so ranks that have work. More blocks would be more sums to add: each takes what
  // moments of 13,824 channels take, .8 GB, through memory.
  static constexpr size_t kMost = 8;

  // tokens: of whole windows. most: 0 for one block a run.
  TokenBlocks(size_t tokens, size_t window, const Group& group = Group::Alone(), size_t most = kMost)
      : group_(&group), tokens_(tokens), run_tokens_(RunTokens(window)) {
    const size_t runs = (tokens + run_tokens_ - 1) / run_tokens_;
    count_ = most == 0 ? runs : std::min(runs, most);
  }

  const Group& group() const { return *group_; }
  size_t tokens() const { return tokens_; }  // of all ranks
  size_t run_tokens() const { return run_tokens_; }
  size_t runs() const { return (tokens_ + run_tokens_ - 1) / run_tokens_; }
  size_t count() const { return count_; }
  size_t steps() const { return (count_ + group_->size() - 1) / group_->size(); }
  // Ranks that have a block in this step: the first ones.
  size_t ranks(size_t step) const { return std::min(group_->size(), count_ - step * group_->size()); }

  TokenRange Block(size_t block) const {
    const size_t first = runs() * block / count_ * run_tokens_;
    return {first, std::min(tokens_, runs() * (block + 1) / count_ * run_tokens_) - first};
  }
  // This rank's, empty where it has none in this step.
  TokenRange Mine(size_t step) const {
    return group_->rank() < ranks(step) ? Block(step * group_->size() + group_->rank()) : TokenRange{};
  }
  // This rank's tokens in all steps.
  size_t MineTokens() const {
    size_t sum = 0;
    for (size_t step = 0; step < steps(); ++step) sum += Mine(step).count;
    return sum;
  }
  // Of a value a token of the whole text, those of this rank's tokens, step by step.
  template <typename Value>
  std::vector<Value> MineOf(std::span<const Value> all) const {
    std::vector<Value> mine;
    for (size_t step = 0; step < steps(); ++step) {
      const auto part = all.subspan(Mine(step).first, Mine(step).count);
      mine.insert(mine.end(), part.begin(), part.end());
    }
    return mine;
  }

 private:
  const Group* group_;
  size_t tokens_, run_tokens_, count_ = 0;
};

}  // namespace mica
