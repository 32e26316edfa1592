// Moments, drift, their factor and its use on a CUDA device against the processor.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "compress/calibrate/drift.h"
#include "compress/calibrate/moments.h"
#include "compress/curvature/damped_factor.h"
#include "compress/curvature/drift_compensation.h"
#include "tests/error_message.h"
#include "tests/ops/devices.h"
#include "tests/ops/tensors.h"

namespace mica {
namespace {

class CurvatureOn : public OnDevices {};
MICA_OVER_DEVICES(CurvatureOn);

constexpr size_t kTokens = 900, kCols = 130, kRows = 70;
constexpr uint32_t kDead = 17;

// Neighbouring channels have something in common, kDead is always zero.
Array Inputs(uint32_t seed) {
  std::vector<float> values = RandomValues(kTokens * kCols, seed);
  for (size_t t = 0; t < kTokens; ++t) {
    for (size_t c = 1; c < kCols; ++c) values[t * kCols + c] += 0.6f * values[t * kCols + c - 1];
    values[t * kCols + kDead] = 0;
  }
  return FromFloats(values, kTokens, kCols, DType::kBF16);
}

std::vector<uint32_t> SomeOrder() {
  std::vector<uint32_t> order(kCols);
  for (uint32_t p = 0; p < kCols; ++p) order[p] = (p * 37 + 5) % kCols;
  return order;
}

void ExpectNear(const Matrix<float>& a, const Matrix<float>& b, double tolerance) {
  ASSERT_EQ(a.rows(), b.rows());
  ASSERT_EQ(a.cols(), b.cols());
  double largest = 0;
  for (size_t i = 0; i < b.size(); ++i) largest = std::max<double>(largest, std::fabs(b.data()[i]));
  for (size_t i = 0; i < b.size(); ++i) ASSERT_NEAR(a.data()[i], b.data()[i], tolerance * largest) << i;
}

TEST_P(CurvatureOn, IsThatOfTheProcessor) {
  const Array x = Inputs(1), original = Inputs(2);
  const Matrix<float> w = [] {
    const std::vector<float> values = RandomValues(kRows * kCols, 3);
    Matrix<float> out(kRows, kCols);
    std::copy(values.begin(), values.end(), out.data());
    return out;
  }();
  const Array residual_original = RandomTensor(kTokens, kRows, DType::kBF16, 4),
              residual_moved = RandomTensor(kTokens, kRows, DType::kBF16, 5);
  struct Result {
    Matrix<float> h, d, r, u, damped, undamped, weights;
    std::vector<double> mean, inverse, information;
    std::vector<float> diagonal;
  };
  const auto run = [&](Device device) {
    Moments moments(kCols, device);
    Drift drift(kCols, kCols, device), residual(kRows, kCols, device);
    const Array here = CopyTo(device, x.view()), before = CopyTo(device, original.view()),
                stream_before = CopyTo(device, residual_original.view()),
                stream = CopyTo(device, residual_moved.view());
    moments.Add(here.view());
    drift.Add(before.view(), here.view(), here.view());
    residual.Add(stream_before.view(), stream.view(), here.view());
    Array h(kCols, kCols, DType::kF32, device);
    moments.SecondMoment(h.view());
    Result result;
    result.d = drift.Mean();
    const Array d = CopyTo(device, result.d), r = CopyTo(device, residual.Mean());
    const DampedFactor factor(h.view(), SomeOrder(), 0.01);
    EXPECT_EQ(factor.device(), device);
    EXPECT_EQ(factor.raises(), 0);
    EXPECT_EQ(factor.dead().size(), 1u);
    EXPECT_EQ(factor.order()[factor.dead()[0]], kDead);
    result.h = OnHost(h.view());
    EXPECT_TRUE(SameBytes(result.h, moments.SecondMoment()));
    result.r = OnHost(r.view());
    result.u = OnHost(factor.tensor());
    result.mean = moments.Mean();
    result.inverse = factor.InverseDiagonal();
    result.information = factor.Information(h.view());
    result.diagonal = factor.Diagonal();
    Array out(kCols, kCols, DType::kF32, device);
    factor.DampedMoments(h.view(), out.view());
    result.damped = OnHost(out.view());
    factor.UndampedMoments(h.view(), out.view());
    result.undamped = OnHost(out.view());
    const Array weights = CopyTo(device, w);
    Array compensated(kRows, kCols, DType::kF32, device);
    CompensateDrift(weights.view(), {h.view(), d.view(), r.view()}, factor, 0.5, compensated.view(),
                    Group::Alone());
    result.weights = OnHost(compensated.view());
    return result;
  };
  const Result expected = run(Device::Cpu()), found = run(device()), again = run(device());
  ExpectNear(found.h, expected.h, 1e-6);
  ExpectNear(found.d, expected.d, 1e-5);
  ExpectNear(found.r, expected.r, 1e-5);
  ExpectNear(found.u, expected.u, 1e-4);
  ExpectNear(found.damped, expected.damped, 1e-6);
  ExpectNear(found.undamped, expected.undamped, 1e-6);
  ExpectNear(found.weights, expected.weights, 1e-4);
  EXPECT_TRUE(SameBytes(found.u, again.u));
  EXPECT_TRUE(SameBytes(found.weights, again.weights));
  EXPECT_FALSE(SameBytes(found.weights, w));
  for (size_t c = 0; c < kCols; ++c) {
    EXPECT_NEAR(found.mean[c], expected.mean[c], 1e-6);
    EXPECT_NEAR(found.inverse[c], expected.inverse[c], 1e-4 * expected.inverse[c]);
    EXPECT_NEAR(found.information[c], expected.information[c], 1e-4);
    EXPECT_EQ(found.diagonal[c], found.u(c, c));
  }
  // With the processor's H, what is only moved and scaled is the same to the bit.
  const Array h = CopyTo(device(), expected.h);
  const DampedFactor factor(h.view(), SomeOrder(), 0.01);
  Array out(kCols, kCols, DType::kF32, device());
  factor.DampedMoments(h.view(), out.view());
  EXPECT_TRUE(SameBytes(OnHost(out.view()), expected.damped));
}

TEST_P(CurvatureOn, DampingIsDoubledUntilItIsEnoughOrNoneIs) {
  const auto indefinite = [&](float lack) {
    return CopyTo(device(), FromFloats({1, 1 + lack, 1 + lack, 1}, 2, 2, DType::kF32).view());
  };
  const Array some = indefinite(0.05f), much = indefinite(20);
  const DampedFactor factor(some.view(), {}, 0.01);
  EXPECT_EQ(factor.raises(), 3);  // .02, .04, .08
  EXPECT_DOUBLE_EQ(factor.share(), 0.08);
  ExpectError([&] { DampedFactor(much.view(), {}, 0.01); }, {"not positive definite at any damping"});
  const Array bad = CopyTo(device(), FromFloats({1, 0, NAN, 1}, 2, 2, DType::kF32).view());
  ExpectError([&] { DampedFactor(bad.view(), {}, 0.01); },
              {"second moments of 2 channels", "row 1, column 0"});
}

}  // namespace
}  // namespace mica
