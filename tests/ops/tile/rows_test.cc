// Row functions: the reference against numbers worked by hand, and every instruction set of this processor
// against the reference, at sizes on either side of a vector, into outputs filled with NaN.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>

#include "ops/tile/kernels.h"
#include "ops/tile/tables.h"
#include "tests/ops/random_values.h"

namespace mica {
namespace {

const KernelTable& Ref() { return Kernels(Backend::kRef); }
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Half a unit in the last place of BF16, relative.
constexpr double kBf16Step = 1.0 / 256;

TEST(RefRows, RmsNormByHand) {
  // mean square (9 + 16) / 2 = 12.5; with epsilon 3.5 the root is 4.
  const float in[] = {3.0f, 4.0f}, weight[] = {2.0f, -1.0f};
  float out[] = {kNan, kNan};
  Ref().f32.rms_norm(in, weight, 2, 3.5f, out);
  EXPECT_FLOAT_EQ(out[0], 1.5f);
  EXPECT_FLOAT_EQ(out[1], -1.0f);
}

TEST(RefRows, RopeByHand) {
  // Two pairs (1, 3) and (2, 4), turned by 90 and 0 degrees.
  const float in[] = {1, 2, 3, 4}, cosines[] = {0, 1}, sines[] = {1, 0};
  float out[] = {kNan, kNan, kNan, kNan};
  Ref().f32.rope(in, cosines, sines, 4, out);
  EXPECT_FLOAT_EQ(out[0], -3);
  EXPECT_FLOAT_EQ(out[1], 2);
  EXPECT_FLOAT_EQ(out[2], 1);
  EXPECT_FLOAT_EQ(out[3], 4);
}

TEST(RefRows, GatedByHand) {
  const float gate[] = {0.0f, 1.0f, -1.0f, 100.0f, -100.0f}, up[] = {5.0f, 2.0f, 2.0f, 0.5f, 1.0f};
  float out[5];
  Ref().f32.gated(Activation::kSilu, gate, up, 5, out);
  EXPECT_FLOAT_EQ(out[0], 0.0f);
  EXPECT_FLOAT_EQ(out[1], 2.0f * 0.7310585786f);
  EXPECT_FLOAT_EQ(out[2], -2.0f * 0.2689414214f);
  EXPECT_FLOAT_EQ(out[3], 50.0f);
  EXPECT_NEAR(out[4], 0.0f, 1e-30f);
  Ref().f32.gated(Activation::kGeluTanh, gate, up, 5, out);
  EXPECT_FLOAT_EQ(out[0], 0.0f);
  EXPECT_FLOAT_EQ(out[1], 2.0f * 0.8411919906f);  // torch.nn.functional.gelu(1, approximate="tanh")
  EXPECT_FLOAT_EQ(out[2], -2.0f * 0.1588080094f);
  EXPECT_FLOAT_EQ(out[3], 50.0f);
}

TEST(RefRows, SoftCapByHand) {
  float values[] = {0.0f, 3.0f, -300.0f};
  Ref().soft_cap(3.0f, 3, values);
  EXPECT_FLOAT_EQ(values[0], 0.0f);
  EXPECT_FLOAT_EQ(values[1], 3.0f * 0.7615941560f);
  EXPECT_FLOAT_EQ(values[2], -3.0f);
}

TEST(RefRows, SoftmaxStepsAccumulate) {
  // Scores ln 1, ln 2 | ln 4 with factor 1: sum of exponentials 7, maximum ln 4.
  const float scores[] = {0.0f, std::log(2.0f), std::log(4.0f)};
  RunningSum state;
  float out[3];
  EXPECT_FLOAT_EQ(Ref().f32.softmax_step(scores, 2, 1.0f, &state, out), 0.0f);
  EXPECT_FLOAT_EQ(out[0], 0.5f);
  EXPECT_FLOAT_EQ(out[1], 1.0f);
  EXPECT_FLOAT_EQ(state.sum, 1.5f);
  EXPECT_FLOAT_EQ(Ref().f32.softmax_step(scores + 2, 1, 1.0f, &state, out + 2), 0.5f);
  EXPECT_FLOAT_EQ(out[2], 1.0f);
  EXPECT_FLOAT_EQ(state.sum * std::exp(state.max), 7.0f);
}

struct Target {
  KernelTable table;
};
void PrintTo(const Target& target, std::ostream* out) { *out << target.table.name; }

std::vector<Target> Targets() {
  std::vector<Target> targets;
  for (const KernelTable& table : RowTablesOfAllTargets()) targets.push_back({table});
  targets.push_back({Kernels(Backend::kCpu)});
  return targets;
}

class RowsTest : public testing::TestWithParam<Target> {
 protected:
  const KernelTable& table() const { return GetParam().table; }
  static std::vector<size_t> Sizes() {
    return {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 640, 1001};
  }

  using F32Row = std::function<void(const KernelTable&, size_t n, float* out)>;
  using Bf16Row = std::function<void(const KernelTable&, size_t n, BF16* out)>;
  // Both precisions of one function; the row behind the output must stay as it was.
  void Compare(const F32Row& f32, const Bf16Row& bf16, double tolerance) {
    for (const size_t n : Sizes()) {
      std::vector<float> expected = NanFloats(n + 1), actual = NanFloats(n + 1);
      expected[n] = actual[n] = 42.0f;
      f32(Ref(), n, expected.data());
      f32(table(), n, actual.data());
      EXPECT_LE(WorstError(actual, expected), tolerance) << "n = " << n;
      EXPECT_EQ(actual[n], 42.0f);
      if (!bf16) continue;
      std::vector<BF16> expected_half = NanHalves(n + 1), actual_half = NanHalves(n + 1);
      expected_half[n] = actual_half[n] = ToBF16(42.0f);
      bf16(Ref(), n, expected_half.data());
      bf16(table(), n, actual_half.data());
      // FP32 results a rounding error apart may round to neighbours.
      EXPECT_LE(WorstError(Widened(actual_half), Widened(expected_half)), 1.01 * kBf16Step) << "n = " << n;
      // The BF16 result is the rounded FP32 result of the same table.
      for (size_t i = 0; i < n; ++i)
        EXPECT_EQ(actual_half[i].bits, ToBF16(actual[i]).bits) << "n = " << n << " i = " << i;
      EXPECT_EQ(ToFloat(actual_half[n]), 42.0f);
    }
  }
};

TEST_P(RowsTest, ConversionsAreExact) {
  std::vector<float> values = RandomValues(1000, 1, 100.0f);
  // Ties, overflow, subnormals of both formats, zeros, infinities, NaN with a payload that rounding would
  // carry into the sign.
  for (const float value :
       {0.0f,       -0.0f,    1.0f + 0x1p-8f, 1.0f + 0x3p-8f, 1.0f + 0x1p-11f, 1.0f + 0x3p-11f, 65504.0f,
        65519.0f,   65520.0f, 1e38f,          3.4e38f,        -3.4e38f,        0x1p-24f,        0x1p-25f,
        0x1.8p-25f, 0x1p-14f, 0x1.ffcp-15f,   1e-40f,         kInfinity,       -kInfinity,      kNan}) {
    values.push_back(value);
  }
  const uint32_t nan_bits = 0x7FFFFFFF;
  float nan;
  std::memcpy(&nan, &nan_bits, 4);
  values.push_back(nan);
  values.insert(values.end(), {1.0f, 2.0f, 3.0f});
  for (const size_t n : {values.size(), values.size() - 1, size_t{3}, size_t{0}}) {
    std::vector<BF16> bf16(n);
    std::vector<F16> f16(n);
    table().bf16.from_f32(values.data(), n, bf16.data());
    table().f16.from_f32(values.data(), n, f16.data());
    std::vector<float> copied(n), back(n);
    table().f32.from_f32(values.data(), n, copied.data());
    table().f32.to_f32(values.data(), n, back.data());
    if (n > 0) {  // bits, since NaN equals nothing
      EXPECT_EQ(std::memcmp(copied.data(), values.data(), n * sizeof(float)), 0);
      EXPECT_EQ(std::memcmp(back.data(), values.data(), n * sizeof(float)), 0);
    }
    for (size_t i = 0; i < n; ++i) {
      EXPECT_EQ(bf16[i].bits, ToBF16(values[i]).bits) << values[i];
      if (std::isnan(values[i])) {
        EXPECT_TRUE(std::isnan(ToFloat(f16[i])));
      } else {
        EXPECT_EQ(f16[i].bits, ToF16(values[i]).bits) << values[i];
      }
    }
  }
  // Every 16-bit pattern back.
  std::vector<BF16> all_bf16(65536);
  std::vector<F16> all_f16(65536);
  for (uint32_t i = 0; i < 65536; ++i) all_bf16[i].bits = all_f16[i].bits = static_cast<uint16_t>(i);
  std::vector<float> from_bf16(65536), from_f16(65536);
  table().bf16.to_f32(all_bf16.data(), 65536, from_bf16.data());
  table().f16.to_f32(all_f16.data(), 65536, from_f16.data());
  for (uint32_t i = 0; i < 65536; ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(from_bf16[i]), i << 16);
    const float expected = ToFloat(all_f16[i]);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(from_f16[i]));
    } else {
      EXPECT_EQ(std::bit_cast<uint32_t>(from_f16[i]), std::bit_cast<uint32_t>(expected)) << i;
    }
  }
}

TEST_P(RowsTest, AddScaleDot) {
  for (const size_t n : Sizes()) {
    const std::vector<float> a = RandomValues(n, 2), b = RandomValues(n, 3);
    std::vector<float> expected = a, actual = a;
    Ref().add(b.data(), n, expected.data());
    table().add(b.data(), n, actual.data());
    EXPECT_EQ(actual, expected);
    Ref().scale(0.3f, n, expected.data());
    table().scale(0.3f, n, actual.data());
    EXPECT_EQ(actual, expected);
    EXPECT_NEAR(table().dot(a.data(), b.data(), n), Ref().dot(a.data(), b.data(), n), 1e-5 * std::sqrt(n));
  }
}

TEST_P(RowsTest, RmsNorm) {
  const std::vector<float> in = RandomValues(1001, 4, 3.0f), weight = RandomValues(1001, 5);
  Compare([&](const KernelTable& t, size_t n,
              float* out) { t.f32.rms_norm(in.data(), weight.data(), n, 1e-5f, out); },
          [&](const KernelTable& t, size_t n, BF16* out) {
            t.bf16.rms_norm(in.data(), weight.data(), n, 1e-5f, out);
          },
          1e-6);
}

TEST_P(RowsTest, Rope) {
  const std::vector<float> in = RandomValues(2002, 6), angles = RandomValues(1001, 7, 10.0f);
  std::vector<float> cosines(1001), sines(1001);
  for (size_t i = 0; i < 1001; ++i) cosines[i] = std::cos(angles[i]), sines[i] = std::sin(angles[i]);
  // A head has an even number of channels: an odd n stands for the one below.
  const auto even = [](size_t n, auto* out) {
    if (n % 2 == 1) out[n - 1] = {};
    return n / 2 * 2;
  };
  Compare([&](const KernelTable& t, size_t n,
              float* out) { t.f32.rope(in.data(), cosines.data(), sines.data(), even(n, out), out); },
          [&](const KernelTable& t, size_t n, BF16* out) {
            t.bf16.rope(in.data(), cosines.data(), sines.data(), even(n, out), out);
          },
          1e-6);
}

TEST_P(RowsTest, SoftCap) {
  const std::vector<float> in = RandomValues(1001, 8, 40.0f);
  for (size_t n : {1, 15, 16, 17, 1001}) {
    std::vector<float> expected = in, actual = in;
    Ref().soft_cap(30.0f, n, expected.data());
    table().soft_cap(30.0f, n, actual.data());
    for (size_t i = 0; i < in.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 1e-5);
  }
}

TEST_P(RowsTest, Gated) {
  std::vector<float> gate = RandomValues(1001, 8, 5.0f);
  const std::vector<float> up = RandomValues(1001, 9);
  for (size_t i = 0; i < 1001; i += 50) gate[i] = i % 100 == 0 ? 200.0f : -200.0f;  // saturated
  for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
    Compare(
        [&](const KernelTable& t, size_t n, float* out) {
          t.f32.gated(activation, gate.data(), up.data(), n, out);
        },
        [&](const KernelTable& t, size_t n, BF16* out) {
          t.bf16.gated(activation, gate.data(), up.data(), n, out);
        },
        2e-6);
  }
}

TEST_P(RowsTest, SoftmaxSteps) {
  const std::vector<float> scores = RandomValues(2002, 10, 20.0f);
  // Two steps in a row, the second from the state the first has left.
  const auto steps = [&](const KernelTable& t, size_t n, auto step, auto* out) {
    RunningSum state;
    step(t, scores.data() + 1001, n, &state, out);
    const float rescale = step(t, scores.data(), n, &state, out);
    return std::vector<float>{rescale, state.max, std::log(state.sum)};
  };
  const auto f32 = [](const KernelTable& t, const float* in, size_t n, RunningSum* state, float* out) {
    return t.f32.softmax_step(in, n, 0.25f, state, out);
  };
  const auto bf16 = [](const KernelTable& t, const float* in, size_t n, RunningSum* state, BF16* out) {
    return t.bf16.softmax_step(in, n, 0.25f, state, out);
  };
  Compare([&](const KernelTable& t, size_t n, float* out) { steps(t, n, f32, out); },
          [&](const KernelTable& t, size_t n, BF16* out) { steps(t, n, bf16, out); }, 1e-6);
  for (const size_t n : Sizes()) {
    std::vector<float> out(n);
    EXPECT_LE(WorstError(steps(table(), n, f32, out.data()), steps(Ref(), n, f32, out.data())), 1e-6) << n;
  }
}

TEST_P(RowsTest, LogSumAndExp) {
  const std::vector<float> values = RandomValues(2002, 11, 30.0f);
  for (const size_t n : Sizes()) {
    RunningSum expected, actual;
    for (const size_t start : {size_t{0}, size_t{1001}}) {
      Ref().log_sum_step(values.data() + start, n, &expected);
      table().log_sum_step(values.data() + start, n, &actual);
    }
    EXPECT_EQ(actual.max, expected.max);
    EXPECT_NEAR(std::log(actual.sum), std::log(expected.sum), 1e-6);
  }
  Compare([&](const KernelTable& t, size_t n, float* out) { t.exp(values.data(), n, 0.25f, 1.5f, out); }, {},
          1e-5);
  const float extremes[] = {-1000.0f, -87.0f, 0.0f, 88.0f, -kInfinity};
  float out[5];
  table().exp(extremes, 5, 1.0f, 0.0f, out);
  EXPECT_EQ(out[0], 0.0f);
  EXPECT_NEAR(out[1] / std::exp(-87.0f), 1.0f, 1e-6f);
  EXPECT_EQ(out[2], 1.0f);
  EXPECT_NEAR(out[3] / std::exp(88.0f), 1.0f, 1e-6f);
  EXPECT_EQ(out[4], 0.0f);
}

TEST(RefRows, GradientsAreDerivatives) {
  // Central differences of the reference functions, at 5 values.
  const std::vector<float> in = RandomValues(5, 20), weight = RandomValues(5, 21), up = RandomValues(5, 22),
                           grad = RandomValues(5, 23);
  // Sum of grad * function, as a function of one input moved by `step`.
  const float step = 1e-2f;
  const auto weighted = [&](const std::vector<float>& out) { return Ref().dot(out.data(), grad.data(), 5); };
  std::vector<float> norm_gradient(5, 0.0f), gate_gradient(5), up_gradient(5);
  Ref().add_rms_norm_gradient(in.data(), weight.data(), grad.data(), 5, 0.1f, norm_gradient.data());
  Ref().gated_gradient(Activation::kSilu, in.data(), up.data(), grad.data(), 5, gate_gradient.data(), up_gradient.data());
  for (size_t i = 0; i < 5; ++i) {
    float norms[2], gates[2], ups[2];
    for (const int side : {0, 1}) {
      std::vector<float> moved = in, moved_up = up, out(5);
      moved[i] += side == 0 ? -step : step;
      moved_up[i] += side == 0 ? -step : step;
      Ref().f32.rms_norm(moved.data(), weight.data(), 5, 0.1f, out.data());
      norms[side] = weighted(out);
      Ref().f32.gated(Activation::kSilu, moved.data(), up.data(), 5, out.data());
      gates[side] = weighted(out);
      Ref().f32.gated(Activation::kSilu, in.data(), moved_up.data(), 5, out.data());
      ups[side] = weighted(out);
    }
    EXPECT_NEAR(norm_gradient[i], (norms[1] - norms[0]) / (2 * step), 1e-3);
    EXPECT_NEAR(gate_gradient[i], (gates[1] - gates[0]) / (2 * step), 1e-3);
    EXPECT_NEAR(up_gradient[i], (ups[1] - ups[0]) / (2 * step), 1e-3);
  }
  // A softmax of two scores, weights 3/4 and 1/4, factor 2: dp0/ds0 = 2 * 3/4 * 1/4.
  const float p[] = {0.75f, 0.25f}, grad_p[] = {1.0f, 0.0f};
  float out[2];
  Ref().f32.softmax_gradient(p, grad_p, 2, 0.75f, 2.0f, out);
  EXPECT_FLOAT_EQ(out[0], 0.375f);
  EXPECT_FLOAT_EQ(out[1], -0.375f);
}

TEST_P(RowsTest, Gradients) {
  const std::vector<float> in = RandomValues(1001, 24, 3.0f), weight = RandomValues(1001, 25),
                           grad = RandomValues(1001, 26);
  Compare(
      [&](const KernelTable& t, size_t n, float* out) {
        std::fill(out, out + n, 0.5f);
        t.add_rms_norm_gradient(in.data(), weight.data(), grad.data(), n, 1e-5f, out);
      },
      {}, 1e-5);
  Compare(
      [&](const KernelTable& t, size_t n, float* out) {
        std::vector<float> other = NanFloats(n);
        t.gated_gradient(Activation::kSilu, in.data(), weight.data(), grad.data(), n, out, other.data());
      },
      {}, 1e-6);
  Compare(
      [&](const KernelTable& t, size_t n, float* out) {
        // In place: the gradients overwrite gate and up.
        std::vector<float> gate(in.begin(), in.begin() + static_cast<ptrdiff_t>(n));
        std::copy_n(weight.data(), n, out);
        t.gated_gradient(Activation::kSilu, gate.data(), out, grad.data(), n, gate.data(), out);
      },
      {}, 1e-6);
  Compare([&](const KernelTable& t, size_t n,
              float* out) { t.f32.softmax_gradient(in.data(), grad.data(), n, 0.3f, 0.7f, out); },
          [&](const KernelTable& t, size_t n, BF16* out) {
            t.bf16.softmax_gradient(in.data(), grad.data(), n, 0.3f, 0.7f, out);
          },
          1e-6);
}

TEST_P(RowsTest, NanIsNotHidden) {
  for (const size_t n : {size_t{5}, size_t{70}}) {
    for (const size_t place : {size_t{0}, n - 1}) {
      std::vector<float> in = RandomValues(n, 12), ones(n, 1.0f), out(n, 0.0f);
      in[place] = kNan;
      table().f32.rms_norm(in.data(), ones.data(), n, 1e-5f, out.data());
      EXPECT_TRUE(std::isnan(out[0]));
      table().f32.gated(Activation::kSilu, in.data(), ones.data(), n, out.data());
      EXPECT_TRUE(std::isnan(out[place]));
      RunningSum state;
      table().f32.softmax_step(in.data(), n, 1.0f, &state, out.data());
      EXPECT_TRUE(std::isnan(state.sum));
      RunningSum sum;
      table().log_sum_step(in.data(), n, &sum);
      table().log_sum_step(ones.data(), n, &sum);
      EXPECT_TRUE(std::isnan(sum.sum));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllTargets, RowsTest, testing::ValuesIn(Targets()),
                         [](const auto& info) { return std::string(info.param.table.name); });

}  // namespace
}  // namespace mica
