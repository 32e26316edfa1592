// Types of the elements of tensors, in files and in memory.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace mica {

enum class DType { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU32, kU16, kU8, kBool };

// Bytes of one element.
size_t DTypeBytes(DType dtype);
// The name safetensors gives it: "F16", "BF16", "U8", ...
const char* DTypeName(DType dtype);
// The type of that name, or nothing.
std::optional<DType> DTypeFromName(std::string_view name);

}  // namespace mica
