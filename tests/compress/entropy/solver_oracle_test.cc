// Plans of steps and SolveSteps against dense FP64 linear algebra and a loop over columns and rows that follows
// the definitions (docs/method.md, section 5; step_plan.h; step_solver.h) with no tiles' shortcuts.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "compress/entropy/solver.h"
#include "compress/inform/steps.h"
#include "tests/compress/correlated.h"
#include "tests/compress/entropy/step_options.h"
#include "tests/compress/entropy/step_oracle.h"

namespace mica {
namespace {

// FP64 inverse of a symmetric positive definite matrix by Gauss-Jordan elimination.
Matrix<double> Inverse(const Matrix<double>& a) {
  const size_t n = a.rows();
  Matrix<double> work = a.Clone(), inverse(n, n, 0.0);
  for (size_t i = 0; i < n; ++i) inverse(i, i) = 1;
  for (size_t p = 0; p < n; ++p) {
    const double pivot = work(p, p);
    for (size_t j = 0; j < n; ++j) work(p, j) /= pivot, inverse(p, j) /= pivot;
    for (size_t i = 0; i < n; ++i) {
      const double factor = work(i, p);
      if (i == p || factor == 0) continue;
      for (size_t j = 0; j < n; ++j) {
        work(i, j) -= factor * work(p, j);
        inverse(i, j) -= factor * inverse(p, j);
      }
    }
  }
  return inverse;
}

// Upper U with a = U^T U, row by row.
Matrix<double> UpperFactor(const Matrix<double>& a) {
  const size_t n = a.rows();
  Matrix<double> u(n, n, 0.0);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i; j < n; ++j) {
      double sum = a(i, j);
      for (size_t k = 0; k < i; ++k) sum -= u(k, i) * u(k, j);
      u(i, j) = i == j ? std::sqrt(sum) : sum / u(i, i);
    }
  }
  return u;
}

// Rows and columns of a symmetric matrix in another order.
Matrix<double> Reordered(const Matrix<double>& a, const std::vector<size_t>& order) {
  Matrix<double> out(a.rows(), a.cols());
  for (size_t i = 0; i < a.rows(); ++i) {
    for (size_t j = 0; j < a.cols(); ++j) out(i, j) = a(order[i], order[j]);
  }
  return out;
}

struct Problem {
  Matrix<float> w, h;
  OutputInformation outputs;
};

// block 0: the outputs' moments are not known.
Problem MakeProblem(size_t rows, size_t cols, size_t block, uint32_t seed) {
  Problem problem;
  problem.w = GaussianWeights(rows, cols, seed);
  problem.h = CorrelatedMoments(cols, 4 * cols, seed + 1);
  const Matrix<float> g = CorrelatedMoments(rows, 2 * rows, seed + 2);
  for (size_t r = 0; r < rows; ++r) problem.outputs.fisher.push_back(g(r, r));
  if (block == 0) return problem;
  problem.outputs.moments = Matrix<float>(rows, block, 0.0f);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t s = r / block * block; s < std::min(rows, (r / block + 1) * block); ++s)
      problem.outputs.moments(r, s % block) = g(r, s);
  }
  return problem;
}

double Mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// H with `damping` times its own energy added to each channel; dead ones get 1.
Matrix<double> Damped(MatrixView<const float> h, double damping) {
  Matrix<double> out(h.rows, h.rows);
  for (size_t i = 0; i < h.rows; ++i) {
    for (size_t j = 0; j < h.rows; ++j) out(i, j) = h(i, j);
    out(i, i) = h(i, i) > 0 ? h(i, i) * (1 + damping) : 1;
  }
  return out;
}

// G with `damping` times the mean added to its diagonal.
Matrix<double> DampedOutputs(MatrixView<const float> g, double mean, double damping) {
  Matrix<double> out(g.rows, g.rows);
  for (size_t i = 0; i < g.rows; ++i) {
    for (size_t j = 0; j < g.rows; ++j) out(i, j) = g(i, j);
    out(i, i) += damping * mean;
  }
  return out;
}

// u (FP32, processing order) is the upper factor of `inverse` in the order given; `what` for messages.
void ExpectFactor(MatrixView<const float> u, const Matrix<double>& inverse, const std::vector<size_t>& order,
                  const char* what) {
  const size_t n = inverse.rows();
  const Matrix<double> reordered = Reordered(inverse, order), expected = UpperFactor(reordered);
  double worst = 0, worst_product = 0;
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) {
      if (j < i) {
        ASSERT_EQ(u(i, j), 0.0f) << what;
      }
      const double size = std::sqrt(reordered(j, j));
      worst = std::max(worst, std::fabs(u(i, j) - expected(i, j)) / size);
      double product = 0;
      for (size_t k = 0; k <= std::min(i, j); ++k) product += static_cast<double>(u(k, i)) * u(k, j);
      worst_product =
          std::max(worst_product, std::fabs(product - reordered(i, j)) / (size * std::sqrt(reordered(i, i))));
    }
  }
  EXPECT_LT(worst, 1e-4) << what;
  EXPECT_LT(worst_product, 1e-4) << what;
}

// eighths = log2_value rounded to eighths, either way where that is a near tie.
void ExpectEighths(int eighths, double log2_value, const char* what, size_t index) {
  EXPECT_LT(std::fabs(8 * log2_value - eighths), 0.5 + 1e-3) << what << ' ' << index;
}

TEST(StepPlan, ColumnsHaveTheFactorOrderAndStepsOfTheDenseInverse) {
  for (const double damping : {0.01, 0.1}) {
    for (const bool dead : {false, true}) {
      Problem problem = MakeProblem(20, 90, 0, 3);
      for (size_t j = 0; j < 90 && dead; ++j) problem.h(17, j) = problem.h(j, 17) = 0;
      StepOptions settings;
      settings.damping = damping;
      const StepPlan plan = PlanOf(problem.h, problem.outputs, settings);
      EXPECT_EQ(plan.columns->factor->dead().size(), dead ? 1u : 0u);
      EXPECT_EQ(plan.columns->factor->raises(), 0);
      const Matrix<double> inverse = Inverse(Damped(problem.h, damping));
      const std::vector<size_t> order(plan.columns->order().begin(), plan.columns->order().end());
      std::vector<size_t> sorted = order;
      std::sort(sorted.begin(), sorted.end());
      for (size_t p = 0; p < 90; ++p) {
        ASSERT_EQ(sorted[p], p);
        if (p > 0 && !dead) {  // by falling [H^-1]_jj
          EXPECT_LT(inverse(order[p], order[p]), inverse(order[p - 1], order[p - 1]) * (1 + 1e-5)) << p;
        }
      }
      ExpectFactor(plan.columns->u(), inverse, order, "U");
      const Matrix<double> u = UpperFactor(Reordered(inverse, order));
      for (size_t p = 0; p < 90; ++p)
        ExpectEighths(plan.columns->col_step[order[p]], std::log2(u(p, p)), "column", p);
    }
  }
}

TEST(StepPlan, RowsHaveTheFactorOrderAndStepsOfTheDenseInverseOfEachBlock) {
  const size_t rows = 300;
  for (const size_t block : {size_t{128}, size_t{300}}) {
    const Problem problem = MakeProblem(rows, 40, block, 5);
    StepOptions settings;
    settings.output_damping = 0.2;
    const StepPlan plan = PlanOf(problem.h, problem.outputs, settings);
    const double mean = Mean(problem.outputs.fisher);
    double trace = 0;
    for (size_t j = 0; j < 40; ++j) trace += problem.h(j, j);
    ASSERT_EQ(plan.row_order.size(), rows);
    const auto half_octaves = [&](size_t row) { return 2 * std::log2(problem.outputs.fisher[row] / mean); };
    for (size_t begin = 0; begin < rows; begin += block) {
      const size_t count = std::min(block, rows - begin);
      std::vector<size_t> order, sorted;
      for (size_t p = begin; p < begin + count; ++p) order.push_back(plan.row_order[p] - begin);
      sorted = order;
      std::sort(sorted.begin(), sorted.end());
      for (size_t p = 0; p < count; ++p) ASSERT_EQ(sorted[p], p);  // of this block
      for (size_t p = 0; p < count; ++p) {
        const size_t row = begin + order[p];
        // Keys rise from block to block, and within one they are half octaves of G_ii.
        const int key = plan.row_key[row] - plan.row_key[plan.row_order[begin]];
        EXPECT_LE(std::fabs(key - (half_octaves(row) - half_octaves(plan.row_order[begin]))), 1 + 1e-6);
        if (p > 0) {
          const size_t before = begin + order[p - 1];
          EXPECT_TRUE(plan.row_key[before] < plan.row_key[row] ||
                      (plan.row_key[before] == plan.row_key[row] && before < row));
        } else if (begin > 0) {
          EXPECT_LT(plan.row_key[plan.row_order[begin - 1]], plan.row_key[row]);
        }
      }
      const MatrixView<const float> moments = problem.outputs.moments.view();
      const Matrix<double> inverse =
          Inverse(DampedOutputs(moments.Rows(begin, count).Cols(0, count), mean, settings.output_damping));
      const MatrixView<const float> v = plan.v.view();
      ExpectFactor(v.Rows(begin, count).Cols(0, count), inverse, order, "V");
      const Matrix<double> factor = UpperFactor(Reordered(inverse, order));
      for (size_t p = 0; p < count; ++p) {
        // Overall sensitivities count to the power 0.9 of the loss.
        const double expected = std::log2(factor(p, p)) + 0.05 * std::log2(trace * mean * rows);
        EXPECT_NEAR(plan.row_log[plan.row_order[begin + p]], expected, 1e-4);
      }
    }
  }
}

TEST(StepPlan, RowsWithoutMomentsFollowTheirFisherInformation) {
  const Problem problem = MakeProblem(50, 30, 0, 7);
  StepOptions settings;
  settings.fisher_damping = 0.5;
  const StepPlan plan = PlanOf(problem.h, problem.outputs, settings);
  EXPECT_TRUE(plan.v.empty());
  EXPECT_TRUE(plan.row_key.empty());
  const double mean = Mean(problem.outputs.fisher);
  double trace = 0;
  for (size_t j = 0; j < 30; ++j) trace += problem.h(j, j);
  for (size_t r = 0; r < 50; ++r) {
    EXPECT_EQ(plan.row_order[r], r);
    const double f = (problem.outputs.fisher[r] + 0.5 * mean) / 1.5;
    EXPECT_NEAR(plan.row_log[r], -0.5 * std::log2(f) + 0.05 * std::log2(trace * mean * 50), 1e-5);
  }
}

struct OracleSolution {
  Matrix<int> n;  // [rows, cols], original order
  double loss = 0, relative_error = 0;
  size_t moved = 0;  // weights that were moved away from a near tie
};

constexpr double kNearTie = 1e-4;  // squared steps
constexpr int kMostLevels = 400;   // no integer of these tests along a trellis is larger

// Solves column by column in the order of the plan. Where a decision is nearer than kNearTie to a tie the
// weights of that tile and column are moved by up to a hundredth of their steps, so that what is returned is
// the solution of the new w and no decision of it is in doubt. Within a block of G the errors of a row go to
// all later rows; tiles matter to the trellis alone, which starts anew in each.
OracleSolution SolveOracle(Matrix<float>& w, const StepPlan& plan, const EntropyMatrix& classes,
                           double log2_c, const StepOptions& settings, const EntropyRates* rates) {
  const size_t rows = w.rows(), cols = w.cols();
  const size_t block = plan.v.empty() ? rows : plan.v.cols();
  std::mt19937 random(1);
  std::uniform_real_distribution<double> uniform(-1, 1);
  OracleSolution solution;
  solution.n = Matrix<int>(rows, cols);
  Matrix<double> work(rows, cols);  // by position
  std::vector<double> row_step(rows);
  for (size_t i = 0; i < rows; ++i) {
    const uint32_t row = plan.row_order[i];
    row_step[i] = std::exp2(std::lround(8 * (plan.row_log[row] + log2_c)) / 8.0);
    for (size_t p = 0; p < cols; ++p) work(i, p) = w(row, plan.columns->order()[p]);
  }
  double error = 0, energy = 0;
  for (size_t p = 0; p < cols; ++p) {
    const uint32_t c = plan.columns->order()[p];
    const double u = plan.columns->u()(p, p);
    std::vector<double> absorbed(rows, 0.0), stored(rows);  // what errors of earlier rows add; values
    for (size_t first = 0; first < rows; first += kCodedTileRows) {
      const size_t count = std::min(kCodedTileRows, rows - first), of_block = first / block * block;
      OraclePath path;
      OracleColumn column;
      for (int attempt = 0;; ++attempt) {
        column = {};
        std::vector<int> entropy_class(count);
        if (!plan.v.empty()) column.v = Matrix<double>(count, count, 0.0);
        for (size_t r = 0; r < count; ++r) {
          const size_t i = first + r;
          const uint32_t row = plan.row_order[i];
          column.w.push_back(work(i, p) + absorbed[i]);
          column.step.push_back(row_step[i] * std::exp2(plan.columns->col_step[c] / 8.0));
          if (rates != nullptr) entropy_class[r] = classes.row_class[row] + classes.col_class[c];
          for (size_t k = r; k < count && !plan.v.empty(); ++k)
            column.v(r, k) = plan.v(i, first - of_block + k);
        }
        column.price = OraclePrice(rates, entropy_class, settings);
        column.most = kMostLevels;
        path = settings.trellis ? SurvivingPath(column) : RoundedOneByOne(column, /*only_near=*/true);
        if (path.margin >= kNearTie) break;
        if (attempt == 50) ADD_FAILURE() << "column " << p << ": no clear decision";
        if (attempt == 50) return solution;
        for (size_t r = 0; r < count; ++r) {
          float& weight = w(plan.row_order[first + r], c);
          const auto moved = static_cast<float>(weight + 0.01 * column.step[r] * uniform(random));
          work(first + r, p) += static_cast<double>(moved) - weight;
          weight = moved;
        }
        solution.moved += attempt == 0 ? count : 0;
      }
      int state = 0;
      for (size_t r = 0; r < count; ++r) {
        const size_t i = first + r;
        const int n = path.n[r];
        const int level = settings.trellis ? OracleLevel(n, OracleQuantiser(state)) : n;
        state = kOracleNext[static_cast<size_t>(state)][static_cast<size_t>(std::abs(n) % 2)];
        solution.n(plan.row_order[i], c) = n;
        stored[i] = level * column.step[r];
        const double e = work(i, p) + absorbed[i] - stored[i];
        for (size_t k = i + 1; k < std::min(rows, of_block + block) && !plan.v.empty(); ++k)
          absorbed[k] -= e * plan.v(i, k - of_block) / plan.v(i, i - of_block);
        solution.loss += e * e / (u * u) * std::exp2(-2.0 * plan.row_log[plan.row_order[i]]);
      }
    }
    for (size_t i = 0; i < rows; ++i) {
      const double deviation = work(i, p) - stored[i];
      error += deviation * deviation / (u * u);
      energy += work(i, p) * work(i, p) / (u * u);
      for (size_t k = p + 1; k < cols; ++k) work(i, k) -= deviation / u * plan.columns->u()(p, k);
    }
  }
  solution.relative_error = error / energy;
  return solution;
}

struct SolverCase {
  const char* name;
  size_t rows, cols, block;
  bool trellis;
  double lambda, zero_price, log2_c;
};

class AgainstDenseSolver : public testing::TestWithParam<SolverCase> {};

TEST_P(AgainstDenseSolver, EveryIntegerIsTheSame) {
  const SolverCase& given = GetParam();
  Problem problem = MakeProblem(given.rows, given.cols, given.block, 31);
  StepOptions settings;
  settings.trellis = given.trellis;
  settings.lambda = given.lambda;
  settings.zero_price = given.zero_price;
  const StepPlan plan = PlanOf(problem.h, problem.outputs, settings);
  const EntropyRates rates(DefaultEntropyTables(given.trellis ? 8 : 1));
  // Classes are guessed from the weights; those that the oracle moves must leave them as they are.
  EntropyMatrix before = SolveSteps(problem.w, plan, given.log2_c, settings, nullptr);
  OracleSolution expected;
  EntropyMatrix solved;
  StepReport report;
  for (int attempt = 0; attempt < 3; ++attempt) {
    expected =
        SolveOracle(problem.w, plan, before, given.log2_c, settings, given.lambda > 0 ? &rates : nullptr);
    solved = SolveSteps(problem.w, plan, given.log2_c, settings, &report);
    if (solved.row_class == before.row_class && solved.col_class == before.col_class) break;
    before.row_class = solved.row_class;
    before.col_class = solved.col_class;
  }
  ASSERT_EQ(solved.row_class, before.row_class);
  ASSERT_EQ(solved.col_class, before.col_class);
  EXPECT_EQ(solved.states, given.trellis ? 8 : 1);
  EXPECT_EQ(solved.col_step, plan.columns->col_step);
  size_t different = 0, zeros = 0;
  int largest = 0;
  for (size_t r = 0; r < given.rows; ++r) {
    EXPECT_EQ(solved.row_step[r], std::lround(8 * (plan.row_log[r] + given.log2_c)));
    for (size_t c = 0; c < given.cols; ++c) {
      different += solved.n(r, c) != expected.n(r, c);
      zeros += expected.n(r, c) == 0;
      largest = std::max(largest, std::abs(expected.n(r, c)));
    }
  }
  EXPECT_EQ(different, 0u) << "of " << given.rows * given.cols;
  EXPECT_LE(expected.moved, given.rows * given.cols / 10);
  EXPECT_GE(largest, given.rows > 1 ? 10 : 1);
  if (given.trellis) {
    EXPECT_LT(largest, kMostLevels);
  }
  EXPECT_NEAR(report.loss, expected.loss, 1e-4 * expected.loss);
  EXPECT_NEAR(report.relative_error, expected.relative_error, 1e-4 * expected.relative_error);
  EXPECT_DOUBLE_EQ(report.zero_share,
                   static_cast<double>(zeros) / static_cast<double>(given.rows * given.cols));
}

INSTANTIATE_TEST_SUITE_P(
    Cases, AgainstDenseSolver,
    testing::Values(SolverCase{"no_moments", 300, 70, 0, false, 0, 0, -7},
                    SolverCase{"three_tiles_in_one_block", 300, 70, 300, false, 0, 0, -7},
                    SolverCase{"three_blocks", 300, 70, 128, false, 0, 0, -7},
                    SolverCase{"two_blocks_of_two_tiles", 450, 40, 256, false, 0, 0, -7},
                    SolverCase{"one_weight", 1, 1, 0, false, 0, 0, -9},
                    SolverCase{"rates", 300, 70, 0, false, 0.25, 0, -7},
                    SolverCase{"rates_three_tiles_in_one_block", 300, 70, 300, false, 0.25, 0, -7},
                    SolverCase{"rates_three_blocks", 300, 70, 128, false, 0.5, 0, -7},
                    SolverCase{"zero_price_three_tiles_in_one_block", 300, 70, 300, false, 0, 1.5, -7},
                    SolverCase{"trellis", 300, 40, 0, true, 0, 0, -7},
                    SolverCase{"trellis_three_tiles_in_one_block", 300, 40, 300, true, 0, 0, -7},
                    SolverCase{"trellis_rates_two_blocks_of_two_tiles", 450, 33, 256, true, 0.25, 0, -7}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace mica
