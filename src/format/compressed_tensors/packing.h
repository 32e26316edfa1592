// Integers of 2 to 8 bits in words of 32, as compressed-tensors packs them ("pack-quantized"): of 4 bits,
//
//   word 0   bits 0-3 code 0 | 4-7 code 1 | ... | 28-31 code 7        word 1   code 8 ...
//
// Words are little-endian, so that a row of words is one stream of bits, the lowest of a byte first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace mica {

// Widths of 3, 5, 6 and 7 bits have two packings. Nothing in a file names it, but rows of 32 or more codes
// take another number of words in each.
enum class CodePacking {
  kDense,      // code i has bits [i b, i b + b) of the stream: all of 2, 4 and 8 bits, and of others since
               // compressed-tensors of June 2026
  kWholeCodes  // floor(32 / b) codes in a word, the bits above them idle: of others before
};

// Words that so many codes of a row take.
size_t WordsOf(size_t codes, int bits, CodePacking packing);

// codes: [n] below 2^bits; words: out, 4 WordsOf(n, bits, kDense) bytes.
void PackCodes(std::span<const uint8_t> codes, int bits, std::span<std::byte> words);

// codes[i] = code first + i of a row of words, possibly unaligned.
void UnpackCodes(std::span<const std::byte> words, int bits, CodePacking packing, size_t first,
                 std::span<uint8_t> codes);

// Code `index` of a stream whose words stand `stride` words apart, from `words` on.
uint32_t CodeAcross(std::span<const std::byte> words, size_t stride, int bits, CodePacking packing,
                    size_t index);

}  // namespace mica
