#include "compress/blocks/solver.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "compress/inform/steps.h"
#include "device/array.h"
#include "device/cuda.h"
#include "format/gguf/decode.h"
#include "ops/linalg/linalg.h"
#include "tests/compress/correlated.h"
#include "tests/error_message.h"

namespace mica {
namespace {

constexpr size_t kRows = 43, kCols = 512;

std::vector<GgmlType> SolvedTypes() {
  std::vector<GgmlType> types;
  for (const GgmlTypeFacts& facts : GgmlTypes()) {
    if (CanSolve(facts.type)) types.push_back(facts.type);
  }
  return types;
}

Matrix<float> Decoded(GgmlType type, const std::vector<std::byte>& bytes, size_t rows, size_t cols) {
  Matrix<float> values(rows, cols);
  const size_t row_bytes = bytes.size() / rows;
  for (size_t r = 0; r < rows; ++r)
    DecodeRow(type, std::span(bytes).subspan(r * row_bytes, row_bytes), {values.row(r), cols});
  return values;
}

TEST(SolveOnBlocks, ReportsTheLossOfTheBytes) {
  const Matrix<float> w = GaussianWeights(kRows, kCols, 3), h = CorrelatedMoments(kCols, 1500, 4);
  const DampedFactor factor(h, {}, 0);
  for (const GgmlType type : SolvedTypes()) {
    const BlockGrid& grid = GridOf(type);
    double fed = 0;
    for (const int passes : {0, 3}) {
      BlockSettings settings;
      settings.refine_passes = passes;
      SolverReport report;
      Matrix<float> weights(kRows, kCols);
      const BlockSolution solution = SolveOnBlocks(w, h, factor, grid, settings, &report, weights);
      const Matrix<float> read = Decoded(type, solution.EncodedRows(type), kRows, kCols);
      for (size_t i = 0; i < read.size(); ++i) ASSERT_EQ(read.data()[i], weights.data()[i]) << grid.name;
      const double truth = LossBetween(w, read, h);
      EXPECT_NEAR(report.measured_loss, truth, 1e-4 * truth) << grid.name;
      EXPECT_NEAR(report.predicted_loss, truth, 1e-3 * truth) << grid.name;
      if (passes == 0) {
        EXPECT_EQ(report.predicted_loss, report.feedback_loss);
        fed = truth;
      } else {
        EXPECT_LT(truth, 0.999 * fed) << grid.name;
      }
    }
  }
}

TEST(SolveOnBlocks, FeedbackBeatsRoundingAndTheSearchBeatsNone) {
  const Matrix<float> w = GaussianWeights(64, kCols, 7), h = CorrelatedMoments(kCols, 1500, 8);
  const DampedFactor factor(h, {}, 0.01);
  for (const GgmlType type : SolvedTypes()) {
    const BlockGrid& grid = GridOf(type);
    const std::vector<std::byte> bytes = RoundOnBlocks(w, {}, grid).EncodedRows(type);
    const double rounded = LossBetween(w, Decoded(type, bytes, 64, kCols), h);
    BlockSettings settings;
    settings.search_rounds = 0;
    settings.refine_passes = 0;
    SolverReport plain, searched;
    SolveOnBlocks(w, h, factor, grid, settings, &plain);
    settings.search_rounds = 3;
    SolveOnBlocks(w, h, factor, grid, settings, &searched);
    EXPECT_LT(plain.measured_loss, 0.75 * rounded) << grid.name;
    EXPECT_LT(searched.measured_loss, 1.03 * plain.measured_loss) << grid.name;
  }
}

// tr(G (W - Q) H (W - Q)^T).
double LossUnder(const Matrix<float>& g, const Matrix<float>& w, const Matrix<float>& q, const Matrix<float>& h) {
  Matrix<float> off = w.Clone(), moved(w.rows(), w.cols()), felt(w.rows(), w.cols());
  for (size_t i = 0; i < off.size(); ++i) off.data()[i] -= q.data()[i];
  Gemm(false, false, 1.0f, off, h, 0.0f, moved);
  Gemm(false, false, 1.0f, g, moved, 0.0f, felt);
  double loss = 0;
  for (size_t i = 0; i < off.size(); ++i) loss += double{off.data()[i]} * felt.data()[i];
  return loss;
}

// What PlanRowSteps makes of the moments of outputs, G, in blocks of so many.
StepPlan RowsOf(const Matrix<float>& g, size_t block) {
  OutputInformation outputs;
  outputs.moments = Matrix<float>(g.rows(), block, 0.0f);
  for (size_t r = 0; r < g.rows(); ++r) {
    outputs.fisher.push_back(g(r, r));
    const size_t start = r / block * block;
    for (size_t s = 0; s < std::min(block, g.rows() - start); ++s) outputs.moments(r, s) = g(r, start + s);
  }
  return PlanRowSteps(outputs, 0, {});
}

TEST(SolveOnBlocks, ErrorsAreAbsorbedByLaterRows) {
  constexpr size_t kMany = 300;  // four stripes
  const Matrix<float> w = GaussianWeights(kMany, kCols, 3), h = CorrelatedMoments(kCols, 1500, 4),
                      g = CorrelatedMoments(kMany, 900, 5);
  const DampedFactor factor(h, {}, 0);
  for (const GgmlType type : {GgmlType::kQ4_K, GgmlType::kQ2_K, GgmlType::kIQ3_S}) {
    const BlockGrid& grid = GridOf(type);
    Matrix<float> plain(kMany, kCols), stored(kMany, kCols);
    SolverReport report;
    SolveOnBlocks(w, h, factor, grid, {}, nullptr, plain);
    const double before = LossUnder(g, w, plain, h);
    double whole = 0;
    for (const size_t block : {kMany, size_t{128}}) {
      const StepPlan rows = RowsOf(g, block);
      const BlockSolution solution = SolveOnBlocks(w, h, factor, {rows.row_order, rows.v.view()}, grid, {}, &report, stored);
      EXPECT_EQ(solution.rows(), kMany);
      const Matrix<float> read = Decoded(type, solution.EncodedRows(type), kMany, kCols);
      for (size_t i = 0; i < read.size(); ++i) ASSERT_EQ(read.data()[i], stored.data()[i]) << grid.name;
      const double after = LossUnder(g, w, stored, h);
      // Small blocks gain 2 to 3 %: how sums are rounded moves that by one.
      EXPECT_LT(after, (block == kMany ? 0.97 : 0.985) * before) << grid.name << ", blocks of " << block;
      if (block == kMany) whole = after;
      EXPECT_GE(after, whole) << grid.name;
      EXPECT_GT(LossBetween(w, stored, h), LossBetween(w, plain, h)) << grid.name;  // what it costs without G
      EXPECT_GT(report.relative_error, 0);
      EXPECT_LT(report.relative_error, 1);
    }
  }
}

TEST(SolveOnBlocks, RowsFeedBackOnACudaDeviceAsWell) {
  if (CudaDevices() == 0) GTEST_SKIP() << CudaAbsence();
  constexpr size_t kMany = 300;
  const Device device = Device::Cuda(0);
  const Matrix<float> w = GaussianWeights(kMany, kCols, 3), h = CorrelatedMoments(kCols, 1500, 4),
                      g = CorrelatedMoments(kMany, 900, 5);
  const StepPlan rows = RowsOf(g, 128);
  const DampedFactor factor(h, {}, 0);
  Matrix<float> here(kMany, kCols), there(kMany, kCols);
  const BlockGrid& grid = GridOf(GgmlType::kQ4_K);
  SolveOnBlocks(w, h, factor, {rows.row_order, rows.v.view()}, grid, {}, nullptr, here);
  const Array w_there = CopyTo(device, w), h_there = CopyTo(device, h), v_there = CopyTo(device, rows.v.view());
  const DampedFactor factor_there(h_there.view(), {}, 0);
  Array stored(kMany, kCols, DType::kF32, device);
  const BlockSolution solution = SolveOnBlocks(w_there.view(), h_there.view(), factor_there, {rows.row_order, v_there.view()},
                                               grid, {}, nullptr, stored.view());
  Copy(std::as_const(stored).view(), there);
  const Matrix<float> read = Decoded(GgmlType::kQ4_K, solution.EncodedRows(GgmlType::kQ4_K), kMany, kCols);
  for (size_t i = 0; i < read.size(); ++i) ASSERT_EQ(read.data()[i], there.data()[i]);
  const double expected = LossUnder(g, w, here, h);
  EXPECT_NEAR(LossUnder(g, w, there, h), expected, 0.02 * expected);  // some codes round otherwise
}

TEST(SolveOnBlocks, OutputsThatAreFeltAloneFeedNothingBack) {
  constexpr size_t kMany = 200;
  const Matrix<float> w = GaussianWeights(kMany, kCols, 3), h = CorrelatedMoments(kCols, 1500, 4);
  Matrix<float> g(kMany, kMany, 0.0f);
  for (size_t r = 0; r < kMany; ++r) g(r, r) = 1.0f + static_cast<float>(r % 7);
  const DampedFactor factor(h, {}, 0);
  const BlockGrid grid = SymmetricGrid(4, 128, ScaleType::kBF16);
  SolverReport apart, together;
  const StepPlan rows = RowsOf(g, kMany);
  const BlockSolution solution = SolveOnBlocks(w, h, factor, {rows.row_order, rows.v.view()}, grid, {}, &apart);
  const BlockSolution expected = SolveOnBlocks(w, h, factor, grid, {}, &together);
  const auto same = [](const auto& a, const auto& b) {
    return a.size() == b.size() && std::equal(a.data(), a.data() + a.size(), b.data());
  };
  EXPECT_TRUE(same(solution.Codes(), expected.Codes()));
  EXPECT_TRUE(same(solution.Scales(), expected.Scales()));
  EXPECT_NEAR(apart.measured_loss, together.measured_loss, 1e-5 * together.measured_loss);
  EXPECT_NEAR(apart.relative_error, together.relative_error, 1e-5 * together.relative_error);
}

TEST(SolveOnBlocks, SolvesSymmetricIntegers) {
  const Matrix<float> w = GaussianWeights(kRows, kCols, 9), h = CorrelatedMoments(kCols, 1500, 10);
  const DampedFactor factor(h, {}, 0.01);
  double previous = std::numeric_limits<double>::infinity();
  for (int bits = 2; bits <= 8; ++bits) {
    for (const ScaleType scale_type : {ScaleType::kF16, ScaleType::kBF16}) {
      Matrix<float> weights(kRows, kCols);
      SolverReport report;
      const BlockSolution solution =
          SolveOnBlocks(w, h, factor, SymmetricGrid(bits, 128, scale_type), {}, &report, weights);
      const Matrix<uint8_t> codes = solution.Codes();
      const Matrix<uint16_t> scales = solution.Scales();
      ASSERT_EQ(scales.cols(), kCols / 128);
      for (size_t r = 0; r < kRows; ++r) {
        for (size_t j = 0; j < kCols; ++j) {
          const uint16_t stored = scales(r, j / 128);
          const float scale = scale_type == ScaleType::kF16 ? ToFloat(F16{stored}) : ToFloat(BF16{stored});
          ASSERT_LT(codes(r, j), 1 << bits);
          ASSERT_EQ(weights(r, j), static_cast<float>(codes(r, j) - (1 << (bits - 1))) * scale);
        }
      }
      EXPECT_LT(report.measured_loss, 0.5 * previous) << bits;
      if (scale_type == ScaleType::kBF16) previous = report.measured_loss;
    }
  }
}

TEST(SolveOnBlocks, DeadChannelsDoNotMatter) {
  const Matrix<float> w = GaussianWeights(10, 256, 13);
  Matrix<float> h = CorrelatedMoments(256, 900, 14);
  for (const size_t dead : {3, 17, 255}) {
    for (size_t j = 0; j < 256; ++j) h(dead, j) = h(j, dead) = 0;
  }
  const DampedFactor factor(h, {}, 0.01);
  for (const GgmlType type : SolvedTypes()) {
    SolverReport report;
    Matrix<float> weights(10, 256);
    SolveOnBlocks(w, h, factor, GridOf(type), {}, &report, weights);
    EXPECT_EQ(report.dead_channels, 3u);
    EXPECT_NEAR(report.measured_loss, LossBetween(w, weights, h), 1e-4 * report.measured_loss);
  }
}

TEST(SolveOnBlocks, RefusesWhatItCannotUse) {
  Matrix<float> w = GaussianWeights(4, 64, 43), h = CorrelatedMoments(64, 300, 44);
  const DampedFactor factor(h, {}, 0.01);
  EXPECT_NE(MessageOf([&] { SolveOnBlocks(w, h, factor, GridOf(GgmlType::kQ4_K), {}, nullptr); }).find("256"),
            std::string::npos);
  BlockSettings settings;
  settings.refine_passes = -1;
  EXPECT_NE(MessageOf([&] { SolveOnBlocks(w, h, factor, GridOf(GgmlType::kQ4_0), settings, nullptr); }), "");
  w(1, 2) = std::numeric_limits<float>::infinity();
  EXPECT_NE(MessageOf([&] {
              SolveOnBlocks(w, h, factor, GridOf(GgmlType::kQ4_0), {}, nullptr);
            }).find("weights: row 1, column 2"),
            std::string::npos);
}

}  // namespace
}  // namespace mica
