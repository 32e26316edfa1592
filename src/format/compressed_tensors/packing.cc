#include "format/compressed_tensors/packing.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace mica {
namespace {

constexpr size_t kWordBits = 32, kWordBytes = 4;

size_t CodesOfWord(int bits) { return kWordBits / static_cast<size_t>(bits); }

// Where a code begins in the stream of bits.
size_t BitOf(size_t index, int bits, CodePacking packing) {
  const auto width = static_cast<size_t>(bits);
  if (packing == CodePacking::kDense) return index * width;
  const size_t each = CodesOfWord(bits);
  return index / each * kWordBits + index % each * width;
}

uint32_t WordAt(std::span<const std::byte> words, size_t word) {
  uint32_t value;
  std::memcpy(&value, words.data() + word * kWordBytes, kWordBytes);
  return value;
}

}  // namespace

size_t WordsOf(size_t codes, int bits, CodePacking packing) {
  MICA_CHECK(bits >= 2);
  MICA_CHECK(bits <= 8);
  if (packing == CodePacking::kDense) return (codes * static_cast<size_t>(bits) + kWordBits - 1) / kWordBits;
  return (codes + CodesOfWord(bits) - 1) / CodesOfWord(bits);
}

void PackCodes(std::span<const uint8_t> codes, int bits, std::span<std::byte> words) {
  MICA_CHECK(words.size() == kWordBytes * WordsOf(codes.size(), bits, CodePacking::kDense));
  size_t at = 0;
  uint32_t pending = 0;  // bits that do not fill a byte yet
  int held = 0;
  for (const uint8_t code : codes) {
    MICA_CHECK(code < 1u << bits);
    pending |= static_cast<uint32_t>(code) << held;
    held += bits;
    while (held >= 8) {
      words[at++] = static_cast<std::byte>(pending & 0xFFu);
      pending >>= 8;
      held -= 8;
    }
  }
  if (held > 0) words[at++] = static_cast<std::byte>(pending);
  std::fill(words.begin() + static_cast<std::ptrdiff_t>(at), words.end(), std::byte{0});
}

void UnpackCodes(std::span<const std::byte> words, int bits, CodePacking packing, size_t first,
                 std::span<uint8_t> codes) {
  const uint32_t mask = (1u << bits) - 1;
  for (size_t i = 0; i < codes.size(); ++i) {
    const size_t bit = BitOf(first + i, bits, packing), byte = bit / 8;
    // A code lies in two bytes at most.
    auto value = static_cast<uint32_t>(words[byte]);
    if (byte + 1 < words.size()) value |= static_cast<uint32_t>(words[byte + 1]) << 8;
    codes[i] = static_cast<uint8_t>(value >> (bit % 8) & mask);
  }
}

uint32_t CodeAcross(std::span<const std::byte> words, size_t stride, int bits, CodePacking packing,
                    size_t index) {
  const size_t bit = BitOf(index, bits, packing), word = bit / kWordBits, shift = bit % kWordBits;
  uint64_t value = WordAt(words, word * stride);
  if (shift + static_cast<size_t>(bits) > kWordBits)
    value |= uint64_t{WordAt(words, (word + 1) * stride)} << kWordBits;
  return static_cast<uint32_t>(value >> shift) & ((1u << bits) - 1);
}

}  // namespace mica
