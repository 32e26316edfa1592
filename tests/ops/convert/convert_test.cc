// Conversions between every two types against the scalar ones of base/half.h, bit for bit.
#include "ops/convert/convert.h"

#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "base/threads.h"
#include "tests/ops/tensors.h"

namespace mica {
namespace {

class ConvertTest : public testing::TestWithParam<std::tuple<DType, DType>> {
 protected:
  DType from() const { return std::get<0>(GetParam()); }
  DType to() const { return std::get<1>(GetParam()); }
};
constexpr DType kTypes[] = {DType::kF32, DType::kBF16, DType::kF16};
INSTANTIATE_TEST_SUITE_P(Types, ConvertTest,
                         testing::Combine(testing::ValuesIn(kTypes), testing::ValuesIn(kTypes)),
                         [](const auto& info) {
                           return std::string(DTypeName(std::get<0>(info.param))) + "To" +
                                  DTypeName(std::get<1>(info.param));
                         });

// Each value as the scalar conversion rounds it.
std::vector<float> RoundedTo(DType dtype, std::vector<float> values) {
  DispatchFloat(dtype, [&](auto type) {
    for (float& value : values) value = Widen(Narrow<decltype(type)>(value));
  });
  return values;
}

constexpr std::pair<size_t, size_t> kShapes[] = {{1, 1}, {3, 7}, {2, 16}, {70, 33}, {129, 65}};

TEST_P(ConvertTest, RoundsOnce) {
  for (const auto& [rows, cols] : kShapes) {
    const Array in = RandomTensor(rows, cols, from(), 1, 100.0f);
    Array out = Poisoned(rows, cols, to());
    Convert(in.view(), out.view());
    EXPECT_EQ(Floats(out.view()), RoundedTo(to(), Floats(in.view())));
  }
}

TEST_P(ConvertTest, ScalesInFp32AndRoundsOnce) {
  for (const auto& [rows, cols] : kShapes) {
    const Array in = RandomTensor(rows, cols, from(), 2, 10.0f);
    const std::vector<float> factors = RandomValues(rows, 3);
    std::vector<float> expected = Floats(in.view());
    for (size_t i = 0; i < expected.size(); ++i) expected[i] = factors[i / cols] * expected[i];
    Array out = Poisoned(rows, cols, to());
    ConvertScaled(in.view(), factors, out.view());
    EXPECT_EQ(Floats(out.view()), RoundedTo(to(), expected));
  }
}

TEST_P(ConvertTest, ReadsAndWritesAtAnyStride) {
  const Array in = RandomTensor(9, 40, from(), 4);
  Array out = Poisoned(9, 50, to()), dense = Poisoned(9, 21, to());
  Convert(in.view().Cols(5, 21), out.view().Cols(3, 21));
  Convert(in.view().Cols(5, 21), dense.view());
  EXPECT_EQ(Floats(out.view().Cols(3, 21)), Floats(dense.view()));
  EXPECT_TRUE(AllNan(out.view().Cols(0, 3)));
  EXPECT_TRUE(AllNan(out.view().Cols(24, 26)));
}

TEST_P(ConvertTest, KeepsNan) {
  Array in = RandomTensor(1, 19, from(), 5), out(1, 19, to());
  DispatchFloat(from(), [&](auto type) {
    using T = decltype(type);
    in.view().host<T>()(0, 18) = Narrow<T>(std::nanf(""));
  });
  Convert(in.view(), out.view());
  for (size_t i = 0; i < 19; ++i) EXPECT_EQ(std::isnan(Floats(out.view())[i]), i == 18);
}

TEST_P(ConvertTest, ConvertedCopiesOnlyWhatIsOfAnotherType) {
  const Array in = RandomTensor(4, 6, from(), 6);
  Array buffer;
  const ConstTensor out = Converted(in.view(), to(), buffer);
  EXPECT_EQ(out.dtype, to());
  EXPECT_EQ(out.data == in.view().data, from() == to());
  EXPECT_EQ(Floats(out), RoundedTo(to(), Floats(in.view())));
}

}  // namespace
}  // namespace mica
