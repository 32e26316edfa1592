// The solver by phase, each against the machine's measured peak of one large FP32 product on the same
// threads; and coding fixed on a CUDA device by parts, at the sizes of a 13B model.
//   solver_bench [--benchmark_filter=...]; shapes are rows x cols of a weight matrix.
//   solver_bench --benchmark_filter=OnDevice
// Counters: GFLOP/s counts the products that the phase's formula needs (half of rows * cols^2 multiply-adds
// for the feedback, all of them for a pass of refinement); share is GFLOP/s over the peak.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <future>
#include <iterator>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/system.h"
#include "base/threads.h"
#include "compress/blocks/solver.h"
#include "compress/budget/allocation.h"
#include "compress/budget/demands.h"
#include "compress/coder/later.h"
#include "compress/curvature/output_information.h"
#include "compress/curvature/score_histogram.h"
#include "compress/entropy/solver.h"
#include "compress/fixed/plan.h"
#include "compress/fixed/solver.h"
#include "device/array.h"
#include "device/cuda.h"
#include "model/family/family.h"
#include "ops/feedback/block_order.h"
#include "ops/feedback/solver_state.h"
#include "ops/feedback/stored.h"
#include "ops/linalg/linalg.h"

namespace mica {
namespace {

// GFLOP/s of the best of several products of 2048 x 2048 matrices.
double Peak() {
  static const double peak = [] {
    constexpr size_t n = 2048;
    const Matrix<float> a(n, n, 0.5f), b(n, n, 0.25f);
    Matrix<float> c(n, n);
    double best = 1e9;
    for (int repeat = 0; repeat < 5; ++repeat) {
      const double start = MonotonicSeconds();
      Gemm(false, false, 1.0f, a, b, 0.0f, c);
      best = std::min(best, MonotonicSeconds() - start);
    }
    return 2.0 * n * n * n / best * 1e-9;
  }();
  return peak;
}

Matrix<float> Weights(size_t rows, size_t cols) {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  Matrix<float> w(rows, cols);
  for (size_t i = 0; i < w.size(); ++i) w.data()[i] = normal(generator);
  return w;
}

// H of an autoregressive chain, rho = 0.9, with a spread of energies.
Matrix<float> Moments(size_t cols) {
  Matrix<float> h(cols, cols);
  std::vector<float> size(cols), power(cols);
  for (size_t j = 0; j < cols; ++j) {
    size[j] = std::exp2(std::sin(static_cast<float>(j)));
    power[j] = std::pow(0.9f, static_cast<float>(j));
  }
  for (size_t i = 0; i < cols; ++i) {
    for (size_t j = 0; j < cols; ++j) h(i, j) = size[i] * size[j] * power[i > j ? i - j : j - i];
  }
  return h;
}

void Report(benchmark::State& state, double flops) {
  const double rate = flops * static_cast<double>(state.iterations()) * 1e-9;  // over the time, by kIsRate
  state.counters["GFLOP/s"] = benchmark::Counter(rate, benchmark::Counter::kIsRate);
  state.counters["share"] = benchmark::Counter(rate / Peak(), benchmark::Counter::kIsRate);
  state.counters["peak"] = Peak();
}

void BM_Gemm(benchmark::State& state) {
  const auto m = static_cast<size_t>(state.range(0)), n = static_cast<size_t>(state.range(1)),
             k = static_cast<size_t>(state.range(2));
  const Matrix<float> a(k, m, 0.5f), b(k, n, 0.25f);
  Matrix<float> c(m, n, 0.0f);
  for (auto _ : state) Gemm(true, false, -1.0f, a, b, 1.0f, c);
  Report(state, 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k));
}
// The products of the feedback's recursion (columns behind x rows x columns solved) over 640 and 1792
// columns, and one of refinement.
BENCHMARK(BM_Gemm)
    ->ArgNames({"m", "n", "k"})
    ->Args({128, 640, 128})
    ->Args({384, 640, 256})
    ->Args({128, 1792, 128})
    ->Args({384, 1792, 256})
    ->Args({896, 640, 896})
    ->Args({640, 640, 640})
    ->Args({1024, 2048, 1024})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void BM_CholeskyOfInverse(benchmark::State& state) {
  const auto n = static_cast<size_t>(state.range(0));
  const Matrix<float> h = Moments(n);
  Matrix<float> u(n, n);
  for (auto _ : state) {
    state.PauseTiming();
    std::copy_n(h.data(), h.size(), u.data());
    state.ResumeTiming();
    benchmark::DoNotOptimize(CholeskyOfInverseUpper(u));
  }
  Report(state, 2.0 / 3 * std::pow(static_cast<double>(n), 3));
}
BENCHMARK(BM_CholeskyOfInverse)->Arg(640)->Arg(1792)->Arg(5120)->UseRealTime()->Unit(benchmark::kMillisecond);

FixedSolverSettings Settings(int kind) {
  FixedSolverSettings settings;
  settings.search_rounds = 0;
  settings.refine_passes = 0;
  if (kind == 1) settings.search_rounds = 3;
  if (kind == 2) settings.sparsity.rate = 0.5;
  return settings;
}

// The feedback alone, from H^-1's factor on. Argument 3: 0 plain, 1 with the search by trial, 2 with an
// unstructured mask.
void BM_Feedback(benchmark::State& state) {
  const auto rows = static_cast<size_t>(state.range(0)), cols = static_cast<size_t>(state.range(1));
  const FixedSolverSettings settings = Settings(static_cast<int>(state.range(2)));
  const Matrix<float> w = Weights(rows, cols);
  Matrix<float> u = Moments(cols);
  std::vector<uint32_t> order(cols);
  std::iota(order.begin(), order.end(), 0u);
  FeedbackSettings feedback;
  feedback.search_rounds = settings.search_rounds;
  feedback.saliency.resize(cols);
  SolverState solver;
  solver.rows = rows;
  solver.cols = cols;
  solver.plan = MakePlan(rows, order, std::vector<uint8_t>(cols, 4), settings);
  Matrix<float> remaining(cols, rows), errors(cols, rows);
  solver.Allocate(Device::Cpu());
  CholeskyOfInverseUpper(u);
  for (size_t j = 0; j < cols; ++j) feedback.saliency[j] = 1.0f / (u(j, j) * u(j, j));
  for (auto _ : state) {
    state.PauseTiming();
    for (size_t r = 0; r < rows; ++r) {
      for (size_t j = 0; j < cols; ++j) remaining(j, r) = w(r, j);
    }
    state.ResumeTiming();
    benchmark::DoNotOptimize(FeedAll(solver, u, feedback, remaining, errors));
  }
  Report(state, static_cast<double>(rows) * static_cast<double>(cols) * static_cast<double>(cols));
}
BENCHMARK(BM_Feedback)
    ->ArgsProduct({{640, 1792}, {640, 1792}, {0, 1, 2}})
    ->Args({5120, 5120, 0})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

// Widths of all columns of a model of Vicuna-13B's shape from what statistics could say of it, half of the
// weights to be pruned; argument: groups of channels, 0: none.
void BM_PlanWidths(benchmark::State& state) {
  const auto groups = static_cast<uint32_t>(state.range(0));
  ModelConfig config;
  config.family = FindModelType("llama")->family;
  config.layers = 40;
  config.hidden = 5120;
  config.ffn = 13824;
  config.heads = config.kv_heads = 40;
  config.head_dim = 128;
  std::mt19937 random(1);
  std::lognormal_distribution<double> spread(0.0, 1.0);
  const auto values = [&](size_t count) {
    std::vector<double> some(count);
    for (double& value : some) value = spread(random);
    return some;
  };
  Statistics statistics;
  statistics.inputs.resize(config.layers);
  statistics.linears.resize(config.layers);
  for (size_t l = 0; l < config.layers; ++l) {
    for (const LinearKind kind : kLinearKinds) {
      const size_t cols = LinearShape(config, kind).cols;
      InputStatistics& input = statistics.inputs[l][static_cast<size_t>(InputOf(kind))];
      input.energy = values(cols);
      input.information.assign(cols, 0.3);
      if (groups > 0) input.group.resize(cols);
      for (uint32_t& group : input.group) group = random() % groups;
      LinearStatistics& linear = statistics.linears[l][static_cast<size_t>(kind)];
      linear.weight_energy = values(cols);
      linear.score_shares.assign(kScoreBins, 1.0 / kScoreBins);
    }
  }
  const SparsityPattern half{.rate = 0.5};
  for (auto _ : state) {
    const std::vector<MatrixDemand> demands = Demands(statistics, config, half, {});
    benchmark::DoNotOptimize(Allocate(demands, {}));
  }
}
BENCHMARK(BM_PlanWidths)->Arg(0)->Arg(5)->UseRealTime()->Unit(benchmark::kMillisecond);

// Everything that compressing a matrix costs, report included. Argument 3: refinement passes.
void BM_SolveFixed(benchmark::State& state) {
  const auto rows = static_cast<size_t>(state.range(0)), cols = static_cast<size_t>(state.range(1));
  const Matrix<float> w = Weights(rows, cols), h = Moments(cols);
  FixedSolverSettings settings;
  settings.refine_passes = static_cast<int>(state.range(2));
  if (state.range(3) != 0) settings.sparsity.rate = 0.5;
  const std::vector<uint8_t> widths(cols, 4);
  for (auto _ : state) {
    SolverReport report;
    const DampedFactor factor(h, {}, 0.01);
    benchmark::DoNotOptimize(SolveFixed(w, h, factor, widths, settings, &report).codes.data());
  }
  // Factor, feedback, the two losses of the report and, for refinement, H (W - Q) and one product a pass at
  // most.
  const double r = static_cast<double>(rows), c = static_cast<double>(cols);
  const double passes = static_cast<double>(settings.refine_passes);
  Report(state, 2.0 / 3 * c * c * c + r * c * c * (3 + (passes > 0 ? 2 * (passes + 1) : 0)));
}
BENCHMARK(BM_SolveFixed)
    ->ArgNames({"rows", "cols", "passes", "sparse"})
    ->ArgsProduct({{640}, {640}, {0, 4}, {0, 1}})
    ->ArgsProduct({{1792}, {640}, {0, 4}, {0, 1}})
    ->ArgsProduct({{640}, {1792}, {0, 4}, {0, 1}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

// A matrix of coding `entropy`, plan left out. Argument 3: 0 columns alone, 1 with feedback over rows, 2
// along the trellis as well. Products of both feedbacks are counted.
void BM_SolveSteps(benchmark::State& state) {
  const auto rows = static_cast<size_t>(state.range(0)), cols = static_cast<size_t>(state.range(1));
  const Matrix<float> w = Weights(rows, cols), h = Moments(cols);
  OutputInformation outputs;
  outputs.moments = Moments(rows);
  for (size_t r = 0; r < rows; ++r) outputs.fisher.push_back(outputs.moments(r, r));
  if (state.range(2) == 0) outputs.moments = Matrix<float>();
  const auto factor = std::make_shared<const DampedFactor>(h, std::vector<uint32_t>(), 0.01);
  StepPlan plan = PlanRowSteps(outputs, 0, {});
  plan.columns = std::make_shared<const ColumnSteps>(PlanColumns(factor));
  const StepPrices prices{.trellis = state.range(2) == 2};
  for (auto _ : state)
    benchmark::DoNotOptimize(SolveSteps({{w, &plan, {}}}, -7.0, prices)[0].matrix.n.data());
  const double r = static_cast<double>(rows), c = static_cast<double>(cols);
  Report(state, r * c * (c + (state.range(2) > 0 ? r : 0)));
  state.counters["Mweights/s"] =
      benchmark::Counter(r * c * 1e-6 * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}
BENCHMARK(BM_SolveSteps)
    ->ArgNames({"rows", "cols", "kind"})
    ->ArgsProduct({{640, 1792}, {640}, {0, 1, 2}})
    ->Args({5120, 5120, 1})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

// Milliseconds that work() keeps a CUDA device and this thread busy.
template <typename Work>
double Milliseconds(const Work& work) {
  Synchronize(Device::Cuda());
  const double start = MonotonicSeconds();
  work();
  Synchronize(Device::Cuda());
  return 1e3 * (MonotonicSeconds() - start);
}

// Widths of every kind, a mean of 4.4 bits, mixed over the columns as a plan has them.
std::vector<uint8_t> MixedWidths(size_t cols) {
  constexpr uint8_t kCycle[] = {4, 3, 8, 2, 4, 6, 3, 4, 4, 6};
  std::vector<uint8_t> widths;
  for (size_t j = 0; j < cols; ++j) widths.push_back(kCycle[j * 7919 % std::size(kCycle)]);
  return widths;
}

// A matrix of coding fixed with half of its weights pruned, everything on the device from the start.
struct OnDevice {
  Array w, h;
  std::vector<uint8_t> widths;
  FixedSolverSettings settings;
  DampedFactor factor;  // in an order that is not the stored one, so that the solver needs another

  OnDevice(size_t rows, size_t cols)
      : w(CopyTo(Device::Cuda(), Weights(rows, cols))),
        h(CopyTo(Device::Cuda(), Moments(cols))),
        widths(MixedWidths(cols)),
        factor(h.view(), {}, 0.01) {
    settings.sparsity.rate = 0.5;
    for (size_t r = 0; r < rows; ++r) settings.row_importance.push_back(0.5f + static_cast<float>(r % 4));
  }
  FixedSolution Solve(SolverReport* report) const {
    Array weights(w.rows(), w.cols(), DType::kF32, Device::Cuda());
    FixedSolution solution =
        SolveFixedThere(w.view(), h.view(), factor, widths, settings, report, weights.view());
    Synchronize(Device::Cuda());
    return solution;
  }
};

// The products of the feedback and nothing else.
struct FeedbackProducts {
  ConstTensor u;
  Tensor errors, remaining;
  void SolveBlock(const ColumnBlock&) const {}
  void FitLargeGroup(const ScaleGroup&) const {}
  void Subtract(size_t start, size_t done, size_t from, size_t to) const {
    Gemm(true, false, -1.0f, u.Rows(start, done - start).Cols(from, to - from),
         errors.Rows(start, done - start), 1.0f, remaining.Rows(from, to - from));
  }
};

// Milliseconds: `solve`, all but the way of the integers to the processor, which is `take` and goes on beside
// the next matrix. Of it: `factor` in the stored order, `feedback` (of it its `products`, `masks`, and the
// `search` for grids by trial), `refine` (of it what its first pass takes, with the product before it, is
// `refine_once`), `report` its two losses. `at_once`: as many matrices as the last argument says, each by a
// thread of its own, and `one_by_one` the same in a row.
void BM_SolveFixedOnDevice(benchmark::State& state) {
  if (CudaDevices() == 0) return state.SkipWithError(CudaAbsence().c_str());
  const auto rows = static_cast<size_t>(state.range(0)), cols = static_cast<size_t>(state.range(1)),
             count = static_cast<size_t>(state.range(2));
  const Device device = Device::Cuda();
  const OnDevice problem(rows, cols);
  const FixedSolverSettings& settings = problem.settings;
  SolverReport report;
  problem.Solve(&report).Take();  // libraries are loaded, memory is taken
  std::map<std::string, double> parts;
  const auto part = [&](const char* name, double milliseconds) { parts[name] += milliseconds; };
  for (auto _ : state) {
    FixedSolution solution;
    const double solved = Milliseconds([&] { solution = problem.Solve(&report); });
    part("solve", solved);
    part("take", Milliseconds([&] { solution.Take(); }));
    part("report", solved - Milliseconds([&] { problem.Solve(nullptr); }));
    part("at_once", Milliseconds([&] {
           std::vector<std::future<FixedSolution>> all;
           std::vector<SolverReport> reports(count);
           for (SolverReport& one : reports)
             all.push_back(Later([&problem, &one] { return problem.Solve(&one); }));
           for (auto& one : all) one.get();
         }));
    part("one_by_one", Milliseconds([&] {
           for (size_t i = 0; i < count; ++i) problem.Solve(&report);
         }));

    SolverState solver;
    solver.rows = rows;
    solver.cols = cols;
    solver.plan = MakePlan(rows, problem.factor.order(), problem.widths, settings);
    solver.exponent = -3;
    std::optional<DampedFactor> factor;
    part("factor",
         Milliseconds([&] { factor.emplace(problem.h.view(), solver.plan.order, problem.factor.share()); }));
    FeedbackSettings feedback{{}, settings.row_importance, settings.search_rounds};
    for (const float value : factor->Diagonal()) feedback.saliency.push_back(1.0f / (value * value));
    Array remaining(cols, rows, DType::kF32, device), errors(cols, rows, DType::kF32, device);
    const auto feed = [&] {
      solver.Allocate(device);
      Residual(solver, problem.w.view(), factor->dead(), true, remaining.view());
      return Milliseconds(
          [&] { FeedAll(solver, factor->tensor(), feedback, remaining.view(), errors.view()); });
    };
    feedback.search_rounds = 0;
    const double without_search = feed();
    feedback.search_rounds = settings.search_rounds;
    const MaskKind mask = std::exchange(solver.plan.mask, MaskKind::kNone);
    const double without_mask = feed();
    solver.plan.mask = mask;
    const double fed = feed();
    part("feedback", fed);
    part("search", fed - without_search);
    part("masks", fed - without_mask);
    const Array codes = CopyTo(device, solver.codes.view()), keep = CopyTo(device, solver.keep.view()),
                scales = CopyTo(device, solver.scales.view());
    FeedbackProducts products{factor->tensor(), errors.view(), remaining.view()};
    part("products", Milliseconds([&] { SolveBlocks(solver.plan, 0, solver.plan.blocks.size(), products); }));
    Array moments(cols, cols, DType::kF32, device);
    factor->DampedMoments(problem.h.view(), moments.view());
    const auto refine = [&](int passes) {
      Copy(codes.view(), solver.codes.view());
      Copy(keep.view(), solver.keep.view());
      Copy(scales.view(), solver.scales.view());
      Residual(solver, problem.w.view(), factor->dead(), false, errors.view());
      return Milliseconds(
          [&] { RefineAll(solver, moments.view(), passes, errors.view(), remaining.view(), errors.view()); });
    };
    part("refine", refine(settings.refine_passes));
    part("refine_once", refine(1));
  }
  for (const auto& [name, sum] : parts) state.counters[name] = sum / static_cast<double>(state.iterations());
  state.counters["feedback_loss"] = report.feedback_loss;
  state.counters["predicted_loss"] = report.predicted_loss;
  state.counters["measured_loss"] = report.measured_loss;
  state.counters["relative_error"] = report.relative_error;
}
BENCHMARK(BM_SolveFixedOnDevice)
    ->ArgNames({"rows", "cols", "at_once"})
    ->Args({5120, 5120, 3})
    ->Args({13824, 5120, 2})
    ->Args({5120, 13824, 1})
    ->Iterations(3)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

// A matrix on the grid of a type of GGUF. Milliseconds of it: `feedback` over the columns, `refine`.
void BM_SolveOnBlocksOnDevice(benchmark::State& state, GgmlType type) {
  if (CudaDevices() == 0) return state.SkipWithError(CudaAbsence().c_str());
  const auto rows = static_cast<size_t>(state.range(0)), cols = static_cast<size_t>(state.range(1));
  const Device device = Device::Cuda();
  const Array w = CopyTo(device, Weights(rows, cols)), h = CopyTo(device, Moments(cols));
  const DampedFactor factor(h.view(), {}, 0.03);
  const auto solve = [&](int passes) {
    BlockSettings settings;
    settings.refine_passes = passes;
    SolveOnBlocks(w.view(), h.view(), factor, GridOf(type), settings, nullptr);
    Synchronize(device);
  };
  solve(1);
  double feedback = 0, refine = 0;
  for (auto _ : state) {
    const double fed = Milliseconds([&] { solve(0); }),
                 all = Milliseconds([&] { solve(BlockSettings().refine_passes); });
    feedback += fed, refine += all - fed;
  }
  state.counters["feedback"] = feedback / static_cast<double>(state.iterations());
  state.counters["refine"] = refine / static_cast<double>(state.iterations());
}
void Shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "cols"})
      ->Args({5120, 5120})
      ->Args({13824, 5120})
      ->Iterations(1)
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}
#define BLOCKS_BENCH(type) BENCHMARK_CAPTURE(BM_SolveOnBlocksOnDevice, type, GgmlType::k##type)->Apply(Shapes)
BLOCKS_BENCH(Q8_0);
BLOCKS_BENCH(Q4_K);
BLOCKS_BENCH(Q5_K);
BLOCKS_BENCH(Q3_K);
BLOCKS_BENCH(IQ4_XS);
BLOCKS_BENCH(IQ3_S);
BLOCKS_BENCH(IQ3_XXS);
BLOCKS_BENCH(IQ2_S);
BLOCKS_BENCH(IQ2_XXS);

}  // namespace
}  // namespace mica
