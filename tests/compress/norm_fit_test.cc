// The fit of a norm's weights against the loss itself in FP64.
#include "compress/norm_fit.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "base/threads.h"

namespace mica {
namespace {

struct Problem {
  Matrix<float> w, stored, h;
  std::vector<double> fisher;
};

// `rows` outputs over `cols` correlated channels; stored is w with relative errors of size `error`.
Problem MakeProblem(size_t rows, size_t cols, float error, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  Problem problem{Matrix<float>(rows, cols), Matrix<float>(rows, cols), Matrix<float>(cols, cols, 0.0f), {}};
  for (size_t i = 0; i < problem.w.size(); ++i) {
    problem.w.data()[i] = normal(random);
    problem.stored.data()[i] = problem.w.data()[i] * (1 - error * std::fabs(normal(random)));
  }
  for (size_t r = 0; r < rows; ++r) problem.fisher.push_back(std::exp(normal(random)));
  for (size_t token = 0; token < 4 * cols; ++token) {
    std::vector<float> x(cols);
    float common = normal(random);
    for (float& value : x) value = common = 0.6f * common + normal(random);
    for (size_t i = 0; i < cols; ++i) {
      for (size_t j = 0; j < cols; ++j) problem.h(i, j) += x[i] * x[j] / static_cast<float>(4 * cols);
    }
  }
  return problem;
}

// sum over rows of f_r (w - q o s) H (w - q o s)^T.
double Loss(const Problem& problem, const std::vector<double>& s) {
  const size_t cols = problem.h.cols();
  double loss = 0;
  for (size_t r = 0; r < problem.w.rows(); ++r) {
    std::vector<double> e(cols);
    for (size_t j = 0; j < cols; ++j) e[j] = problem.w(r, j) - problem.stored(r, j) * s[j];
    for (size_t i = 0; i < cols; ++i) {
      for (size_t j = 0; j < cols; ++j) loss += problem.fisher[r] * e[i] * problem.h(i, j) * e[j];
    }
  }
  return loss;
}

TEST(NormFit, IsTheMinimumOfTheLossOfAllMatrices) {
  const Problem one = MakeProblem(70, 33, 0.3f, 1);
  Problem two = MakeProblem(1030, 33, 0.5f, 2);  // more rows than a block
  two.h = one.h.Clone();
  NormFit fit(33);
  fit.Add(one.w, one.stored, one.fisher, one.h);
  fit.Add(two.w, two.stored, two.fisher, one.h);
  const std::vector<float> factors = fit.Factors(one.h, 0);
  const std::vector<double> s(factors.begin(), factors.end());
  const auto loss = [&](const std::vector<double>& at) { return Loss(one, at) + Loss(two, at); };
  const double best = loss(s);
  EXPECT_LT(best, 0.9 * loss(std::vector<double>(33, 1.0)));
  for (size_t j = 0; j < 33; ++j) {
    for (const double step : {-0.01, 0.01}) {
      std::vector<double> moved = s;
      moved[j] += step;
      EXPECT_GT(loss(moved), best) << "channel " << j;
    }
  }
}

TEST(NormFit, UndoesScalesOfChannels) {
  Problem problem = MakeProblem(40, 17, 0, 3);
  for (size_t r = 0; r < 40; ++r) {
    for (size_t j = 0; j < 17; ++j)
      problem.stored(r, j) = problem.w(r, j) / (1 + 0.01f * static_cast<float>(j));
  }
  NormFit fit(17);
  fit.Add(problem.w, problem.stored, problem.fisher, problem.h);
  const std::vector<float> factors = fit.Factors(problem.h, 0);
  for (size_t j = 0; j < 17; ++j) EXPECT_NEAR(factors[j], 1 + 0.01 * static_cast<double>(j), 1e-4);
}

TEST(NormFit, LeavesChannelsThatNothingUses) {
  Problem problem = MakeProblem(20, 9, 0.2f, 4);
  for (size_t r = 0; r < 20; ++r) problem.stored(r, 5) = 0;
  NormFit fit(9);
  fit.Add(problem.w, problem.stored, problem.fisher, problem.h);
  EXPECT_FLOAT_EQ(fit.Factors(problem.h, 0.01)[5], 1);

  Problem nothing = MakeProblem(20, 9, 0, 5);
  nothing.stored.Fill(0);
  NormFit empty(9);
  empty.Add(nothing.w, nothing.stored, nothing.fisher, nothing.h);
  EXPECT_EQ(empty.Factors(nothing.h, 0.01), std::vector<float>(9, 1.0f));
}

TEST(NormFit, DoesNotDependOnThreads) {
  const Problem problem = MakeProblem(300, 65, 0.3f, 6);
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2}) {
    SetThreads(threads);
    NormFit fit(65);
    fit.Add(problem.w, problem.stored, problem.fisher, problem.h);
    results.push_back(fit.Factors(problem.h, 0.01));
  }
  SetThreads(0);
  EXPECT_EQ(results[0], results[1]);
}

}  // namespace
}  // namespace mica
