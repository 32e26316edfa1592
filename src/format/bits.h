// Bit streams of the packed format: the first value stands in the lowest bits of the first byte.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/error.h"

namespace mica {

static_assert(std::endian::native == std::endian::little,
              "the packed format is read and written as little-endian words");

// Appends values to a vector of bytes.
class BitWriter {
 public:
  explicit BitWriter(std::vector<std::byte>& bytes) : bytes_(&bytes) {}
  ~BitWriter() { MICA_CHECK(pending_ == 0); }
  BitWriter(const BitWriter&) = delete;
  BitWriter& operator=(const BitWriter&) = delete;

  // value < 2^bits, bits <= 32.
  void Put(uint32_t value, int bits) {
    word_ |= uint64_t{value} << pending_;
    pending_ += bits;
    while (pending_ >= 8) {
      bytes_->push_back(static_cast<std::byte>(word_ & 0xFF));
      word_ >>= 8;
      pending_ -= 8;
    }
  }
  // Adds zero bits up to the next multiple of `alignment` bytes from the start of the vector; must end every
  // stream.
  void Align(size_t alignment) {
    if (pending_ > 0) Put(0, 8 - pending_);
    bytes_->resize((bytes_->size() + alignment - 1) / alignment * alignment, std::byte{0});
  }

 private:
  std::vector<std::byte>* bytes_;
  uint64_t word_ = 0;
  int pending_ = 0;  // bits in word_, below 8 between calls
};

// The 8 bytes at p as a word; bytes at `end` and beyond read as zero.
inline uint64_t LoadWord(const std::byte* p, const std::byte* end) {
  uint64_t word = 0;
  if (end - p >= 8) {
    std::memcpy(&word, p, 8);
  } else if (p < end) {
    std::memcpy(&word, p, static_cast<size_t>(end - p));
  }
  return word;
}

// out[i] = the value of kBits bits at bit + i * kBits of [base, end).
template <int kBits, typename T>
void ExtractBits(const std::byte* base, const std::byte* end, uint64_t bit, size_t count, T* out) {
  constexpr size_t kPerWord =
      57 / kBits;  // a word loaded at a byte holds at least 57 bits from any bit of that byte on
  constexpr uint64_t kMask = (uint64_t{1} << kBits) - 1;
  size_t i = 0;
  for (; i + kPerWord <= count; i += kPerWord, bit += kPerWord * kBits) {
    const uint64_t word = LoadWord(base + bit / 8, end) >> (bit % 8);
    for (size_t k = 0; k < kPerWord; ++k) out[i + k] = static_cast<T>((word >> (k * kBits)) & kMask);
  }
  const uint64_t word = LoadWord(base + bit / 8, end) >> (bit % 8);
  for (size_t k = 0; i < count; ++i, ++k) out[i] = static_cast<T>((word >> (k * kBits)) & kMask);
}

}  // namespace mica
