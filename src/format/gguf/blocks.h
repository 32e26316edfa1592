// The decoders of single blocks, for decode.cc: `block` holds the type's block_bytes, unaligned; `values` its
// block_cols out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/half.h"

namespace mica::gguf {

// The block as the struct that describes it.
template <typename Block>
Block Load(const std::byte* bytes) {
  Block block;
  std::memcpy(&block, bytes, sizeof(block));
  return block;
}

// plain.cc
void DecodeF32(const std::byte* block, float* values);
void DecodeF16(const std::byte* block, float* values);
void DecodeBF16(const std::byte* block, float* values);

// blocks_of_32.cc
void DecodeQ4_0(const std::byte* block, float* values);
void DecodeQ4_1(const std::byte* block, float* values);
void DecodeQ5_0(const std::byte* block, float* values);
void DecodeQ5_1(const std::byte* block, float* values);
void DecodeQ8_0(const std::byte* block, float* values);

// super_blocks.cc
void DecodeQ2_K(const std::byte* block, float* values);
void DecodeQ3_K(const std::byte* block, float* values);
void DecodeQ4_K(const std::byte* block, float* values);
void DecodeQ5_K(const std::byte* block, float* values);
void DecodeQ6_K(const std::byte* block, float* values);

// uneven_levels.cc
void DecodeIQ4_NL(const std::byte* block, float* values);
void DecodeIQ4_XS(const std::byte* block, float* values);

// vectors.cc
void DecodeIQ2_XXS(const std::byte* block, float* values);
void DecodeIQ2_XS(const std::byte* block, float* values);
void DecodeIQ2_S(const std::byte* block, float* values);
void DecodeIQ3_XXS(const std::byte* block, float* values);
void DecodeIQ3_S(const std::byte* block, float* values);

}  // namespace mica::gguf
