// The matrices of a stage on their way from being solved to being packed, for coders that solve each by
// itself.
#pragma once

#include <cstddef>
#include <deque>
#include <future>
#include <mutex>
#include <utility>
#include <vector>

#include "base/error.h"
#include "compress/coder/coder.h"
#include "compress/coder/later.h"
#include "device/cuda.h"

namespace mica {

class StageQueue {
 public:
  // Solves all matrices, on the rank that leads; the others get their weights. solve(matrix) is complete on
  // return. Each is then packed by finish(solved), one at a time, as that takes all threads and much memory,
  // beside what the caller does next. finish must stay what it is until the matrix is collected.
  template <typename Solve, typename Finish>
  void Run(Device device, const Group& group, std::vector<StageMatrix>& stage, const Solve& solve,
           const Finish& finish) {
    if (group.leads()) SolveAll(device, stage, solve, finish);
    for (StageMatrix& matrix : stage) group.Broadcast(0, matrix.weights.view());
  }

  // As Coder::Collect.
  std::vector<CodedMatrix> Collect(size_t count) {
    MICA_CHECK(count <= packing_.size());
    std::vector<CodedMatrix> collected;
    for (; count > 0; --count, packing_.pop_front()) collected.push_back(packing_.front().get());
    return collected;
  }

 private:
  template <typename Solve, typename Finish>
  void SolveAll(Device device, std::vector<StageMatrix>& stage, const Solve& solve, const Finish& finish) {
    const auto pack = [this, finish](auto solved) {
      packing_.push_back(Later([this, finish, solved = std::move(solved)]() mutable {
        const std::lock_guard<std::mutex> lock(finishing_);
        return finish(std::move(solved));
      }));
    };
    if (stage.size() < 2 || !device.is_cuda()) {
      for (StageMatrix& matrix : stage) pack(solve(matrix));
      return;
    }
    // A matrix alone is a chain of columns that leaves a device idle half of the time: all of the stage at
    // once, each on a queue of its own, once what they begin with is there.
    Synchronize(device);
    std::vector<std::future<decltype(solve(stage[0]))>> solving;
    for (StageMatrix& matrix : stage) solving.push_back(Later([&solve, &matrix] { return solve(matrix); }));
    // All have ended before one is looked at: they refer to what is the caller's.
    for (const auto& one : solving) one.wait();
    for (auto& one : solving) pack(one.get());
  }

  std::mutex finishing_;
  std::deque<std::future<CodedMatrix>> packing_;  // of the matrices that are not collected
};

}  // namespace mica
