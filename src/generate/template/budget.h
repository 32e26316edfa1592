// What one rendering of a template may use. A template comes from outside: one that never ends, that doubles
// a text again and again or that calls itself ends in an Error after a bounded time and in bounded memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "base/error.h"

namespace mica::jinja {

struct Limits {
  uint64_t steps = 20'000'000;       // nodes evaluated, elements made, and one for each 32 bytes looked at
  uint64_t held_bytes = 128u << 20;  // of the values alive at one time
  uint64_t output_bytes = 16u << 20;
  int depth = 600;  // of expressions, statements and calls of macros inside each other
};

inline constexpr int kValueDepth = 100;   // of lists and dicts inside each other
inline constexpr int kSyntaxDepth = 200;  // of expressions and statements in the source
inline constexpr size_t kSourceBytes = 1u << 20;
inline constexpr int64_t kLongestRange = 100'000;  // as transformers' sandbox has it

// Counts what a rendering uses; throws Error beyond a limit.
class Budget {
 public:
  explicit Budget(const Limits& limits = {}) : limits_(limits) {}

  void Step(uint64_t count = 1) {
    steps_ += count;
    if (steps_ > limits_.steps) Fail("the template does not end within {} steps", limits_.steps);
  }
  // Bytes that are read or compared.
  void Read(size_t bytes) { Step(1 + bytes / 32); }
  void Hold(size_t bytes) {
    if (held_ + bytes > limits_.held_bytes)
      Fail("the template needs more than {} MiB for its values", limits_.held_bytes >> 20);
    held_ += bytes;
  }
  void Release(size_t bytes) { held_ -= bytes; }
  const Limits& limits() const { return limits_; }

 private:
  const Limits limits_;
  uint64_t steps_ = 0, held_ = 0;
};

// Bytes of a value, taken from the budget as long as the value lives.
class Holding {
 public:
  Holding() = default;
  Holding(std::shared_ptr<Budget> budget, size_t bytes) : budget_(std::move(budget)), bytes_(bytes) {
    budget_->Hold(bytes_);
  }
  ~Holding() {
    if (budget_) budget_->Release(bytes_);
  }
  Holding(Holding&& other) noexcept : budget_(std::move(other.budget_)), bytes_(other.bytes_) {}
  Holding& operator=(Holding&&) = delete;

 private:
  std::shared_ptr<Budget> budget_;
  size_t bytes_ = 0;
};

}  // namespace mica::jinja
