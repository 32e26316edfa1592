#include "format/compressed_tensors/parts.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/half.h"

namespace mica {
namespace {

template <typename T>
T At(std::span<const std::byte> values, size_t index) {
  T value;
  std::memcpy(&value, values.data() + index * sizeof(T), sizeof(T));
  return value;
}

float ScaleAt(const CompressedTensorsParts& parts, size_t index) {
  if (parts.scale_dtype == DType::kF32) return At<float>(parts.scales, index);
  if (parts.scale_dtype == DType::kBF16) return ToFloat(At<BF16>(parts.scales, index));
  MICA_CHECK(parts.scale_dtype == DType::kF16);
  return ToFloat(At<F16>(parts.scales, index));
}

struct Level {
  float scale;
  int zero;
  float Value(uint8_t code) const { return scale * static_cast<float>(code - zero); }
};

Level LevelOf(const CompressedTensorsParts& parts, size_t row, size_t group) {
  Level level{ScaleAt(parts, row * parts.groups() + group), 1 << (parts.bits - 1)};
  if (!parts.zeros.empty()) {
    level.zero = static_cast<int>(
        CodeAcross(parts.zeros.subspan(4 * group), parts.groups(), parts.bits, parts.zero_packing, row));
  }
  return level;
}

}  // namespace

std::string TypeNameOf(const CompressedTensorsFacts& facts) {
  return fmt::format("int{} g{}", facts.bits, facts.group);
}

StoredBits BitsOf(const CompressedTensorsParts& parts) {
  return {.codes = 8 * parts.words.size(),
          .scales = 8 * parts.scales.size(),
          .zeros = 8 * parts.zeros.size(),
          .groups = 8 * (parts.group_of.size() + parts.shape.size())};
}

void DecodePart(const CompressedTensorsParts& parts, size_t row, size_t first_col, std::span<float> values) {
  MICA_CHECK(row < parts.rows);
  MICA_CHECK(first_col + values.size() <= parts.cols);
  const size_t row_bytes = 4 * WordsOf(parts.cols, parts.bits, parts.packing);
  const std::span<const std::byte> words = parts.words.subspan(row * row_bytes, row_bytes);
  std::array<uint8_t, 256> codes;
  if (!parts.group_of.empty()) {
    std::vector<Level> levels(parts.groups());
    for (size_t g = 0; g < levels.size(); ++g) levels[g] = LevelOf(parts, row, g);
    for (size_t done = 0; done < values.size();) {
      const size_t count = std::min(codes.size(), values.size() - done), col = first_col + done;
      UnpackCodes(words, parts.bits, parts.packing, col, std::span(codes).first(count));
      for (size_t i = 0; i < count; ++i)
        values[done + i] = levels[static_cast<size_t>(At<int32_t>(parts.group_of, col + i))].Value(codes[i]);
      done += count;
    }
    return;
  }
  for (size_t done = 0; done < values.size();) {
    const size_t col = first_col + done, group = col / parts.group;
    const size_t count = std::min({codes.size(), values.size() - done, (group + 1) * parts.group - col});
    const Level level = LevelOf(parts, row, group);
    UnpackCodes(words, parts.bits, parts.packing, col, std::span(codes).first(count));
    for (size_t i = 0; i < count; ++i) values[done + i] = level.Value(codes[i]);
    done += count;
  }
}

void DecodeRows(const CompressedTensorsParts& parts, size_t first_row, MatrixView<float> out) {
  for (size_t r = 0; r < out.rows; ++r) DecodePart(parts, first_row + r, 0, {out.row(r), out.cols});
}

}  // namespace mica
