// Steps by information and feedback from both sides, against the quadratic loss itself in FP64.
#include "compress/entropy/solver.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "compress/curvature/output_information.h"
#include "compress/inform/steps.h"
#include "device/array.h"
#include "device/cuda.h"
#include "ops/codes/codes.h"
#include "ops/codes/entropy_model.h"
#include "tests/compress/entropy/step_options.h"

namespace mica {
namespace {

// A second moment of `n` correlated channels of very different energies.
Matrix<float> RandomMoments(size_t n, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  const size_t samples = 3 * n;
  Matrix<double> x(samples, n);
  std::vector<double> size(n);
  for (double& s : size) s = std::exp(normal(random));
  for (size_t t = 0; t < samples; ++t) {
    double common = normal(random);
    for (size_t j = 0; j < n; ++j) {
      common = 0.7 * common + normal(random);
      x(t, j) = size[j] * common;
    }
  }
  Matrix<float> h(n, n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) {
      double sum = 0;
      for (size_t t = 0; t < samples; ++t) sum += x(t, i) * x(t, j);
      h(i, j) = static_cast<float>(sum / static_cast<double>(samples));
    }
  }
  return h;
}

struct Problem {
  Matrix<float> w, h;
  OutputInformation outputs;
};

// block 0: the outputs' moments are not known.
Problem MakeProblem(size_t rows, size_t cols, size_t block, uint64_t seed) {
  Problem problem;
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  problem.w = Matrix<float>(rows, cols);
  for (size_t i = 0; i < problem.w.size(); ++i) problem.w.data()[i] = normal(random);
  problem.h = RandomMoments(cols, seed + 1);
  const Matrix<float> g = RandomMoments(rows, seed + 2);
  for (size_t r = 0; r < rows; ++r) problem.outputs.fisher.push_back(g(r, r));
  if (block == 0) return problem;
  problem.outputs.moments = Matrix<float>(rows, block, 0.0f);
  for (size_t r = 0; r < rows; ++r) {
    const size_t begin = r / block * block;
    for (size_t s = begin; s < std::min(rows, begin + block); ++s)
      problem.outputs.moments(r, s - begin) = g(r, s);
  }
  return problem;
}

// tr(G D H D^T) in FP64 for D = w - decoded, with the damping that the plan's factors hold.
double TrueLoss(const Problem& problem, const StepOptions& settings, const EntropyMatrix& solved) {
  const size_t rows = problem.w.rows(), cols = problem.w.cols();
  Matrix<float> decoded(rows, cols);
  Decode(solved, decoded);
  double trace = 0;
  for (size_t j = 0; j < cols; ++j) trace += problem.h(j, j);
  const double fisher = std::accumulate(problem.outputs.fisher.begin(), problem.outputs.fisher.end(), 0.0);
  const double mean = fisher / static_cast<double>(rows);
  Matrix<double> dh(rows, cols);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t j = 0; j < cols; ++j) {
      double sum = 0;
      for (size_t k = 0; k < cols; ++k) {
        const double h = problem.h(k, j) * (k == j ? 1 + settings.damping : 1);
        sum += (static_cast<double>(problem.w(r, k)) - decoded(r, k)) * h;
      }
      dh(r, j) = sum;
    }
  }
  const size_t block = problem.outputs.moments.cols();
  double loss = 0;
  for (size_t r = 0; r < rows; ++r) {
    for (size_t s = 0; s < rows; ++s) {
      double g = 0;
      if (block == 0) {
        if (r != s) continue;
        g = (problem.outputs.fisher[r] + settings.fisher_damping * mean) / (1 + settings.fisher_damping);
      } else {
        if (r / block != s / block) continue;
        g = problem.outputs.moments(r, s % block) + (r == s ? settings.output_damping * mean : 0);
      }
      for (size_t j = 0; j < cols; ++j) {
        loss += g * dh(r, j) * (static_cast<double>(problem.w(s, j)) - decoded(s, j));
      }
    }
  }
  return loss * std::pow(trace * fisher, -0.1);
}

class StepSolverTest : public testing::Test {
 protected:
  ~StepSolverTest() override { SetThreads(0); }
};

TEST_F(StepSolverTest, PredictsTheLossItLeaves) {
  for (const bool trellis : {false, true}) {
    for (const size_t block : {size_t{0}, size_t{300}, size_t{128}}) {
      const Problem problem = MakeProblem(300, 70, block, 11);
      StepOptions settings;
      settings.trellis = trellis;
      const StepPlan plan = PlanOf(problem.h, problem.outputs, settings);
      StepReport report;
      const EntropyMatrix solved = SolveSteps(problem.w, plan, 0.0, settings, &report);
      const double loss = TrueLoss(problem, settings, solved);
      EXPECT_NEAR(report.loss / loss, 1.0, 2e-3) << "trellis " << trellis << ", block " << block;
    }
  }
}

TEST_F(StepSolverTest, PredictsTheLossItLeavesOnACudaDevice) {
  if (CudaDevices() == 0) GTEST_SKIP() << CudaAbsence();
  for (const bool trellis : {false, true}) {
    for (const size_t block : {size_t{0}, size_t{300}, size_t{128}}) {
      const Problem problem = MakeProblem(300, 70, block, 11);
      StepOptions settings;
      settings.trellis = trellis;
      settings.lambda = 0.25;
      settings.window = 32;
      const StepPlan plan = PlanOf(problem.h, problem.outputs, settings);
      const Array w = CopyTo(Device::Cuda(), problem.w);
      Array weights(300, 70, DType::kF32, Device::Cuda());
      const std::vector<StepTask> tasks = {{w.view(), &plan, weights.view()}};
      StepSolution solved = std::move(SolveSteps(tasks, 0.0, settings)[0]);
      EXPECT_TRUE(solved.matrix.n.empty());
      ASSERT_EQ(solved.n.dtype(), DType::kI16);
      const Array n = CopyTo(Device::Cpu(), solved.n.view());
      solved.matrix.n = Matrix<int16_t>(n.rows(), n.cols());
      std::memcpy(solved.matrix.n.data(), n.view().data, n.rows() * n.cols() * sizeof(int16_t));
      const double loss = TrueLoss(problem, settings, solved.matrix);
      EXPECT_NEAR(solved.report.loss / loss, 1.0, 2e-3) << "trellis " << trellis << ", block " << block;
      StepReport on_host;
      SolveSteps(problem.w, plan, 0.0, settings, &on_host);
      EXPECT_NEAR(solved.report.loss / on_host.loss, 1.0, 1e-2);
      EXPECT_NEAR(solved.report.rough_bits / on_host.rough_bits, 1.0, 1e-2);
      Matrix<float> decoded(300, 70), given(300, 70);
      Decode(solved.matrix, decoded);
      Copy(weights.view(), given);
      for (size_t i = 0; i < decoded.size(); ++i) ASSERT_EQ(decoded.data()[i], given.data()[i]) << i;
    }
  }
}

TEST_F(StepSolverTest, EveryErrorCostsTheSame) {
  // A rounding error of one step costs c^2 / 12 wherever it is made, whatever the moments are.
  for (const size_t block : {size_t{0}, size_t{256}}) {
    const Problem problem = MakeProblem(256, 96, block, 5);
    const StepOptions settings;
    const StepPlan plan = PlanOf(problem.h, problem.outputs, settings);
    const double log2_c = -6;  // fine steps: errors are uniform
    StepReport report;
    SolveSteps(problem.w, plan, log2_c, settings, &report);
    const double expected = 256 * 96 * std::exp2(2 * log2_c) / 12;
    EXPECT_NEAR(report.loss / expected, 1.0, 0.03) << "block " << block;
  }
}

TEST_F(StepSolverTest, FeedbackOverRowsLowersTheLoss) {
  Problem problem = MakeProblem(256, 96, 256, 21);
  const StepOptions settings;
  const StepPlan plan = PlanOf(problem.h, problem.outputs, settings);
  StepReport report;
  const EntropyMatrix solved = SolveSteps(problem.w, plan, 1.0, settings, &report);
  // The same steps without the off-diagonal part of V.
  StepPlan diagonal = PlanOf(problem.h, problem.outputs, settings);
  for (size_t p = 0; p < 256; ++p) {
    for (size_t q = 0; q < 256; ++q) {
      if (q != p) diagonal.v(p, q) = 0;
    }
  }
  const EntropyMatrix alone = SolveSteps(problem.w, diagonal, 1.0, settings, nullptr);
  EXPECT_LT(TrueLoss(problem, settings, solved), 0.8 * TrueLoss(problem, settings, alone));
}

TEST_F(StepSolverTest, TrellisLowersTheLossAtEqualSize) {
  for (const size_t block : {size_t{0}, size_t{256}}) {
    const Problem problem = MakeProblem(256, 96, block, 31);
    StepOptions settings;
    const auto bits_and_loss = [&](double log2_c) {
      const StepPlan plan = PlanOf(problem.h, problem.outputs, settings);
      StepReport report;
      EntropyMatrix solved = SolveSteps(problem.w, plan, log2_c, settings, &report);
      FitEntropyModel(solved);
      return std::pair(EntropyCodeBits(solved), report.loss);
    };
    const auto [scalar_bits, scalar_loss] = bits_and_loss(-2.0);
    settings.trellis = true;
    // At high rate steps of the trellis alone are twice those of both quantisers together.
    double low = -6, high = 2, loss = 0;
    for (int i = 0; i < 12; ++i) {
      const double middle = 0.5 * (low + high);
      const auto [bits, trellis_loss] = bits_and_loss(middle);
      loss = trellis_loss;
      (bits > scalar_bits ? low : high) = middle;
    }
    EXPECT_LT(loss, 0.88 * scalar_loss) << "block " << block;
  }
}

TEST_F(StepSolverTest, DoesNotDependOnThreads) {
  const Problem problem = MakeProblem(700, 65, 256, 41);
  for (const bool trellis : {false, true}) {
    StepOptions settings;
    settings.trellis = trellis;
    settings.lambda = 0.25;
    const StepPlan plan = PlanOf(problem.h, problem.outputs, settings);
    SetThreads(1);
    const EntropyMatrix one = SolveSteps(problem.w, plan, 0.0, settings, nullptr);
    SetThreads(4);
    const EntropyMatrix four = SolveSteps(problem.w, plan, 0.0, settings, nullptr);
    for (size_t i = 0; i < one.n.size(); ++i) ASSERT_EQ(one.n.data()[i], four.n.data()[i]) << i;
    EXPECT_EQ(one.row_key, trellis ? plan.row_key : std::vector<int16_t>());
  }
}

TEST_F(StepSolverTest, ZeroPriceMakesZeros) {
  const Problem problem = MakeProblem(128, 64, 128, 51);
  StepOptions settings;
  double before = -1;
  for (const double price : {0.0, 0.5, 2.0, 8.0}) {
    settings.zero_price = price;
    const StepPlan plan = PlanOf(problem.h, problem.outputs, settings);
    StepReport report;
    SolveSteps(problem.w, plan, 0.0, settings, &report);
    EXPECT_GT(report.zero_share, before);
    before = report.zero_share;
  }
}

TEST_F(StepSolverTest, DeadChannelsAndOutputsAreHandled) {
  Problem problem = MakeProblem(130, 64, 128, 61);
  for (size_t j = 0; j < 64; ++j) problem.h(7, j) = problem.h(j, 7) = 0;
  for (size_t s = 0; s < 128; ++s) problem.outputs.moments(3, s) = problem.outputs.moments(s, 3) = 0;
  problem.outputs.fisher[3] = 0;
  const StepPlan plan = PlanOf(problem.h, problem.outputs);
  EXPECT_EQ(plan.columns->factor->dead().size(), 1u);
  StepReport report;
  SolveSteps(problem.w, plan, 0.0, {}, &report);
  EXPECT_TRUE(std::isfinite(report.loss));
  problem.h(0, 0) = NAN;
  EXPECT_THROW(PlanOf(problem.h, problem.outputs), Error);
}

}  // namespace
}  // namespace mica
