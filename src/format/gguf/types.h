// The types of tensors in GGUF files: how many values a block of each holds and how many bytes it takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace mica {

// The numbers are those of the files. Gaps belong to types that are not in files any more or never were (sums
// of products).
enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ2_XXS = 16,
  kIQ2_XS = 17,
  kIQ3_XXS = 18,
  kIQ1_S = 19,
  kIQ4_NL = 20,
  kIQ3_S = 21,
  kIQ2_S = 22,
  kIQ4_XS = 23,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kIQ1_M = 29,
  kBF16 = 30,
  kTQ1_0 = 34,
  kTQ2_0 = 35,
  kMXFP4 = 39,
  kNVFP4 = 40,
  kQ1_0 = 41,
  kQ2_0 = 42,
};

struct GgmlTypeFacts {
  GgmlType type;
  const char* name;    // "Q4_K"
  size_t block_cols;   // neighbouring values of a row that are coded together; 1 for plain types
  size_t block_bytes;  // of such a block
};

// All types, by number.
std::span<const GgmlTypeFacts> GgmlTypes();
// The facts of the type of that number, or null when there is none.
const GgmlTypeFacts* FindGgmlType(uint32_t number);
// The same by its name, "Q4_K".
const GgmlTypeFacts* FindGgmlType(std::string_view name);
// The same for a type that is one.
const GgmlTypeFacts& FactsOf(GgmlType type);

}  // namespace mica
