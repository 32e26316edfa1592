// From the stored blocks of a GGUF tensor to its values.
#pragma once

#include <cstddef>
#include <span>

#include "format/gguf/types.h"

namespace mica {

// Whether DecodeRow knows the type: F32, F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, IQ2_XXS to IQ3_S,
// IQ4_NL and IQ4_XS.
bool CanDecode(GgmlType type);

// values: [cols] out, cols a multiple of the type's block_cols; bytes: its cols / block_cols blocks, possibly
// unaligned. Any bytes are a valid block. Each value is what the block's codes and scales say, rounded once
// to FP32: products of a scale and codes have at most 25 bits, offsets 17. (NaN and infinite scales are
// passed on.) Throws (our bug) for a type that cannot be decoded and for sizes that do not fit.
void DecodeRow(GgmlType type, std::span<const std::byte> bytes, std::span<float> values);

}  // namespace mica
