#include <gtest/gtest.h>

#include "ops/packed_product/device_forms.h"
#include "tests/ops/codes/testing.h"
#include "tests/ops/packed_product/cuda_oracle.h"

namespace mica {
namespace {

// y [tokens, rows] as the kernels add: 16 bytes of values a lane.
Matrix<float> Oracle(const Matrix<float>& weights, size_t value_bytes, const Matrix<float>& x,
                     const std::vector<float>& bias) {
  const size_t each = 16 / value_bytes;
  Matrix<float> y(x.rows(), weights.rows());
  for (size_t t = 0; t < x.rows(); ++t) {
    for (size_t r = 0; r < weights.rows(); ++r) {
      LaneSums sums{};
      for (size_t c = 0; c < x.cols(); ++c) {
        float& sum = sums[c / each % 32];
        sum = std::fmaf(weights(r, c), x(t, c), sum);
      }
      y(t, r) = bias.empty() ? SumOfLanes(sums) : SumOfLanes(sums) + bias[r];
    }
  }
  return y;
}

Matrix<float> Widened(const Array& values) {
  const std::vector<float> floats = Floats(values.view());
  Matrix<float> wide(values.rows(), values.cols());
  std::copy(floats.begin(), floats.end(), wide.data());
  return wide;
}

class CudaPlain : public testing::TestWithParam<DType> {};

TEST_P(CudaPlain, EqualsTheOracleForFewTokens) {
  MICA_NEEDS_CUDA();
  for (const auto& [rows, cols] : std::vector<std::pair<size_t, size_t>>{
           {1, 1}, {3, 7}, {9, 8}, {17, 255}, {130, 256}, {41, 1028}, {20, 5120}, {301, 1111}}) {
    SCOPED_TRACE(fmt::format("{} x {}", rows, cols));
    const Array values = RandomTensor(rows, cols, GetParam(), 3);
    const Matrix<float> wide = Widened(values);
    const ResidentWeights weights = ResidentWeights::OfValues(OnCuda(values.view()));
    EXPECT_STREQ(weights.form().name(), "plain");
    EXPECT_EQ(weights.bytes(), rows * cols * DTypeBytes(GetParam()));
    const Matrix<float> x = RandomInputs(8, cols, 5);
    const std::vector<float> bias = RandomValues(rows, 6);
    const Matrix<float> expected = Oracle(wide, DTypeBytes(GetParam()), x, bias);
    ExpectFewTokens(weights, x, bias, expected);
    for (const size_t tokens : {1, 2, 3, 4, 5, 8}) {
      const Matrix<float> some = RowsFrom(x, 8 - tokens, tokens);
      // Inputs whose rows begin at multiples of 16 bytes.
      const Array dense = OnCuda(some);
      Array y = PoisonedOnCuda(tokens, rows, DType::kF32);
      const ResidentProduct one{&weights, {}, y.view()};
      MultiplyResident(dense.view(), {&one, 1});
      EXPECT_TRUE(SameBytes(OnHost(y.view()), Oracle(wide, DTypeBytes(GetParam()), some, {})))
          << tokens << " tokens, dense";
    }
    ExpectRows(weights, wide);
    ExpectNarrowProduct(weights, wide, 9, GetParam() == DType::kBF16 ? 0x1p-7 : 0x1p-18);
  }
}
INSTANTIATE_TEST_SUITE_P(Types, CudaPlain, testing::Values(DType::kF32, DType::kBF16, DType::kF16),
                         NameOfType);

// Any coding, on any device, against the decoded weights in double precision.
class ResidentOnDevices : public OnDevices {};
TEST_P(ResidentOnDevices, ProductsAreThoseOfTheDecodedWeights) {
  EntropyMatrix entropy = RandomEntropy(150, 400, 8, 1.0, 3);
  FitEntropyModel(entropy);
  const PackedMatrix of_entropy = Pack(entropy),
                     of_fixed = Pack(RandomFixed(150, {{3, 100}, {4, 300}}, 128, MaskKind::kBitmap, 3));
  for (const AnyParts& parts : {AnyParts(OpenedEntropy(of_entropy)), AnyParts(OpenedFixed(of_fixed))}) {
    Matrix<float> decoded(150, 400);
    Decode(parts, 0, decoded);
    const ResidentWeights weights = ResidentWeights::OfParts(parts, device());
    EXPECT_EQ(weights.outputs(), 150u);
    EXPECT_EQ(weights.inputs(), 400u);
    for (const size_t tokens : {1, 4, 20}) {
      const std::vector<float> values = RandomValues(tokens * 400, 4);
      Matrix<float> x(tokens, 400);
      std::copy(values.begin(), values.end(), x.data());
      const Matrix<float> y = Product(weights, x, {});
      double error = 0, size = 0;
      for (size_t t = 0; t < tokens; ++t) {
        for (size_t r = 0; r < 150; ++r) {
          double sum = 0;
          for (size_t c = 0; c < 400; ++c) sum += double{x(t, c)} * decoded(r, c);
          error += (y(t, r) - sum) * (y(t, r) - sum);
          size += sum * sum;
        }
      }
      EXPECT_LE(std::sqrt(error / size), 0.02) << weights.form().name() << ", " << tokens << " tokens";
    }
    ExpectRows(weights, decoded);
  }
}
MICA_OVER_DEVICES(ResidentOnDevices);

}  // namespace
}  // namespace mica
