#include "base/dtype.h"

#include "base/error.h"

namespace mica {
namespace {

struct DTypeTrait {
  DType dtype;
  const char* name;
  size_t bytes;
};
constexpr DTypeTrait kDTypes[] = {
    {DType::kF64, "F64", 8}, {DType::kF32, "F32", 4}, {DType::kF16, "F16", 2}, {DType::kBF16, "BF16", 2},
    {DType::kI64, "I64", 8}, {DType::kI32, "I32", 4}, {DType::kI16, "I16", 2}, {DType::kI8, "I8", 1},
    {DType::kU32, "U32", 4}, {DType::kU16, "U16", 2}, {DType::kU8, "U8", 1},   {DType::kBool, "BOOL", 1},
};

const DTypeTrait& Trait(DType dtype) {
  for (const DTypeTrait& trait : kDTypes) {
    if (trait.dtype == dtype) return trait;
  }
  MICA_CHECK(false);
  return kDTypes[0];
}

}  // namespace

size_t DTypeBytes(DType dtype) { return Trait(dtype).bytes; }

const char* DTypeName(DType dtype) { return Trait(dtype).name; }

std::optional<DType> DTypeFromName(std::string_view name) {
  for (const DTypeTrait& trait : kDTypes) {
    if (name == trait.name) return trait.dtype;
  }
  return std::nullopt;
}

}  // namespace mica
