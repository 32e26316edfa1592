// The processes that do one job together, a *rank* each, with a device of its own.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "device/device.h"
#include "device/tensor.h"

namespace mica {

// Some of things in a row.
struct Part {
  size_t first = 0, count = 0;
};
// The part of `count` things that a rank of `size` has: nearly equal parts in the order of ranks.
constexpr Part PartOf(size_t count, size_t rank, size_t size) {
  const size_t first = count * rank / size;
  return {first, count * (rank + 1) / size - first};
}

// What the ranks say to one another. Every call is one of all ranks: each makes the same calls in the same
// order, one thread at a time, or all wait for ever. What a call brings to the processor is there on return,
// what it brings to a CUDA device comes in the order of the thread's work.
class Group {
 public:
  Group(size_t rank, size_t size) : rank_(rank), size_(size) {}
  virtual ~Group() = default;
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;
  // The group of a process that works by itself.
  static const Group& Alone();

  size_t rank() const { return rank_; }
  size_t size() const { return size_; }
  bool alone() const { return size_ == 1; }
  // Whether this is the rank that writes files and talks to the user.
  bool leads() const { return rank_ == 0; }

  // to[r] goes to rank r, from[r] comes from rank r, this one included. Tensors are dense and all on one
  // device; what a rank sends has the shape and type of what the other expects; empty ones are nothing.
  void Exchange(std::span<const ConstTensor> to, std::span<const Tensor> from) const;
  // Every rank gets what `root` has. x: dense, of one shape and type on all ranks.
  void Broadcast(size_t root, Tensor x) const;
  // x: dense, [rows, cols] on all ranks, of which each has a part of the rows, parts[rank]; all get all.
  void ShareRows(Tensor x, std::span<const Part> parts) const;
  // A text of any length; what other ranks than `root` give is not looked at.
  std::string Broadcast(size_t root, const std::string& text) const;
  // What all ranks give, by rank, on all of them; as many values as each likes.
  std::vector<std::vector<double>> Gather(std::span<const double> mine) const;
  void Barrier() const { Gather({}); }

  // The last that a rank says: the work has ended well on all of them, or badly on this one, which ends the
  // others as well where that takes more than its own end.
  virtual void End(bool well) const {}

 protected:
  using Bytes = std::span<std::byte>;
  using ConstBytes = std::span<const std::byte>;
  virtual void ExchangeBytes(Device device, std::span<const ConstBytes> to,
                             std::span<const Bytes> from) const = 0;
  virtual void BroadcastBytes(Device device, size_t root, Bytes bytes) const = 0;

 private:
  const size_t rank_, size_;
};

}  // namespace mica
