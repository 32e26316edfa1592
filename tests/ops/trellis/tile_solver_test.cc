// SolveTiles: what it counts against its own integers replayed in FP64, devices against the processor.
#include "ops/trellis/tile_solver.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "base/error.h"
#include "device/array.h"
#include "device/cuda.h"
#include "tests/error_message.h"

namespace mica {
namespace {

struct Shape {
  size_t rows;
  size_t block;  // of V; 0: none
};

// What the matrices of a stage share.
struct Columns {
  std::vector<uint32_t> order, dead;
  std::vector<int16_t> col_step;
  Matrix<float> u;

  Columns(size_t cols, bool with_dead, uint32_t seed) : order(cols), col_step(cols), u(cols, cols, NAN) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), random);
    std::vector<float> diagonal(cols);
    for (float& d : diagonal) d = std::exp2(0.5f * normal(random));
    for (size_t p = 0; p < cols; ++p) {
      const bool is_dead = with_dead && p % 7 == 3;
      if (is_dead) dead.push_back(static_cast<uint32_t>(p));
      for (size_t k = p; k < cols; ++k) {
        const auto away = static_cast<float>(k - p);
        u(p, k) = k == p ? diagonal[k]
                  : is_dead || (with_dead && k % 7 == 3)
                      ? 0.0f
                      : diagonal[k] * 0.2f * normal(random) / (1 + 0.2f * away);
      }
      col_step[order[p]] = static_cast<int16_t>(std::lround(8 * std::log2(u(p, p))));
    }
  }
};

// A matrix and what its solution writes to.
struct Problem {
  const Columns* columns;
  Matrix<float> w, v;
  std::vector<uint32_t> row_order;
  std::vector<int16_t> row_step, row_class, col_class;

  Problem(const Columns& of, const Shape& shape, uint32_t seed)
      : columns(&of), w(shape.rows, of.order.size()) {
    const size_t rows = shape.rows, cols = of.order.size();
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < w.size(); ++i) w.data()[i] = normal(random);
    row_order.resize(rows);
    std::iota(row_order.begin(), row_order.end(), 0u);
    row_step.resize(rows);
    const size_t block = shape.block == 0 ? rows : std::min(rows, shape.block);
    if (shape.block > 0) v = Matrix<float>(rows, block, NAN);
    for (size_t begin = 0; begin < rows; begin += block) {
      const size_t end = std::min(rows, begin + block);
      std::shuffle(row_order.begin() + static_cast<ptrdiff_t>(begin),
                   row_order.begin() + static_cast<ptrdiff_t>(end), random);
      std::vector<float> diagonal(end - begin);
      for (float& d : diagonal) d = std::exp2(0.5f * normal(random));
      for (size_t p = begin; p < end; ++p) {
        for (size_t q = p; q < end && shape.block > 0; ++q) {
          const auto away = static_cast<float>(q - p);
          v(p, q - begin) =
              q == p ? diagonal[p - begin] : diagonal[q - begin] * 0.15f * normal(random) / (1 + 0.1f * away);
        }
        row_step[row_order[p]] = static_cast<int16_t>(std::lround(8 * std::log2(diagonal[p - begin]) - 8));
      }
    }
    for (size_t r = 0; r < rows; ++r)
      row_class.push_back(static_cast<int16_t>(27 - row_step[r] / 2 + static_cast<int>(random() % 3)));
    for (size_t c = 0; c < cols; ++c) col_class.push_back(static_cast<int16_t>(-of.col_step[c] / 2));
  }
};

struct Solution {
  Matrix<int16_t> n;
  Matrix<float> weights;
  std::vector<double> row_loss;
  std::vector<TileTally> tallies;

  double loss(const Problem& problem) const {  // each row's errors in its own steps
    double sum = 0;
    for (size_t p = 0; p < row_loss.size(); ++p)
      sum += row_loss[p] * std::exp2(-0.25 * problem.row_step[problem.row_order[p]]);
    return sum;
  }
};

// Solves them together on a device, outputs poisoned first.
std::vector<Solution> Solve(Device device, const std::vector<Problem>& problems, const EntropyRates* rates,
                            const StepPrices& prices, bool with_weights = true) {
  std::vector<Array> arrays;
  const auto on_device = [&](ConstTensor x) -> ConstTensor {
    arrays.push_back(CopyTo(device, x));
    return arrays.back().view();
  };
  arrays.reserve(3 * problems.size() + 1);
  const ConstTensor u = on_device(problems[0].columns->u);
  std::vector<Solution> solutions(problems.size());
  std::vector<TileTask> tasks;
  for (size_t m = 0; m < problems.size(); ++m) {
    const Problem& problem = problems[m];
    Solution& to = solutions[m];
    const size_t rows = problem.w.rows(), cols = problem.w.cols();
    to.n = Matrix<int16_t>(rows, cols, std::numeric_limits<int16_t>::min());
    to.weights = Matrix<float>(rows, cols, NAN);
    to.row_loss.assign(rows, NAN);
    to.tallies.resize(CodedTiles(rows));
    for (TileTally& tally : to.tallies) tally = {.error = NAN, .energy = NAN, .widths = {}};
    TileTask task;
    task.w = on_device(problem.w);
    task.u = u;
    if (!problem.v.empty()) task.v = on_device(problem.v);
    task.order = problem.columns->order;
    task.dead = problem.columns->dead;
    task.row_order = problem.row_order;
    task.row_step = problem.row_step;
    task.col_step = problem.columns->col_step;
    task.rates = rates;
    task.row_class = problem.row_class;
    task.col_class = problem.col_class;
    task.n = to.n;
    if (with_weights) {
      arrays.push_back(CopyTo(device, to.weights));
      task.weights = arrays.back().view();
    }
    task.row_loss = to.row_loss;
    task.tallies = to.tallies;
    tasks.push_back(task);
  }
  SolveTiles(tasks, prices);
  for (size_t m = 0; m < tasks.size() && with_weights; ++m) Copy(tasks[m].weights, solutions[m].weights);
  return solutions;
}

// What a solution says of itself follows from its integers.
void ExpectConsistent(const Problem& problem, const Solution& solution, bool trellis) {
  const size_t rows = problem.w.rows(), cols = problem.w.cols();
  const size_t block = problem.v.empty() ? rows : problem.v.cols();
  const Columns& columns = *problem.columns;
  EntropyMatrix matrix;
  matrix.rows = rows;
  matrix.cols = cols;
  matrix.states = trellis ? kTrellisStates : 1;
  matrix.n = solution.n.Clone();
  matrix.row_step = problem.row_step;
  matrix.col_step = columns.col_step;
  Matrix<float> decoded(rows, cols, NAN);
  for (size_t tile = 0; tile < matrix.tiles(); ++tile) DecodeTile(matrix, problem.row_order, tile, decoded);
  for (size_t i = 0; i < decoded.size(); ++i) ASSERT_EQ(solution.weights.data()[i], decoded.data()[i]) << i;

  Matrix<double> work(rows, cols);  // by position
  for (size_t i = 0; i < rows; ++i) {
    for (size_t p = 0; p < cols; ++p) work(i, p) = problem.w(problem.row_order[i], columns.order[p]);
    for (const uint32_t p : columns.dead) work(i, p) = 0;
  }
  std::vector<double> row_loss(rows, 0.0);
  std::vector<TileTally> tallies(CodedTiles(rows));
  for (size_t p = 0; p < cols; ++p) {
    const uint32_t c = columns.order[p];
    const double u = columns.u(p, p);
    std::vector<double> fed(rows, 0.0);
    for (size_t i = 0; i < rows; ++i) {
      const uint32_t row = problem.row_order[i];
      const double q = decoded(row, c), error = work(i, p) + fed[i] - q, change = (work(i, p) - q) / u;
      row_loss[i] += error * error / (u * u);
      TileTally& tally = tallies[i / kCodedTileRows];
      tally.error += change * change;
      tally.energy += work(i, p) * work(i, p) / (u * u);
      ++tally.widths[static_cast<size_t>(
          std::bit_width(static_cast<unsigned>(std::abs(int{solution.n(row, c)}))))];
      if (!problem.v.empty()) {
        const size_t begin = i / block * block;
        for (size_t k = i + 1; k < std::min(rows, begin + block); ++k)
          fed[k] -= error / problem.v(i, i - begin) * problem.v(i, k - begin);
      }
      for (size_t k = p + 1; k < cols; ++k) work(i, k) -= change * columns.u(p, k);
    }
  }
  for (size_t i = 0; i < rows; ++i) EXPECT_NEAR(solution.row_loss[i], row_loss[i], 2e-3 * row_loss[i]) << i;
  for (size_t tile = 0; tile < tallies.size(); ++tile) {
    EXPECT_NEAR(solution.tallies[tile].error, tallies[tile].error, 1e-3 * tallies[tile].error);
    EXPECT_NEAR(solution.tallies[tile].energy, tallies[tile].energy, 1e-4 * tallies[tile].energy);
    EXPECT_EQ(solution.tallies[tile].widths, tallies[tile].widths);
  }
}

double SameShare(const Solution& a, const Solution& b) {
  size_t same = 0;
  for (size_t i = 0; i < a.n.size(); ++i) same += a.n.data()[i] == b.n.data()[i];
  return static_cast<double>(same) / static_cast<double>(a.n.size());
}

void ExpectSame(const Solution& a, const Solution& b) {
  ASSERT_EQ(std::memcmp(a.n.data(), b.n.data(), a.n.size() * sizeof(int16_t)), 0);
  ASSERT_EQ(std::memcmp(a.weights.data(), b.weights.data(), a.weights.size() * sizeof(float)), 0);
  EXPECT_EQ(a.row_loss, b.row_loss);
  for (size_t tile = 0; tile < a.tallies.size(); ++tile) {
    EXPECT_EQ(a.tallies[tile].error, b.tallies[tile].error);
    EXPECT_EQ(a.tallies[tile].energy, b.tallies[tile].energy);
    EXPECT_EQ(a.tallies[tile].widths, b.tallies[tile].widths);
  }
}

struct SolverCase {
  const char* name;
  size_t cols;
  std::vector<Shape> shapes;  // of the matrices that are solved together
  bool trellis = true;
  double lambda = 0.25;
  double zero_price = 0;
  size_t window = 32, ahead = 0;
  bool dead = false;
};

const std::vector<SolverCase> kCases = {
    {.name = "one_weight", .cols = 1, .shapes = {{1, 0}}},
    {.name = "one_column", .cols = 1, .shapes = {{130, 128}}},
    {.name = "one_row", .cols = 70, .shapes = {{1, 1}}},
    {.name = "two_rows", .cols = 3, .shapes = {{2, 2}}},
    {.name = "no_row_feedback", .cols = 90, .shapes = {{300, 0}}},
    {.name = "tiles", .cols = 150, .shapes = {{256, 128}}},
    {.name = "ragged", .cols = 65, .shapes = {{289, 128}}},
    {.name = "blocks_of_two_tiles", .cols = 200, .shapes = {{300, 256}}},
    {.name = "one_ragged_block", .cols = 129, .shapes = {{300, 300}}},
    {.name = "looks_ahead", .cols = 100, .shapes = {{150, 128}}, .window = 8, .ahead = 8},
    {.name = "looks_ahead_in_blocks_of_two_tiles", .cols = 200, .shapes = {{300, 256}}, .window = 8, .ahead = 8},
    {.name = "looks_far_ahead", .cols = 90, .shapes = {{157, 128}}, .window = 8, .ahead = 24},
    {.name = "windows_of_16", .cols = 100, .shapes = {{200, 128}}, .window = 16},
    {.name = "windows_of_16_ahead_16", .cols = 70, .shapes = {{203, 203}}, .window = 16, .ahead = 16},
    {.name = "windows_of_8", .cols = 130, .shapes = {{129, 128}}, .window = 8},
    {.name = "distortion_alone", .cols = 100, .shapes = {{140, 128}}, .lambda = 0},
    {.name = "zero_price", .cols = 100, .shapes = {{140, 128}}, .lambda = 0, .zero_price = 0.6},
    {.name = "rates_and_zero_price", .cols = 70, .shapes = {{140, 128}}, .zero_price = 1.5},
    {.name = "dead_columns", .cols = 100, .shapes = {{140, 128}}, .dead = true},
    {.name = "several_matrices", .cols = 130, .shapes = {{256, 128}, {70, 70}, {300, 0}, {257, 256}}},
    {.name = "rounded", .cols = 200, .shapes = {{300, 128}}, .trellis = false},
    {.name = "rounded_alone", .cols = 70, .shapes = {{130, 0}}, .trellis = false, .lambda = 0},
    {.name = "rounded_blocks_of_two_tiles",
     .cols = 129,
     .shapes = {{300, 256}, {40, 0}},
     .trellis = false,
     .lambda = 0,
     .zero_price = 0.3},
};

class SolveTilesTest : public testing::TestWithParam<SolverCase> {
 protected:
  SolveTilesTest()
      : given_(GetParam()),
        columns_(given_.cols, given_.dead, 1),
        rates_(DefaultEntropyTables(given_.trellis ? kTrellisStates : 1)) {
    for (size_t m = 0; m < given_.shapes.size(); ++m)
      problems_.emplace_back(columns_, given_.shapes[m], static_cast<uint32_t>(10 + m));
    prices_.trellis = given_.trellis;
    prices_.lambda = given_.lambda;
    prices_.zero_price = given_.zero_price;
    prices_.window = given_.window;
    prices_.ahead = given_.ahead;
  }
  const EntropyRates* rates() const { return given_.lambda > 0 ? &rates_ : nullptr; }

  const SolverCase given_;
  const Columns columns_;
  const EntropyRates rates_;
  std::vector<Problem> problems_;
  StepPrices prices_;
};

TEST_P(SolveTilesTest, CountsWhatItsIntegersLeave) {
  const std::vector<Solution> solved = Solve(Device::Cpu(), problems_, rates(), prices_);
  for (size_t m = 0; m < solved.size(); ++m) ExpectConsistent(problems_[m], solved[m], given_.trellis);
}

TEST_P(SolveTilesTest, IsTheSameOnACudaDevice) {
  if (CudaDevices() == 0) GTEST_SKIP() << CudaAbsence();
  const std::vector<Solution> expected = Solve(Device::Cpu(), problems_, rates(), prices_),
                              solved = Solve(Device::Cuda(), problems_, rates(), prices_),
                              again = Solve(Device::Cuda(), problems_, rates(), prices_);
  double same = 0, all = 0;
  for (size_t m = 0; m < solved.size(); ++m) {
    ExpectConsistent(problems_[m], solved[m], given_.trellis);
    ExpectSame(solved[m], again[m]);
    const double loss = expected[m].loss(problems_[m]);
    const auto weights = static_cast<double>(expected[m].n.size());
    // A decision that falls the other way changes what follows; over few weights that does not average out.
    EXPECT_NEAR(solved[m].loss(problems_[m]), loss, loss * std::max(5e-3, 1 / std::sqrt(weights)));
    same += SameShare(solved[m], expected[m]) * weights;
    all += weights;
  }
  EXPECT_GT(same / all, 0.99);
}

TEST_P(SolveTilesTest, NeedsNoPlaceForWeights) {
  const Device device = CudaDevices() > 0 ? Device::Cuda() : Device::Cpu();
  const std::vector<Solution> with = Solve(device, problems_, rates(), prices_),
                              without = Solve(device, problems_, rates(), prices_, /*with_weights=*/false);
  for (size_t m = 0; m < with.size(); ++m)
    ASSERT_EQ(std::memcmp(with[m].n.data(), without[m].n.data(), with[m].n.size() * sizeof(int16_t)), 0);
}

INSTANTIATE_TEST_SUITE_P(Cases, SolveTilesTest, testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name; });

std::vector<Device> Devices() {
  std::vector<Device> devices = {Device::Cpu()};
  if (CudaDevices() > 0) devices.push_back(Device::Cuda());
  return devices;
}

TEST(SolveTiles, NamesWeightsThatAreNotFinite) {
  const Columns columns(40, true, 1);
  for (const Device device : Devices()) {
    for (const float bad : {NAN, INFINITY}) {
      std::vector<Problem> problems;
      for (uint32_t m = 0; m < 2; ++m) problems.emplace_back(columns, Shape{150, 128}, m);
      problems[1].w(140, 33) = bad;
      EXPECT_THAT(MessageOf([&] { Solve(device, problems, nullptr, {.trellis = true, .window = 32}); }),
                  testing::HasSubstr("weights: row 140, column 33 is"))
          << device.name();
    }
  }
}

// One weight beyond all integers: it gets the largest there is, the others of its column sensible ones.
TEST(SolveTiles, OneWeightBeyondAllIntegersHarmsNoOther) {
  const Columns columns(20, false, 1);
  for (const Device device : Devices()) {
    for (const bool trellis : {false, true}) {
      std::vector<Problem> problems;
      problems.emplace_back(columns, Shape{128, 0}, 5);
      const uint32_t row = problems[0].row_order[10], col = columns.order[19];  // nothing behind it
      problems[0].w(row, col) = -1e9f;
      const std::vector<Solution> solved =
          Solve(device, problems, nullptr, {.trellis = trellis, .window = 32});
      EXPECT_LE(solved[0].n(row, col), -16000) << device.name();
      for (size_t i = 0; i < 128; ++i) {
        const uint32_t other = problems[0].row_order[i];
        if (other == row) continue;
        const float step = EntropyStep(problems[0].row_step[other], kStepResolution) *
                           EntropyStep(columns.col_step[col], kStepResolution);
        EXPECT_LT(std::abs(solved[0].weights(other, col)), 100 * step) << device.name();
      }
    }
  }
}

TEST(SolveTiles, ADeviceHasAWindowOfItsOwn) {
  if (CudaDevices() == 0) GTEST_SKIP() << CudaAbsence();
  const Columns columns(40, false, 1);
  std::vector<Problem> problems;
  problems.emplace_back(columns, Shape{150, 128}, 5);
  const StepPrices own = {.trellis = true},
                   same = {.trellis = true, .window = kCudaWindow, .ahead = kCudaAhead};
  ExpectSame(Solve(Device::Cuda(), problems, nullptr, own)[0],
             Solve(Device::Cuda(), problems, nullptr, same)[0]);
  EXPECT_THAT(MessageOf([&] { Solve(Device::Cuda(), problems, nullptr, {.trellis = true, .window = 3}); }),
              testing::HasSubstr("--trellis-window"));
}

}  // namespace
}  // namespace mica
