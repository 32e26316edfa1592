#include "ops/feedback/feedback.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "base/half.h"

namespace mica {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Inputs {
  size_t cols, update_cols, stride;
  std::vector<float> factor, reciprocal, scale, zero, w, q;
  std::vector<uint8_t> keep;
  int bits;

  Inputs(size_t cols_, size_t update_cols_, int bits_)
      : cols(cols_), update_cols(update_cols_), stride(update_cols_ + 5), bits(bits_) {
    std::mt19937 generator(static_cast<uint32_t>(cols * 100 + update_cols * 10) +
                           static_cast<uint32_t>(bits));
    std::normal_distribution<float> normal;
    factor.resize(cols * stride, kNan);  // only the upper triangle may be read
    for (size_t j = 0; j < cols; ++j) {
      for (size_t k = j; k < update_cols; ++k) factor[j * stride + k] = 0.2f * normal(generator);
      factor[j * stride + j] = 1.0f + 0.1f * std::abs(normal(generator));
      reciprocal.push_back(1.0f / factor[j * stride + j]);
    }
    for (size_t r = 0; r < kTileRows; ++r) {
      scale.push_back(ToFloat(ToF16(0.3f + 0.1f * std::abs(normal(generator)))));
      zero.push_back(static_cast<float>(generator() % (1u << std::min(bits, 8))));
    }
    for (size_t i = 0; i < update_cols * kTileRows; ++i) w.push_back(normal(generator));
    for (size_t i = 0; i < cols * kTileRows; ++i) {
      keep.push_back(generator() % 3 != 0);
      q.push_back(keep.back() != 0 ? normal(generator) : 0.0f);
    }
  }
};

float Nearest(const Inputs& in, bool masked, size_t j, size_t r, float w, uint16_t* code) {
  *code = 0;
  if (in.bits == 0 || (masked && in.keep[j * kTileRows + r] == 0)) return 0;
  if (in.bits == 16) {
    const F16 half = ToF16(std::fmin(std::fmax(w, -65504.0f), 65504.0f));
    *code = half.bits;
    return ToFloat(half);
  }
  const float max_code = static_cast<float>((1 << in.bits) - 1);
  const float level = std::fmin(std::fmax(std::nearbyint(w / in.scale[r]) + in.zero[r], 0.0f), max_code);
  *code = static_cast<uint16_t>(level);
  return (level - in.zero[r]) * in.scale[r];
}

struct Outputs {
  std::vector<float> target, q, change, loss;
  std::vector<uint16_t> codes;
};

// The definitions of FeedColumns and DescendColumns, one weight after the other.
Outputs Scalar(const Inputs& in, bool masked, bool descend) {
  Outputs out{in.w, in.q, std::vector<float>(in.cols * kTileRows), std::vector<float>(kTileRows, 2.0f),
              std::vector<uint16_t>(in.cols * kTileRows)};
  for (size_t r = 0; r < kTileRows; ++r) {
    for (size_t j = 0; j < in.cols; ++j) {
      const size_t at = j * kTileRows + r;
      const float value = out.target[at], diagonal = in.factor[j * in.stride + j];
      if (descend) {
        const float best = Nearest(in, masked, j, r, out.q[at] + value * in.reciprocal[j], &out.codes[at]);
        out.change[at] = best - out.q[at];
        out.q[at] = best;
        out.loss[r] += out.change[at] * (diagonal * out.change[at] - 2 * value);
      } else {
        out.change[at] = (value - Nearest(in, masked, j, r, value, &out.codes[at])) * in.reciprocal[j];
        out.loss[r] += out.change[at] * out.change[at];
      }
      for (size_t k = j + 1; k < in.update_cols; ++k)
        out.target[k * kTileRows + r] -= out.change[at] * in.factor[j * in.stride + k];
    }
  }
  return out;
}

class Columns : public testing::TestWithParam<std::tuple<size_t, size_t, int, bool, bool>> {};

TEST_P(Columns, AgreeWithTheScalarDefinitionOnAllTargets) {
  const auto [cols, more, bits, masked, descend] = GetParam();
  const Inputs in(cols, cols + more, bits);
  const Outputs expected = Scalar(in, masked, descend);
  const float tolerance = bits == 16 ? 8e-3f : 1e-3f;  // halfway between two FP16 values, too

  for (const FeedbackKernels& kernels : FeedbackKernelsOfAllTargets()) {
    Outputs got{in.w, in.q, std::vector<float>(cols * kTileRows, kNan), std::vector<float>(kTileRows, 2.0f),
                std::vector<uint16_t>(cols * kTileRows, 7)};
    ColumnRun run;
    run.cols = cols;
    run.update_cols = in.update_cols;
    run.factor = in.factor.data();
    run.stride = in.stride;
    run.reciprocal = in.reciprocal.data();
    run.grid = {bits, in.scale.data(), in.zero.data(), masked ? in.keep.data() : nullptr};
    run.change = got.change.data();
    run.codes = got.codes.data();
    run.loss = got.loss.data();
    if (descend) {
      kernels.descend_columns(run, got.q.data(), got.target.data());
    } else {
      kernels.feed_columns(run, got.target.data());
    }
    // The order of summation differs between targets, so a weight halfway between two codes may go either way
    // and change what follows in its row: all rows but a few must agree.
    size_t rows_that_differ = 0;
    for (size_t r = 0; r < kTileRows; ++r) {
      bool differs = false;
      for (size_t j = 0; j < cols; ++j) {
        const size_t at = j * kTileRows + r;
        differs = differs || std::abs(got.change[at] - expected.change[at]) > tolerance ||
                  (bits < 16 && got.codes[at] != expected.codes[at]);
        ASSERT_TRUE(std::isfinite(got.change[at])) << kernels.target;
      }
      for (size_t k = cols; k < in.update_cols; ++k) {
        differs = differs ||
                  std::abs(got.target[k * kTileRows + r] - expected.target[k * kTileRows + r]) > tolerance;
      }
      differs =
          differs || std::abs(got.loss[r] - expected.loss[r]) > tolerance * (1 + std::abs(expected.loss[r]));
      rows_that_differ += differs;
    }
    EXPECT_LE(rows_that_differ, cols > 20 ? 3u : 1u) << kernels.target;
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, Columns,
                         testing::Combine(testing::Values(1, 4, 7, 8, 9, 37), testing::Values(0, 1, 30),
                                          testing::Values(0, 2, 4, 8, 16), testing::Bool(), testing::Bool()));

TEST(FeedColumns, ByHand) {
  // Two columns, U = [2 1; 0 1], scale 1, zero 1, 2 bits: values -1, 0, 1, 2. Column 0: 0.8 -> 1, e = -0.1;
  // column 1: 0.3
  // + 0.1 = 0.4 -> 0, e = 0.4.
  const std::vector<float> factor = {2, 1, kNan, 1}, reciprocal = {0.5f, 1}, ones(kTileRows, 1.0f);
  for (const FeedbackKernels& kernels : FeedbackKernelsOfAllTargets()) {
    std::vector<float> w(2 * kTileRows), change(2 * kTileRows), loss(kTileRows, 0.0f);
    for (size_t r = 0; r < kTileRows; ++r) {
      w[r] = 0.8f;
      w[kTileRows + r] = 0.3f;
    }
    std::vector<uint16_t> codes(2 * kTileRows);
    kernels.feed_columns({2,
                          2,
                          factor.data(),
                          2,
                          reciprocal.data(),
                          {2, ones.data(), ones.data(), nullptr},
                          change.data(),
                          codes.data(),
                          loss.data()},
                         w.data());
    for (size_t r = 0; r < kTileRows; ++r) {
      EXPECT_EQ(codes[r], 2);
      EXPECT_EQ(codes[kTileRows + r], 1);
      EXPECT_NEAR(change[r], -0.1f, 1e-6f);
      EXPECT_NEAR(change[kTileRows + r], 0.4f, 1e-6f);
      EXPECT_NEAR(loss[r], 0.17f, 1e-6f);
    }
  }
}

TEST(FeedColumns, HalfValuesStayFinite) {
  const std::vector<float> factor = {1}, reciprocal = {1};
  for (const FeedbackKernels& kernels : FeedbackKernelsOfAllTargets()) {
    std::vector<float> w(kTileRows, 1e6f), change(kTileRows), loss(kTileRows, 0.0f);
    std::vector<uint16_t> codes(kTileRows);
    w[1] = -1e6f;
    kernels.feed_columns({1,
                          1,
                          factor.data(),
                          1,
                          reciprocal.data(),
                          {16, nullptr, nullptr, nullptr},
                          change.data(),
                          codes.data(),
                          loss.data()},
                         w.data());
    EXPECT_EQ(ToFloat(F16{codes[0]}), 65504.0f) << kernels.target;
    EXPECT_EQ(ToFloat(F16{codes[1]}), -65504.0f) << kernels.target;
  }
}

TEST(GridErrors, AgreeWithTheScalarDefinitionOnAllTargets) {
  for (const int bits : {2, 3, 4, 6, 8}) {
    for (const bool masked : {false, true}) {
      const Inputs in(19, 19, bits);
      std::vector<float> importance(19);
      for (size_t j = 0; j < 19; ++j) importance[j] = 0.5f + static_cast<float>(j);
      for (const FeedbackKernels& kernels : FeedbackKernelsOfAllTargets()) {
        std::vector<float> error(kTileRows, kNan);
        kernels.grid_errors(in.w.data(), 19,
                            {bits, in.scale.data(), in.zero.data(), masked ? in.keep.data() : nullptr},
                            importance.data(), error.data());
        for (size_t r = 0; r < kTileRows; ++r) {
          double expected = 0;
          for (size_t j = 0; j < 19; ++j) {
            if (masked && in.keep[j * kTileRows + r] == 0) continue;
            uint16_t code;
            const double d =
                in.w[j * kTileRows + r] - Nearest(in, masked, j, r, in.w[j * kTileRows + r], &code);
            expected += importance[j] * d * d;
          }
          EXPECT_NEAR(error[r], expected, 1e-5 * (1 + expected)) << kernels.target;
        }
      }
    }
  }
}

}  // namespace
}  // namespace mica
