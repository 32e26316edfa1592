#include "io/container/tensor.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/finite.h"
#include "base/text.h"
#include "format/gguf/decode.h"

namespace mica {
namespace {

static_assert(std::endian::native == std::endian::little,
              "tensors are read in place, so the machine must be little-endian");

// Selects with masks instead of branches, so that the compiler turns it into vector code.
[[gnu::always_inline]] inline void WidenF16(const std::byte* source, float* values, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    uint16_t half;
    std::memcpy(&half, source + 2 * i, sizeof(half));
    const uint32_t magnitude = half & 0x7FFFu;
    const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;
    const uint32_t is_subnormal = 0u - static_cast<uint32_t>(magnitude < 0x0400u);
    const uint32_t is_special = 0u - static_cast<uint32_t>(magnitude >= 0x7C00u);  // infinity, NaN
    // Exponent bias 15 becomes 127; exponent 31 becomes 255.
    const uint32_t wide = (magnitude << 13) + (112u << 23) + (is_special & (112u << 23));
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    values[i] = std::bit_cast<float>(sign | (wide & ~is_subnormal) |
                                     (std::bit_cast<uint32_t>(subnormal) & is_subnormal));
  }
}

[[gnu::always_inline]] inline void WidenBF16(const std::byte* source, float* values, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    uint16_t half;
    std::memcpy(&half, source + 2 * i, sizeof(half));
    values[i] = std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
  }
}

void WidenF16Portable(const std::byte* source, float* values, size_t count) {
  WidenF16(source, values, count);
}
void WidenBF16Portable(const std::byte* source, float* values, size_t count) {
  WidenBF16(source, values, count);
}

using Widen = void (*)(const std::byte*, float*, size_t);

#if defined(__x86_64__)
// Plain x86-64 has no vector select and no widening of 16-bit integers; AVX2 has both.
[[gnu::target("avx2")]] void WidenF16Avx2(const std::byte* source, float* values, size_t count) {
  WidenF16(source, values, count);
}
[[gnu::target("avx2")]] void WidenBF16Avx2(const std::byte* source, float* values, size_t count) {
  WidenBF16(source, values, count);
}
const bool kHasAvx2 = __builtin_cpu_supports("avx2");
const Widen kWidenF16 = kHasAvx2 ? WidenF16Avx2 : WidenF16Portable;
const Widen kWidenBF16 = kHasAvx2 ? WidenBF16Avx2 : WidenBF16Portable;
#else
const Widen kWidenF16 = WidenF16Portable;
const Widen kWidenBF16 = WidenBF16Portable;
#endif

// Values [first, first + values.size()) of whole blocks; those of the blocks at both ends that are not asked
// for are decoded besides.
void ReadBlocks(const TensorView& tensor, uint64_t first, std::span<float> values) {
  const auto [type, name, cols, bytes] = *tensor.blocks;
  std::array<float, 256> one;
  MICA_CHECK(cols <= one.size());
  while (!values.empty()) {
    const uint64_t block = first / cols;
    const size_t skip = first % cols;
    size_t count = values.size() / cols * cols;
    if (skip == 0 && count > 0) {
      DecodeRow(type, tensor.data.subspan(block * bytes, count / cols * bytes), values.first(count));
    } else {
      DecodeRow(type, tensor.data.subspan(block * bytes, bytes), std::span(one).first(cols));
      count = std::min(values.size(), cols - skip);
      std::copy_n(one.begin() + static_cast<ptrdiff_t>(skip), count, values.begin());
    }
    values = values.subspan(count);
    first += count;
  }
}

void ReadIntegers(const CompressedTensorsParts& parts, uint64_t first, std::span<float> values) {
  while (!values.empty()) {
    const uint64_t row = first / parts.cols, col = first % parts.cols;
    const size_t count = std::min<uint64_t>(values.size(), parts.cols - col);
    DecodePart(parts, row, col, values.first(count));
    values = values.subspan(count);
    first += count;
  }
}

// Those values in the order of the file.
void ReadStored(const TensorView& tensor, uint64_t first, std::span<float> values) {
  if (tensor.integers != nullptr) return ReadIntegers(*tensor.integers, first, values);
  if (tensor.blocks != nullptr) return ReadBlocks(tensor, first, values);
  const std::byte* source = tensor.data.data() + first * DTypeBytes(tensor.dtype);
  switch (tensor.dtype) {
    case DType::kF32:
      std::memcpy(values.data(), source, values.size_bytes());
      return;
    case DType::kF16:
      return kWidenF16(source, values.data(), values.size());
    case DType::kBF16:
      return kWidenBF16(source, values.data(), values.size());
    default:
      MICA_CHECK(false);
  }
}

}  // namespace

std::string ShapeText(const std::vector<uint64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += fmt::format("{}{}", i == 0 ? "" : ", ", shape[i]);
  return text + "]";
}

std::optional<uint64_t> ShapeBytes(const std::vector<uint64_t>& shape, size_t element_bytes) {
  constexpr uint64_t kLimit = std::numeric_limits<int64_t>::max();
  uint64_t bytes = element_bytes;
  for (const uint64_t extent : shape) {
    if (extent != 0 && bytes > kLimit / extent) return std::nullopt;
    bytes *= extent;
  }
  return bytes;
}

std::vector<std::span<const std::byte>> TensorView::stored() const {
  if (integers == nullptr) return {data};
  return {data, integers->scales, integers->zeros, integers->group_of, integers->shape};
}

uint64_t TensorView::stored_bytes() const {
  uint64_t bytes = 0;
  for (const std::span<const std::byte> part : stored()) bytes += part.size();
  return bytes;
}

std::string TypeName(const TensorView& tensor) {
  if (tensor.integers != nullptr) return TypeNameOf(*tensor.integers);
  return tensor.blocks != nullptr ? tensor.blocks->name : DTypeName(tensor.dtype);
}

bool IsFloat(const TensorView& tensor) {
  if (tensor.integers != nullptr) return true;
  if (tensor.blocks != nullptr) return CanDecode(tensor.blocks->type);
  return tensor.dtype == DType::kF32 || tensor.dtype == DType::kF16 || tensor.dtype == DType::kBF16;
}

void RefuseType(const TensorView& tensor) {
  std::string blocks;
  for (const GgmlTypeFacts& facts : GgmlTypes()) {
    if (tensor.blocks != nullptr && facts.block_cols > 1 && CanDecode(facts.type))
      blocks += fmt::format(", {}", facts.name);
  }
  Fail("{}: tensor {} has dtype {}, expected F32, F16{} BF16{}", tensor.file, Printable(tensor.name),
       TypeName(tensor), blocks.empty() ? " or" : ",", blocks);
}

void ReadFloats(const TensorView& tensor, uint64_t first, std::span<float> values) {
  MICA_CHECK(first <= tensor.elements());
  MICA_CHECK(values.size() <= tensor.elements() - first);
  if (values.empty()) return;
  if (!IsFloat(tensor)) RefuseType(tensor);
  if (tensor.row_order == nullptr) return ReadStored(tensor, first, values);
  const uint64_t cols = tensor.elements() / tensor.shape[0];
  while (!values.empty()) {
    const uint64_t row = first / cols, col = first % cols;
    const size_t count = std::min<uint64_t>(values.size(), cols - col);
    ReadStored(tensor, (*tensor.row_order)[row] * cols + col, values.first(count));
    values = values.subspan(count);
    first += count;
  }
}

void ReadFiniteFloats(const TensorView& tensor, uint64_t first, std::span<float> values) {
  ReadFloats(tensor, first, values);
  const size_t bad = FirstNotFinite(values);
  if (bad == values.size()) return;
  uint64_t element = first + bad;
  std::vector<uint64_t> place(tensor.shape.size());
  for (size_t axis = place.size(); axis-- > 0; element /= tensor.shape[axis])
    place[axis] = element % tensor.shape[axis];
  Fail("{}: tensor {} holds {} at {}, expected finite values; the checkpoint is damaged", tensor.file,
       Printable(tensor.name), std::isnan(values[bad]) ? "NaN" : "infinity", ShapeText(place));
}

void CheckFinite(const TensorView& tensor, uint64_t first, uint64_t count) {
  std::array<float, 4096> values;
  for (uint64_t done = 0; done < count; done += values.size())
    ReadFiniteFloats(tensor, first + done,
                     std::span(values).first(std::min<uint64_t>(values.size(), count - done)));
}

}  // namespace mica
