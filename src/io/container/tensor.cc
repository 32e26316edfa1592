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

void ReadFloats(const TensorView& tensor, uint64_t first, std::span<float> values) {
  MICA_CHECK(first <= tensor.elements());
  MICA_CHECK(values.size() <= tensor.elements() - first);
  if (values.empty()) return;
  const std::byte* source = tensor.data.data() + first * DTypeBytes(tensor.dtype);
  switch (tensor.dtype) {
    case DType::kF32:
      std::memcpy(values.data(), source, values.size_bytes());
      return;
    case DType::kF16:
      kWidenF16(source, values.data(), values.size());
      return;
    case DType::kBF16:
      kWidenBF16(source, values.data(), values.size());
      return;
    default:
      Fail("{}: tensor {} has dtype {}, expected F32, F16 or BF16", tensor.file, Printable(tensor.name),
           DTypeName(tensor.dtype));
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
