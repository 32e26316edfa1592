// What the kernels of a CUDA device compute, in plain loops: the same integers, the same additions of FP32 in
// the same order.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "base/matrix.h"
#include "device/array.h"
#include "ops/packed_product/int8_inputs.h"
#include "ops/packed_product/resident_weights.h"
#include "tests/ops/devices.h"

namespace mica {

inline constexpr size_t kOracleLanes = 32;
using LaneSums = std::array<float, kOracleLanes>;

// The sum of the lanes of a warp.
inline float SumOfLanes(LaneSums sums) {
  for (size_t d = kOracleLanes / 2; d > 0; d /= 2) {
    for (size_t lane = 0; lane < d; ++lane) sums[lane] += sums[lane + d];
  }
  return sums[0];
}

// The digits of RoundToInt8's blocks, the second of what the first leaves, with scales 254 times as small.
inline std::array<Int8Inputs, 2> TwoDigits(MatrixView<const float> x, std::span<const float> factors,
                                           std::span<const uint32_t> order, std::span<const uint32_t> begin) {
  std::array<Int8Inputs, 2> digits;
  const size_t blocks = begin.size() - 1, cols = begin[blocks];
  RoundToInt8(x, factors, order, begin, cols, digits[0]);
  digits[1] = digits[0];
  for (size_t t = 0; t < x.rows; ++t) {
    for (size_t b = 0; b < blocks; ++b) {
      const float scale = digits[0].scales[t * blocks + b];
      const float inverse = scale == 0 ? 0.0f : 254.0f / scale;
      digits[1].scales[t * blocks + b] = scale / 254.0f;
      for (size_t c = begin[b]; c < begin[b + 1]; ++c) {
        const float value = x.row(t)[order.empty() ? c : order[c]] * factors[c];
        const float left = std::fma(-scale, static_cast<float>(digits[0].values[t * cols + c]), value);
        digits[1].values[t * cols + c] = static_cast<int8_t>(std::nearbyint(left * inverse));
      }
    }
  }
  return digits;
}

// y = x w^T by a form, in a frame of NaN that must stay whole; every value must be written.
inline Matrix<float> Product(const ResidentWeights& weights, ConstTensor x, ConstTensor bias) {
  const Device device = weights.form().device();
  const Array bias_there = bias.empty() ? Array() : CopyTo(device, bias);
  Framed x_there(device, x, 3, 2), y(device, x.rows, weights.outputs(), DType::kF32, 1, 4);
  const ResidentProduct one{&weights, bias.empty() ? ConstTensor() : ConstTensor(bias_there.view()),
                            y.view()};
  MultiplyResident(x_there.view(), {&one, 1});
  Synchronize(device);
  EXPECT_TRUE(y.FrameIsWhole());
  return OnHost(y.view());
}

inline Matrix<float> RandomInputs(size_t tokens, size_t cols, uint32_t seed) {
  const std::vector<float> values = RandomValues(tokens * cols, seed);
  Matrix<float> x(tokens, cols);
  std::copy(values.begin(), values.end(), x.data());
  // Outliers, as activations have; a block of zeros.
  for (size_t t = 0; t < tokens; ++t) {
    x(t, (7 * t + 3) % cols) *= 60;
    for (size_t c = 512; c < std::min<size_t>(cols, 768) && t % 3 == 2; ++c) x(t, c) = 0;
  }
  return x;
}

inline Matrix<float> RowsFrom(const Matrix<float>& x, size_t first, size_t count) {
  Matrix<float> rows(count, x.cols());
  std::copy_n(x.row(first), count * x.cols(), rows.data());
  return rows;
}

// Products of one to as many tokens as x has, the last ones, are rows of `expected` bit by bit.
inline void ExpectFewTokens(const ResidentWeights& weights, const Matrix<float>& x, ConstTensor bias,
                            const Matrix<float>& expected) {
  for (size_t tokens = 1; tokens <= x.rows(); ++tokens) {
    const Matrix<float> some = RowsFrom(x, x.rows() - tokens, tokens);
    EXPECT_TRUE(SameBytes(Product(weights, some, bias), RowsFrom(expected, x.rows() - tokens, tokens)))
        << tokens << " tokens";
  }
}

// Rows(ids) in any order and with repetitions equals the decoded weights, bit by bit.
inline void ExpectRows(const ResidentWeights& weights, const Matrix<float>& decoded) {
  const Device device = weights.form().device();
  std::vector<int32_t> ids;
  for (size_t i = 0; i < decoded.rows() + 600; ++i)
    ids.push_back(static_cast<int32_t>((i * 7 + 3) % decoded.rows()));
  Framed out(device, ids.size(), decoded.cols(), DType::kF32, 1, 2);
  weights.Rows(ids, out.view());
  Synchronize(device);
  EXPECT_TRUE(out.FrameIsWhole());
  const Matrix<float> got = OnHost(out.view());
  size_t different = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    for (size_t c = 0; c < decoded.cols(); ++c)
      different += got(i, c) != decoded(static_cast<size_t>(ids[i]), c);
  }
  EXPECT_EQ(different, 0u);
}

// Tensor cores on weights and inputs in 16 bits: each factor is off by 2^-9 of itself at most.
inline void ExpectNarrowProduct(const ResidentWeights& weights, const Matrix<float>& decoded, size_t tokens,
                                double step) {
  const Matrix<float> x = RandomInputs(tokens, decoded.cols(), 77);
  const std::vector<float> bias = RandomValues(decoded.rows(), 78);
  const Matrix<float> y = Product(weights, x, bias);
  double worst = 0;
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t r = 0; r < decoded.rows(); ++r) {
      double sum = bias[r], size = std::abs(bias[r]) * 1e-6;
      for (size_t c = 0; c < decoded.cols(); ++c) {
        sum += double{x(t, c)} * decoded(r, c);
        size += std::abs(double{x(t, c)} * decoded(r, c));
      }
      const double error = std::abs(y(t, r) - sum) / (size * step + 1e-30);
      worst = std::isnan(error) ? INFINITY : std::max(worst, error);
    }
  }
  EXPECT_LE(worst, 1.0);
}

}  // namespace mica
