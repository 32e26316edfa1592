#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "device/recorded_work.h"
#include "ops/linalg/arrange.h"
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

// Norm, gated activation and residual on the way of a product are those taken one by one, bit by bit.
TEST_P(ResidentOnDevices, WhatIsDoneOnTheWayIsWhatIsDoneApart) {
  constexpr size_t kRows = 150, kCols = 1000;
  EntropyMatrix entropy = RandomEntropy(kRows, kCols, 8, 1.0, 3);
  FitEntropyModel(entropy);
  const PackedMatrix of_entropy = Pack(entropy),
                     masked = Pack(RandomFixed(kRows, {{3, 100}, {4, 800}, {16, 100}}, 128, MaskKind::kBitmap, 3)),
                     whole = Pack(RandomFixed(kRows, {{2, 300}, {6, 660}, {0, 40}}, 128, MaskKind::kNone, 3)),
                     empty = Pack(RandomFixed(kRows, {{0, kCols}}, 128, MaskKind::kNone, 3));
  std::vector<ResidentWeights> weights;
  for (const AnyParts& parts : {AnyParts(OpenedEntropy(of_entropy)), AnyParts(OpenedFixed(masked)),
                                AnyParts(OpenedFixed(whole)), AnyParts(OpenedFixed(empty))})
    weights.push_back(ResidentWeights::OfParts(parts, device()));
  weights.push_back(
      ResidentWeights::OfValues(CopyTo(device(), RandomTensor(kRows, kCols, DType::kF32, 4).view())));
  const Array norm = CopyTo(device(), RandomTensor(1, kCols, DType::kF32, 5).view()),
              bias = CopyTo(device(), RandomTensor(1, kRows, DType::kF32, 6).view());
  for (const size_t tokens : {1, 2, 4, 5, 9, 20}) {
    Framed x(device(), RandomInputs(tokens, kCols, 7), 3, 2), up(device(), RandomInputs(tokens, kCols, 8), 1, 0);
    const Array before = CopyTo(device(), RandomTensor(tokens, kRows, DType::kF32, 9).view());
    for (const ProductInputs& inputs :
         {ProductInputs::Plain(x.view()), ProductInputs::Normed(x.view(), norm.view(), 1e-5f),
          ProductInputs::Gated(Activation::kSilu, x.view(), up.view()),
          ProductInputs::Gated(Activation::kGeluTanh, x.view(), up.view())}) {
      Array written(tokens, kCols, DType::kF32, device());
      inputs.Write(written.view());
      const ConstTensor made = inputs.kind == ProductInputs::Kind::kPlain ? inputs.x : ConstTensor(written.view());
      // All forms at once, among which some go together.
      std::vector<Array> apart, on_the_way, added;
      std::vector<ResidentProduct> of_apart, of_on_the_way, of_added;
      for (const ResidentWeights& of : weights) {
        for (std::vector<Array>* arrays : {&apart, &on_the_way}) arrays->emplace_back(tokens, kRows, DType::kF32, device());
        added.push_back(CopyTo(device(), before.view()));
        of_apart.push_back({&of, bias.view(), apart.back().view()});
        of_on_the_way.push_back({&of, bias.view(), on_the_way.back().view()});
        of_added.push_back({&of, bias.view(), added.back().view(), 0.7f});
      }
      MultiplyResident(made, of_apart);
      MultiplyResident(inputs, of_on_the_way);
      MultiplyResident(inputs, of_added);
      for (size_t i = 0; i < weights.size(); ++i) {
        SCOPED_TRACE(fmt::format("{} ({}), kind {}, {} tokens", weights[i].form().name(), i,
                                 static_cast<int>(inputs.kind), tokens));
        EXPECT_TRUE(SameBytes(OnHost(on_the_way[i].view()), OnHost(apart[i].view())));
        ScaleAndAdd(before.view(), 0.7f, apart[i].view());
        EXPECT_TRUE(SameBytes(OnHost(added[i].view()), OnHost(apart[i].view())));
      }
    }
  }
}

MICA_OVER_DEVICES(ResidentOnDevices);

// Kernels begin before those in front of them end; what one takes of another must be there nevertheless.
TEST(ResidentOnCuda, ChainsOfProductsAreTheSameRecordedAndNot) {
  MICA_NEEDS_CUDA();
  constexpr size_t kWidth = 1024, kTimes = 12;
  EntropyMatrix entropy = RandomEntropy(kWidth, kWidth, 8, 1.0, 3);
  FitEntropyModel(entropy);
  const PackedMatrix of_entropy = Pack(entropy), masked = Pack(RandomFixed(kWidth, {{3, kWidth}}, 128, MaskKind::kBitmap, 3)),
                     whole = Pack(RandomFixed(kWidth, {{4, kWidth}}, 128, MaskKind::kNone, 3));
  const Array norm = OnCuda(RandomTensor(1, kWidth, DType::kF32, 5).view());
  for (const AnyParts& parts :
       {AnyParts(OpenedEntropy(of_entropy)), AnyParts(OpenedFixed(masked)), AnyParts(OpenedFixed(whole))}) {
    const ResidentWeights weights = ResidentWeights::OfParts(parts, Device::Cuda());
    for (const size_t tokens : {1, 3}) {
      const Array first = OnCuda(RandomInputs(tokens, kWidth, 7));
      Array x = OnCuda(first.view()), gate(tokens, kWidth, DType::kF32, Device::Cuda()),
            up(tokens, kWidth, DType::kF32, Device::Cuda());
      const auto chain = [&](bool wait) {
        for (size_t i = 0; i < kTimes; ++i) {
          const ResidentProduct both[] = {{&weights, {}, gate.view()}, {&weights, norm.view(), up.view()}};
          MultiplyResident(ProductInputs::Normed(x.view(), norm.view(), 1e-5f), both);
          if (wait) Synchronize(Device::Cuda());
          const ResidentProduct down = {&weights, {}, x.view(), 0.01f};
          MultiplyResident(ProductInputs::Gated(Activation::kSilu, gate.view(), up.view()), {&down, 1});
          if (wait) Synchronize(Device::Cuda());
        }
      };
      chain(true);
      const Matrix<float> expected = OnHost(std::as_const(x).view());
      ASSERT_TRUE(std::all_of(expected.row(0), expected.row(0) + kWidth, [](float v) { return std::isfinite(v); }));
      Copy(first.view(), x.view());
      chain(false);
      EXPECT_TRUE(SameBytes(OnHost(std::as_const(x).view()), expected)) << weights.form().name();
      const RecordedWork recorded(Device::Cuda(), [&] { chain(false); });
      for (int again = 0; again < 20; ++again) {
        Copy(first.view(), x.view());
        recorded.Replay();
        ASSERT_TRUE(SameBytes(OnHost(std::as_const(x).view()), expected)) << weights.form().name() << ", " << again;
      }
    }
  }
}


}  // namespace
}  // namespace mica
