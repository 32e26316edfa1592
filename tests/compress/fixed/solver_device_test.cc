// Coding `fixed` on a CUDA device against the processor: the stages from the same start, and whole solutions.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <future>
#include <numeric>
#include <string>
#include <vector>

#include "compress/fixed/plan.h"
#include "compress/fixed/solver.h"
#include "device/array.h"
#include "device/cuda.h"
#include "ops/codes/codes.h"
#include "ops/feedback/solver_state.h"
#include "ops/feedback/stored.h"
#include "ops/linalg/linalg.h"
#include "tests/compress/fixed/solved.h"
#include "tests/error_message.h"

namespace mica {
namespace {

struct Case {
  const char* name;
  size_t rows, cols, group_size;
  int bits;  // 0: mixed
  SparsityPattern sparsity = {};
  int rounds = 3;
  bool unequal = false;  // shares of columns and importance of rows
  bool alike = false;    // weights of few different sizes, so that scores are equal
};

// On either side of a warp's rows, a block's rows, a strip, a group, a block of columns and a cell.
const Case kCases[] = {
    {"plain", 130, 128, 128, 4},
    {"one_row", 1, 128, 64, 3},
    {"groups_of_32", 33, 96, 32, 3},
    {"two_bits", 31, 128, 64, 2},
    {"six_bits", 31, 77, 64, 6},
    {"eight_bits", 31, 128, 128, 8},
    {"odd_groups", 33, 100, 7, 4},
    {"groups_of_1", 17, 20, 1, 4},
    {"half", 31, 60, 128, 16},
    {"half_pruned", 31, 60, 128, 16, {0.5, 0, 0}},
    {"mixed", 130, 128, 32, 0},
    {"plain_fit", 33, 128, 64, 4, {}, 0},
    {"bitmap", 130, 128, 128, 4, {0.5, 0, 0}},
    {"bitmap_of_ties", 130, 128, 64, 4, {0.3, 0, 0}, 3, false, true},
    {"bitmap_mixed", 33, 128, 32, 0, {0.5, 0, 0}, 3, true},
    {"cells_of_4", 33, 126, 128, 4, {0, 2, 4}},
    {"cells_across_groups", 31, 127, 20, 3, {0, 4, 8}},
    {"cells_mixed", 130, 128, 32, 0, {0, 2, 4}},
    {"cells_plain_fit", 33, 120, 12, 4, {0, 4, 8}, 0},
    {"blocks", 33, 300, 128, 4},
    {"blocks_mixed", 130, 420, 64, 0},
    {"large_group", 31, 300, 1000, 3},
    {"large_groups", 33, 500, 200, 4},
    {"bitmap_blocks", 130, 420, 64, 0, {0.5, 0, 0}, 3, true},
    {"bitmap_large_group", 31, 300, 1000, 3, {0.4, 0, 0}},
    {"cells_across_blocks", 33, 300, 50, 3, {0, 4, 8}},
    {"cells_large_group", 130, 301, 1000, 4, {0, 2, 4}},
};

class SolverOnCuda : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (CudaDevices() == 0) GTEST_SKIP() << CudaAbsence();
    const Case& c = GetParam();
    w = GaussianWeights(c.rows, c.cols, 11);
    if (c.alike) {
      for (size_t i = 0; i < w.size(); ++i) w.data()[i] = 0.01f * static_cast<float>(i * 7 % 5) - 0.02f;
    }
    h = CorrelatedMoments(c.cols, 2 * c.cols + 8, 12);
    if (c.alike) {  // channels alike and alone, so that no score differs by rounding
      h.Fill(0.0f);
      for (size_t j = 0; j < c.cols; ++j) h(j, j) = 2;
    }
    settings.group_size = c.group_size;
    settings.sparsity = c.sparsity;
    settings.search_rounds = c.rounds;
    if (c.unequal) {
      settings.pruned_shares = UnequalShares(c.cols);
      for (size_t r = 0; r < c.rows; ++r) settings.row_importance.push_back(0.5f + static_cast<float>(r % 4));
    }
    widths = c.bits == 0 ? Mixed(c.cols, c.sparsity) : Uniform(c.cols, c.bits);
    energy.resize(c.cols);
    for (size_t j = 0; j < c.cols; ++j) energy[j] = h(j, j);
    order = ActivationOrder(energy, std::vector<double>(c.cols, 1.0));
  }

  ColumnPlan Plan() const { return MakePlan(w.rows(), order, widths, settings); }

  Matrix<float> w, h;
  std::vector<double> energy;
  std::vector<uint32_t> order;
  std::vector<uint8_t> widths;
  FixedSolverSettings settings;
};

// What the stages leave, on the processor.
struct Left {
  Array codes, keep, scales, zeros, errors;
  double loss = 0;
};

bool SameBytes(const Array& a, const Array& b) {
  const size_t bytes = a.rows() * a.cols() * DTypeBytes(a.dtype());
  return a.rows() == b.rows() && a.cols() == b.cols() && a.dtype() == b.dtype() &&
         (bytes == 0 || std::memcmp(a.view().data, b.view().data, bytes) == 0);
}

bool Same(const Left& a, const Left& b) {
  return SameBytes(a.codes, b.codes) && SameBytes(a.keep, b.keep) && SameBytes(a.scales, b.scales) &&
         SameBytes(a.zeros, b.zeros) && SameBytes(a.errors, b.errors) && a.loss == b.loss;
}

// Share of the integers that are the same.
template <typename T>
double SameShare(const Array& a, const Array& b) {
  const MatrixView<const T> x = IntegersOf<T>(a.view()), y = IntegersOf<T>(b.view());
  size_t same = 0;
  for (size_t i = 0; i < x.rows; ++i) {
    for (size_t j = 0; j < x.cols; ++j) same += x(i, j) == y(i, j);
  }
  return x.rows * x.cols > 0 ? static_cast<double>(same) / static_cast<double>(x.rows * x.cols) : 1.0;
}

Left Taken(const SolverState& state, const Array& errors, double loss) {
  const auto here = [](const Array& array) { return CopyTo(Device::Cpu(), array.view()); };
  return {here(state.codes), here(state.keep), here(state.scales), here(state.zeros), here(errors), loss};
}

// FeedAll from the same factor on any device.
Left Fed(Device device, const ColumnPlan& plan, const Matrix<float>& w, const DampedFactor& factor,
         const FixedSolverSettings& settings, SolverState* state) {
  state->plan = plan;
  state->rows = w.rows();
  state->cols = w.cols();
  state->exponent = -3;
  state->Allocate(device);
  const Array weights = CopyTo(device, w), u = CopyTo(device, factor.tensor());
  Array remaining(w.cols(), w.rows(), DType::kF32, device), errors(w.cols(), w.rows(), DType::kF32, device);
  Residual(*state, weights.view(), factor.dead(), true, remaining.view());
  FeedbackSettings feedback{{}, settings.row_importance, settings.search_rounds};
  for (const float value : factor.Diagonal()) feedback.saliency.push_back(1.0f / (value * value));
  const double loss = FeedAll(*state, u.view(), feedback, remaining.view(), errors.view());
  return Taken(*state, errors, loss);
}

// Every block prunes as many, and every cell of every row, as the plan says.
void ExpectBudgets(const ColumnPlan& plan, const Array& keep) {
  if (plan.mask == MaskKind::kNone) return;
  const MatrixView<const uint8_t> kept = IntegersOf<uint8_t>(keep.view());
  const auto pruned = [&](size_t first, size_t end, size_t r) {
    size_t count = 0;
    for (size_t p = first; p < end; ++p) count += kept(p, r) == 0;
    return count;
  };
  for (const ColumnBlock& block : plan.blocks) {
    if (plan.mask != MaskKind::kBitmap || block.end > plan.coded) continue;
    uint64_t count = 0;
    for (size_t r = 0; r < kept.cols; ++r) count += pruned(block.start, block.end, r);
    EXPECT_EQ(count, plan.pruned_before[block.end] - plan.pruned_before[block.start]);
  }
  for (size_t p = 0; plan.mask.cols > 0 && p < plan.coded; p += plan.mask.cols) {
    const size_t end = std::min(plan.coded, p + plan.mask.cols);
    for (size_t r = 0; r < kept.cols; ++r) ASSERT_EQ(pruned(p, end, r), plan.mask.Pruned(end - p));
  }
}

TEST_P(SolverOnCuda, FeedbackStoresWhatTheProcessorStores) {
  const ColumnPlan plan = Plan();
  const DampedFactor factor(h, plan.order, 0.01);
  SolverState here, there, again;
  const Left expected = Fed(Device::Cpu(), plan, w, factor, settings, &here),
             got = Fed(Device::Cuda(), plan, w, factor, settings, &there);
  ExpectBudgets(plan, got.keep);
  // Products alone are rounded differently: where there are none, nothing differs but for processors without
  // fused products, and where there are, few decisions do.
  const double most = plan.blocks.size() == 1 ? 0.999 : 0.98;
  EXPECT_GE(SameShare<uint16_t>(got.codes, expected.codes), most);
  EXPECT_GE(SameShare<uint8_t>(got.keep, expected.keep), most);
  EXPECT_GE(SameShare<uint8_t>(got.scales, expected.scales), most);
  EXPECT_GE(SameShare<uint8_t>(got.zeros, expected.zeros), most);
  EXPECT_NEAR(got.loss, expected.loss, (plan.blocks.size() == 1 ? 1e-4 : 5e-3) * expected.loss);
  EXPECT_TRUE(Same(got, Fed(Device::Cuda(), plan, w, factor, settings, &again)));
}

// One pass descends only; before it, passes exchange.
TEST_P(SolverOnCuda, RefinementLowersTheLossAsOnTheProcessor) {
  const ColumnPlan plan = Plan();
  const DampedFactor factor(h, plan.order, 0.01);
  Matrix<float> moments(w.cols(), w.cols());
  factor.DampedMoments(h, moments);
  for (const int passes : {1, 2, 4}) {
    std::vector<Left> results;
    std::vector<double> losses;
    for (const Device device : {Device::Cpu(), Device::Cuda(), Device::Cuda()}) {
      // From what the processor has stored.
      SolverState state;
      const double before = Fed(Device::Cpu(), plan, w, factor, settings, &state).loss;
      for (Array* array : {&state.codes, &state.keep, &state.scales, &state.zeros})
        *array = CopyTo(device, array->view());
      const Array weights = CopyTo(device, w), damped = CopyTo(device, moments);
      Array residual(w.cols(), w.rows(), DType::kF32, device),
          gradient(w.cols(), w.rows(), DType::kF32, device);
      Residual(state, weights.view(), factor.dead(), false, residual.view());
      const double change =
          RefineAll(state, damped.view(), passes, residual.view(), gradient.view(), residual.view());
      results.push_back(Taken(state, residual, change));
      // What it says is what it did.
      EXPECT_LE(change, 0);
      Residual(state, weights.view(), factor.dead(), false, residual.view());
      Array product(w.cols(), w.rows(), DType::kF32, device);
      Gemm(false, false, 1.0f, damped.view(), residual.view(), 0.0f, product.view());
      double after = 0;
      for (const double part : RowProducts(residual.view(), product.view())) after += part;
      EXPECT_NEAR(before + change, after, 1e-3 * before) << passes;
      losses.push_back(after);
      ExpectBudgets(plan, results.back().keep);
    }
    EXPECT_NEAR(losses[1], losses[0], (w.rows() > 1 ? 5e-3 : 2e-2) * losses[0] + 1e-9) << passes;
    // A near tie that falls otherwise takes those after it along.
    EXPECT_GE(SameShare<uint16_t>(results[1].codes, results[0].codes), 0.9) << passes;
    EXPECT_GE(SameShare<uint8_t>(results[1].keep, results[0].keep), 0.9) << passes;
    EXPECT_TRUE(Same(results[1], results[2])) << passes;
  }
}

TEST_P(SolverOnCuda, WholeSolutionsAreAsGood) {
  const Array weights = CopyTo(Device::Cuda(), w), moments = CopyTo(Device::Cuda(), h);
  const DampedFactor here(h, order, 0.01), there(moments.view(), order, 0.01);
  for (const int passes : {0, 1, 2}) {
    settings.refine_passes = passes;
    SolverReport expected, report;
    SolveFixed(w, h, here, widths, settings, &expected);
    Array out(w.rows(), w.cols(), DType::kF32, Device::Cuda());
    const FixedMatrix got =
        SolveFixed(weights.view(), moments.view(), there, widths, settings, &report, out.view());
    ExpectValid(got);
    const ColumnPlan plan = Plan();
    EXPECT_EQ(got.order, plan.order);
    EXPECT_EQ(got.widths, plan.widths);
    Array keep(got.keep.cols(), got.keep.rows(), DType::kU8);
    for (size_t r = 0; r < got.keep.rows(); ++r) {
      for (size_t p = 0; p < got.keep.cols(); ++p) IntegersOf<uint8_t>(keep.view())(p, r) = got.keep(r, p);
    }
    ExpectBudgets(plan, keep);
    // The weights on the device are what a reader gets.
    Matrix<float> decoded(w.rows(), w.cols());
    Copy(out.view(), decoded);
    const Matrix<float> read = Decoded(got);
    ASSERT_EQ(std::memcmp(decoded.data(), read.data(), read.size() * sizeof(float)), 0);
    EXPECT_EQ(report.zero_share, static_cast<double>(Zeros(read)) / static_cast<double>(w.size()));
    const double truth = LossBetween(w, read, h);
    EXPECT_NEAR(report.measured_loss, truth, 1e-4 * truth);
    const double tolerance = w.rows() > 1 ? 5e-3 : 5e-2;
    EXPECT_NEAR(report.feedback_loss, expected.feedback_loss, tolerance * expected.feedback_loss);
    EXPECT_NEAR(report.predicted_loss, expected.predicted_loss, tolerance * expected.predicted_loss);
    EXPECT_NEAR(report.measured_loss, expected.measured_loss, tolerance * expected.measured_loss);
    EXPECT_NEAR(report.relative_error, expected.relative_error, tolerance * expected.relative_error);
    EXPECT_EQ(report.dead_channels, expected.dead_channels);
    EXPECT_EQ(report.damping, expected.damping);
    const FixedMatrix again = SolveFixed(weights.view(), moments.view(), there, widths, settings, nullptr);
    EXPECT_EQ(std::memcmp(again.codes.data(), got.codes.data(), got.codes.size() * sizeof(uint16_t)), 0);
    if (!got.scales.empty()) {
      EXPECT_EQ(std::memcmp(again.scales.data(), got.scales.data(), got.scales.size()), 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, SolverOnCuda, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

class SolveFixedOnCuda : public testing::Test {
 protected:
  void SetUp() override {
    if (CudaDevices() == 0) GTEST_SKIP() << CudaAbsence();
  }
};

TEST_F(SolveFixedOnCuda, TakesExponentsOutOfColumns) {
  const size_t rows = 33, cols = 140;
  Matrix<float> w = GaussianWeights(rows, cols, 21), h = CorrelatedMoments(cols, 300, 22);
  FixedSolverSettings settings;
  settings.group_size = 32;
  settings.refine_passes = 2;
  for (size_t j = 0; j < cols; ++j) {
    settings.col_exponents.push_back(static_cast<int8_t>(j * 5 % 13) - 6);
    for (size_t r = 0; r < rows; ++r) w(r, j) = std::ldexp(w(r, j), settings.col_exponents[j]);
  }
  const std::vector<uint8_t> widths = Mixed(cols);
  const Array weights = CopyTo(Device::Cuda(), w), moments = CopyTo(Device::Cuda(), h);
  const DampedFactor here(h, {}, 0.01), there(moments.view(), {}, 0.01);
  SolverReport expected, report;
  SolveFixed(w, h, here, widths, settings, &expected);
  Array out(rows, cols, DType::kF32, Device::Cuda());
  const FixedMatrix got =
      SolveFixed(weights.view(), moments.view(), there, widths, settings, &report, out.view());
  ExpectValid(got);
  Matrix<float> decoded(rows, cols);
  Copy(out.view(), decoded);
  const Matrix<float> read = Decoded(got);
  EXPECT_EQ(std::memcmp(decoded.data(), read.data(), read.size() * sizeof(float)), 0);
  EXPECT_NEAR(report.measured_loss, expected.measured_loss, 5e-3 * expected.measured_loss);
}

// More columns than tensor cores sum at once, widths whose blocks begin anywhere, and more than one matrix at
// a time.
TEST_F(SolveFixedOnCuda, SolvesManyBlocksByAnyThread) {
  const size_t rows = 48, cols = 2310;
  const Matrix<float> w = GaussianWeights(rows, cols, 51);
  Matrix<float> h(cols, cols);
  for (size_t i = 0; i < cols; ++i) {
    for (size_t j = 0; j < cols; ++j)
      h(i, j) = std::pow(0.9f, static_cast<float>(i > j ? i - j : j - i)) *
                std::exp2(std::sin(float(i)) + std::sin(float(j)));
  }
  FixedSolverSettings settings;
  settings.sparsity = {0.5, 0, 0};
  settings.refine_passes = 3;
  const std::vector<uint8_t> widths = Mixed(cols);
  const Array weights = CopyTo(Device::Cuda(), w), moments = CopyTo(Device::Cuda(), h);
  const DampedFactor here(h, {}, 0.01), there(moments.view(), {}, 0.01);
  SolverReport expected, report;
  SolveFixed(w, h, here, widths, settings, &expected);
  const FixedMatrix alone = SolveFixed(weights.view(), moments.view(), there, widths, settings, &report);
  ExpectValid(alone);
  const double truth = LossBetween(w, Decoded(alone), h);
  EXPECT_NEAR(report.measured_loss, truth, 3e-4 * truth);
  EXPECT_NEAR(report.feedback_loss, expected.feedback_loss, 5e-3 * expected.feedback_loss);
  EXPECT_NEAR(report.predicted_loss, expected.predicted_loss, 5e-3 * expected.predicted_loss);
  EXPECT_NEAR(report.measured_loss, expected.measured_loss, 5e-3 * expected.measured_loss);
  EXPECT_LT(report.predicted_loss, report.feedback_loss);
  std::vector<std::future<FixedSolution>> all;
  for (int i = 0; i < 3; ++i) {
    all.push_back(std::async(std::launch::async, [&] {
      SolverReport unread;
      FixedSolution solution =
          SolveFixedThere(weights.view(), moments.view(), there, widths, settings, &unread);
      Synchronize(Device::Cuda());
      return solution;
    }));
  }
  for (std::future<FixedSolution>& one : all) {
    FixedSolution solution = one.get();
    const PackedMatrix packed = solution.Packed(), of_host = Pack(alone);
    ASSERT_EQ(packed.parts.size(), of_host.parts.size());
    for (size_t i = 0; i < packed.parts.size(); ++i) {
      EXPECT_EQ(packed.parts[i].shape, of_host.parts[i].shape);
      EXPECT_EQ(packed.parts[i].bytes, of_host.parts[i].bytes);
    }
    const FixedMatrix got = solution.Take();
    ASSERT_EQ(got.codes.size(), alone.codes.size());
    EXPECT_EQ(std::memcmp(got.codes.data(), alone.codes.data(), got.codes.size() * sizeof(uint16_t)), 0);
    EXPECT_EQ(std::memcmp(got.keep.data(), alone.keep.data(), got.keep.size()), 0);
    EXPECT_EQ(std::memcmp(got.scales.data(), alone.scales.data(), got.scales.size()), 0);
    EXPECT_EQ(std::memcmp(got.zeros.data(), alone.zeros.data(), got.zeros.size()), 0);
  }
}

TEST_F(SolveFixedOnCuda, LeavesDeadChannelsZero) {
  const size_t rows = 10, cols = 40;
  const Matrix<float> w = GaussianWeights(rows, cols, 38);
  Matrix<float> h = CorrelatedMoments(cols, 300, 39);
  for (const size_t dead : {3, 17, 39}) {
    for (size_t j = 0; j < cols; ++j) h(dead, j) = h(j, dead) = 0;
  }
  const Array weights = CopyTo(Device::Cuda(), w), moments = CopyTo(Device::Cuda(), h);
  const DampedFactor factor(moments.view(), {}, 0.01);
  SolverReport report;
  const Matrix<float> read =
      Decoded(SolveFixed(weights.view(), moments.view(), factor, Mixed(cols), {}, &report));
  EXPECT_EQ(report.dead_channels, 3u);
  for (size_t r = 0; r < rows; ++r) {
    for (const size_t dead : {3, 17, 39}) ASSERT_EQ(read(r, dead), 0.0f);
  }
}

TEST_F(SolveFixedOnCuda, RefusesWhatHalvesDoNotHold) {
  Matrix<float> w = GaussianWeights(4, 8, 43);
  const Matrix<float> h = CorrelatedMoments(8, 100, 44);
  w(1, 2) = 1e5f;
  const auto message = [&](Device device, int bits) {
    const Array weights = CopyTo(device, w), moments = CopyTo(device, h);
    const DampedFactor factor(moments.view(), {}, 0.01);
    return MessageOf([&] {
      SolveFixed(weights.view(), moments.view(), factor, Uniform(8, bits), FixedSolverSettings{}, nullptr);
    });
  };
  EXPECT_NE(message(Device::Cuda(), 16).find("row 1, column 2"), std::string::npos);
  EXPECT_EQ(message(Device::Cuda(), 16), message(Device::Cpu(), 16));
  EXPECT_EQ(message(Device::Cuda(), 4), "");
}

}  // namespace
}  // namespace mica
