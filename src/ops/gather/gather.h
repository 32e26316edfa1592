// What is done with rows of a table on a CUDA device, where the processor reads the file itself.
#pragma once

#include <cstdint>
#include <span>

#include "device/tensor.h"

namespace mica {

// out[t] = table[ids[t]]. table: [rows, cols] FP32 on a CUDA device; ids: [tokens] in [0, rows); out: [tokens,
// cols] FP32 there.
void GatherRows(ConstTensor table, std::span<const int32_t> ids, Tensor out);

// Whether no value is NaN or infinite. x: dense, FP32, BF16 or F16, on a CUDA device; waits for it.
bool AllFinite(ConstTensor x);

}  // namespace mica
