#include "io/container/tensor.h"

#include <bit>
#include <cmath>
#include <limits>

#include "base/half.h"
#include "base/text.h"
#include "tests/error_message.h"
#include "tests/io/container/test_files.h"

namespace mica {
namespace {

using test::Bytes;

template <typename T>
std::string AllPatterns() {
  std::string bytes;
  for (uint32_t bits = 0; bits < 65536; ++bits) bytes += test::Number(static_cast<uint16_t>(bits));
  return bytes;
}

TEST(TensorTest, WidensEveryF16Pattern) {
  const std::string bytes = AllPatterns<F16>();
  const TensorView tensor{"t", DType::kF16, {65536}, Bytes(bytes), "f"};
  std::vector<float> values(65536, 7.0f);
  ReadFloats(tensor, 0, values);
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float expected = ToFloat(F16{static_cast<uint16_t>(bits)});
    ASSERT_EQ(std::bit_cast<uint32_t>(values[bits]), std::bit_cast<uint32_t>(expected)) << "pattern " << bits;
  }
  EXPECT_EQ(values[0x3C00], 1.0f);
  EXPECT_EQ(values[0x0001], 0x1p-24f);
  EXPECT_EQ(values[0x03FF], 1023 * 0x1p-24f);
  EXPECT_EQ(values[0xFBFF], -65504.0f);
  EXPECT_EQ(values[0x7C00], std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(values[0x7E00]));
}

TEST(TensorTest, WidensEveryBF16Pattern) {
  const std::string bytes = AllPatterns<BF16>();
  const TensorView tensor{"t", DType::kBF16, {65536}, Bytes(bytes), "f"};
  std::vector<float> values(65536, 7.0f);
  ReadFloats(tensor, 0, values);
  for (uint32_t bits = 0; bits < 65536; ++bits) ASSERT_EQ(std::bit_cast<uint32_t>(values[bits]), bits << 16);
}

// Every start and length about a vector of 16 values, from an odd address.
TEST(TensorTest, ReadsPartsAtAnyPlace) {
  std::string bytes = " ";
  for (uint16_t i = 0; i < 70; ++i) bytes += test::Number(ToF16(static_cast<float>(i)).bits);
  const TensorView tensor{"t", DType::kF16, {7, 10}, Bytes(bytes).subspan(1), "f"};
  for (size_t first = 0; first <= 70; ++first) {
    for (size_t count = 0; first + count <= 70; ++count) {
      std::vector<float> values(count + 1, -1.0f);
      ReadFloats(tensor, first, std::span(values).first(count));
      for (size_t i = 0; i < count; ++i) ASSERT_EQ(values[i], static_cast<float>(first + i));
      ASSERT_EQ(values[count], -1.0f);
    }
  }
}

TEST(TensorTest, ReadsF32AndRefusesIntegers) {
  const std::string bytes = test::Number(1.5f) + test::Number(-0.0f) + test::Number(3e38f);
  std::vector<float> values(2);
  ReadFloats({"t", DType::kF32, {3}, Bytes(bytes), "f"}, 1, values);
  EXPECT_EQ(std::bit_cast<uint32_t>(values[0]), 0x80000000u);
  EXPECT_EQ(values[1], 3e38f);
  ExpectError(
      [&] {
        ReadFloats({"ids", DType::kI32, {3}, Bytes(bytes), "a.safetensors"}, 1, values);
      },
      {"a.safetensors", "ids", "I32", "expected F32, F16 or BF16"});
}

TEST(TensorTest, ShapeBytesDetectsOverflow) {
  EXPECT_EQ(ShapeBytes({}, 4), 4u);
  EXPECT_EQ(ShapeBytes({3, 5}, 2), 30u);
  EXPECT_EQ(ShapeBytes({3, 0, 5}, 2), 0u);
  EXPECT_EQ(ShapeBytes({uint64_t{1} << 62}, 1), uint64_t{1} << 62);
  EXPECT_EQ(ShapeBytes({uint64_t{1} << 62, 2}, 1), std::nullopt);
  EXPECT_EQ(ShapeBytes({uint64_t{1} << 32, uint64_t{1} << 32}, 1), std::nullopt);
  EXPECT_EQ(ShapeBytes({std::numeric_limits<uint64_t>::max()}, 1), std::nullopt);
  EXPECT_EQ(ShapeText({640, 1792}), "[640, 1792]");
  EXPECT_EQ(ShapeText({}), "[]");
}

TEST(TensorTest, NamesOfTypesGoBothWays) {
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kI64, DType::kI32,
                            DType::kI16, DType::kI8, DType::kU32, DType::kU16, DType::kU8, DType::kBool}) {
    EXPECT_EQ(DTypeFromName(DTypeName(dtype)), dtype);
  }
  EXPECT_EQ(DTypeFromName("F8_E4M3"), std::nullopt);
  EXPECT_EQ(DTypeBytes(DType::kBF16), 2u);
  EXPECT_EQ(DTypeBytes(DType::kBool), 1u);
}

TEST(TextTest, FindsTheFirstByteThatIsNotUtf8) {
  constexpr size_t kValid = std::string_view::npos;
  EXPECT_EQ(FirstInvalidUtf8(""), kValid);
  EXPECT_EQ(FirstInvalidUtf8("plain text that is longer than eight bytes"), kValid);
  EXPECT_EQ(FirstInvalidUtf8("\u00e9\u20ac\U0001F600 \u0000"), kValid);
  EXPECT_EQ(FirstInvalidUtf8("\xf4\x8f\xbf\xbf"), kValid);  // U+10FFFF
  EXPECT_EQ(FirstInvalidUtf8("0123456789\xff"), 10u);
  EXPECT_EQ(FirstInvalidUtf8("ab\xc3"), 2u);  // cut short
  EXPECT_EQ(FirstInvalidUtf8("ab\xe2\x82"), 2u);
  EXPECT_EQ(FirstInvalidUtf8("a\x80"), 1u);     // no lead byte
  EXPECT_EQ(FirstInvalidUtf8("\xc0\xaf"), 0u);  // overlong
  EXPECT_EQ(FirstInvalidUtf8("\xe0\x80\xaf"), 0u);
  EXPECT_EQ(FirstInvalidUtf8("\xf0\x80\x80\xaf"), 0u);
  EXPECT_EQ(FirstInvalidUtf8("x\xed\xa0\x80"), 1u);     // surrogate
  EXPECT_EQ(FirstInvalidUtf8("\xf4\x90\x80\x80"), 0u);  // above U+10FFFF
  for (size_t length = 0; length < 40; ++length) {
    EXPECT_EQ(FirstInvalidUtf8(std::string(length, 'a') + "\xfe" + "tail of some length"), length);
  }
}

TEST(TextTest, PrintableIsOneShortLine) {
  EXPECT_EQ(Printable("model.layers.0"), "model.layers.0");
  EXPECT_EQ(Printable("a\nb\x1b[2J\x7f"), "a\\x0ab\\x1b[2J\\x7f");
  EXPECT_EQ(Printable("gr\u00fc\u00dfe \xff"), "gr\u00fc\u00dfe \\xff");
  EXPECT_EQ(Printable("abcdef", 4), "abcd...");
  EXPECT_EQ(Printable("abcd", 4), "abcd");
}

}  // namespace
}  // namespace mica
