// The solver on grids of blocks by its stages, against what the words in blocks.h say in FP64.
#include "ops/blocks/blocks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "base/half.h"
#include "base/threads.h"
#include "ops/feedback/solver_state.h"
#include "ops/linalg/linalg.h"
#include "tests/compress/correlated.h"
#include "tests/error_message.h"
#include "tests/ops/devices.h"

namespace mica {
namespace {

// Every grid of single levels.
std::vector<BlockGrid> ScalarGrids() {
  using enum GgmlType;
  std::vector<BlockGrid> grids;
  for (const GgmlType type :
       {kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ2_K, kQ3_K, kQ4_K, kQ5_K, kQ6_K, kIQ4_NL, kIQ4_XS})
    grids.push_back(GridOf(type));
  grids.push_back(SymmetricGrid(4, 128, ScaleType::kBF16));
  grids.push_back(SymmetricGrid(3, 64, ScaleType::kF16));
  grids.push_back(SymmetricGrid(2, 32, ScaleType::kF16));
  grids.push_back(SymmetricGrid(8, 512, ScaleType::kBF16));  // one scale a row
  return grids;
}

constexpr size_t kRows = 37, kCols = 512;  // rows: no multiple of a tile

template <typename T>
MatrixView<const T> Whole(const Array& array) {
  return IntegersOf<T>(array.view());
}

double ScaleOf(const BlockGrid& grid, uint16_t bits) {
  return grid.scale_type == ScaleType::kBF16 ? ToFloat(BF16{bits}) : ToFloat(F16{bits});
}

// a and b of row r, column j: the value is a level - b.
struct Line {
  double a, b;
};
Line LineOf(const BlockState& state, size_t r, size_t j) {
  const BlockGrid& grid = state.grid;
  const size_t group = j / grid.group_cols, block = j / grid.block_cols;
  double a = ScaleOf(grid, Whole<uint16_t>(state.d)(block, r)), b = 0;
  if (grid.has_integers())
    a *= static_cast<double>(grid.scale_base) +
         static_cast<double>(grid.scale_step) * Whole<uint8_t>(state.s)(group, r);
  if (grid.has_offset()) {
    b = ScaleOf(grid, Whole<uint16_t>(state.dmin)(block, r));
    if (grid.offset_high > 0) b *= Whole<uint8_t>(state.m)(group, r);
  }
  return {a, b};
}
std::vector<double> LevelsOf(const BlockGrid& grid) {
  std::vector<double> levels;
  if (grid.levels == LevelKind::kTable) return {grid.table.begin(), grid.table.end()};
  for (int level = grid.level_low; level <= grid.level_high; ++level) levels.push_back(level);
  return levels;
}
Matrix<float> Decoded(const BlockState& state) {
  const std::vector<double> levels = LevelsOf(state.grid);
  Matrix<float> out(state.rows, state.cols);
  for (size_t r = 0; r < state.rows; ++r) {
    for (size_t j = 0; j < state.cols; ++j) {
      const Line line = LineOf(state, r, j);
      out(r, j) = static_cast<float>(line.a * levels[Whole<uint8_t>(state.codes)(j, r)] - line.b);
    }
  }
  return out;
}

// No level is nearer than the code's.
void ExpectNearestCodes(const BlockState& state, MatrixView<const float> by_column) {
  const std::vector<double> levels = LevelsOf(state.grid);
  for (size_t r = 0; r < state.rows; ++r) {
    for (size_t j = 0; j < state.cols; ++j) {
      const Line line = LineOf(state, r, j);
      const uint8_t code = Whole<uint8_t>(state.codes)(j, r);
      ASSERT_LT(code, levels.size());
      const double here = std::abs(by_column(j, r) - (line.a * levels[code] - line.b));
      for (const double level : levels)
        ASSERT_LE(here, std::abs(by_column(j, r) - (line.a * level - line.b)) * (1 + 1e-5) + 1e-7)
            << state.grid.name;
    }
  }
}

Matrix<float> ByColumn(const Matrix<float>& w) {
  Matrix<float> out(w.cols(), w.rows());
  for (size_t r = 0; r < w.rows(); ++r) {
    for (size_t c = 0; c < w.cols(); ++c) out(c, r) = w(r, c);
  }
  return out;
}

Matrix<float> DampedBy(Matrix<float> h, float share) {
  for (size_t j = 0; j < h.rows(); ++j) h(j, j) *= 1 + share;
  return h;
}

struct Threading {
  explicit Threading(int threads) { SetThreads(threads); }
  ~Threading() { SetThreads(0); }
};

std::vector<uint8_t> Bytes(const BlockState& state) {
  std::vector<uint8_t> bytes;
  for (const Array* array : {&state.codes, &state.signs, &state.s, &state.m, &state.d, &state.dmin}) {
    if (array->empty()) continue;
    const Array here = CopyTo(Device::Cpu(), array->view());
    const auto* data = reinterpret_cast<const uint8_t*>(here.view().data);
    bytes.insert(bytes.end(), data, data + here.rows() * here.cols() * DTypeBytes(here.dtype()));
  }
  return bytes;
}

TEST(RoundBlocks, TakesTheNearestCodesOfScalesThatFit) {
  const Matrix<float> w = GaussianWeights(kRows, kCols, 1), by_column = ByColumn(w);
  for (const BlockGrid& grid : ScalarGrids()) {
    BlockState state(grid, kRows, kCols, Device::Cpu());
    RoundBlocks(state, by_column, {});
    ExpectNearestCodes(state, by_column);
    const Matrix<float> values = Decoded(state);
    double error = 0, energy = 0;
    for (size_t i = 0; i < w.size(); ++i) {
      error += std::pow(double{w.data()[i]} - values.data()[i], 2);
      energy += std::pow(double{w.data()[i]}, 2);
    }
    // A Gaussian at so many levels: the best uniform quantisers leave 0.119, 0.0374, 0.0115, 0.0035 of it at
    // 2, 3, 4, 5 bits.
    const double levels = static_cast<double>(LevelsOf(grid).size());
    EXPECT_LT(error / energy, 2.3 / std::pow(levels, 1.9)) << grid.name;
    Matrix<float> read(kRows, kCols);
    BlockValues(state, read);
    EXPECT_EQ(std::memcmp(read.data(), values.data(), read.size() * sizeof(float)), 0) << grid.name;
  }
}

TEST(RoundBlocks, ImportantColumnsAreCloser) {
  const Matrix<float> by_column = ByColumn(GaussianWeights(kRows, kCols, 2));
  std::vector<float> importance(kCols, 1.0f);
  for (size_t j = 0; j < kCols; j += 16) importance[j] = 100;
  for (const BlockGrid& grid : ScalarGrids()) {
    if (grid.block_cols > 256) continue;
    const auto error = [&](const std::vector<float>& given) {
      BlockState state(grid, kRows, kCols, Device::Cpu());
      RoundBlocks(state, by_column, given);
      const Matrix<float> values = Decoded(state);
      double sum = 0;
      for (size_t r = 0; r < kRows; ++r) {
        for (size_t j = 0; j < kCols; ++j)
          sum += importance[j] * std::pow(double{by_column(j, r)} - values(r, j), 2);
      }
      return sum;
    };
    EXPECT_LT(error(importance), 0.95 * error({})) << grid.name;
  }
}

// What the errors of FeedBlocks say it rounded, done again in FP64: each code is the nearest at its time.
TEST(FeedBlocks, FixesColumnsOneAfterTheOther) {
  const Matrix<float> w = GaussianWeights(kRows, kCols, 3);
  const Matrix<float> h = DampedBy(CorrelatedMoments(kCols, 900, 4), 0.01f);
  Matrix<float> u = h.Clone();
  ASSERT_TRUE(CholeskyOfInverseUpper(u));
  for (const BlockGrid& grid : ScalarGrids()) {
    for (const int rounds : {0, 2}) {
      BlockState state(grid, kRows, kCols, Device::Cpu());
      Matrix<float> remaining = ByColumn(w), errors(kCols, kRows);
      const double loss = FeedBlocks(state, u, {}, rounds, remaining, errors);
      // W less all errors of columns before.
      Matrix<float> moved(kCols, kRows);
      double sum = 0;
      for (size_t r = 0; r < kRows; ++r) {
        for (size_t j = 0; j < kCols; ++j) {
          double value = w(r, j);
          for (size_t k = 0; k < j; ++k) value -= double{errors(k, r)} * u(k, j);
          moved(j, r) = static_cast<float>(value);
          const Line line = LineOf(state, r, j);
          const double stored = line.a * LevelsOf(grid)[Whole<uint8_t>(state.codes)(j, r)] - line.b;
          ASSERT_NEAR(errors(j, r) * u(j, j), value - stored, 2e-6) << grid.name;
          sum += double{errors(j, r)} * errors(j, r);
        }
      }
      EXPECT_NEAR(loss, sum, 1e-5 * sum);
      EXPECT_NEAR(loss, LossBetween(w, Decoded(state), h), 1e-3 * loss) << grid.name;
      const std::vector<double> levels = LevelsOf(grid);
      for (size_t r = 0; r < kRows; ++r) {
        for (size_t j = 0; j < kCols; ++j) {
          const Line line = LineOf(state, r, j);
          const double here =
              std::abs(moved(j, r) - (line.a * levels[Whole<uint8_t>(state.codes)(j, r)] - line.b));
          for (const double level : levels)
            ASSERT_LE(here, std::abs(moved(j, r) - (line.a * level - line.b)) + 3e-6) << grid.name;
        }
      }
    }
  }
}

TEST(RefineBlocks, LowersTheLossByWhatItSays) {
  const Matrix<float> w = GaussianWeights(kRows, kCols, 5);
  const Matrix<float> h = DampedBy(CorrelatedMoments(kCols, 900, 6), 0.01f);
  for (const BlockGrid& grid : ScalarGrids()) {
    BlockState state(grid, kRows, kCols, Device::Cpu());
    RoundBlocks(state, ByColumn(w), {});
    double before = LossBetween(w, Decoded(state), h);
    Matrix<float> gradient(kCols, kRows), steps(kCols, kRows);
    for (const int passes : {1, 3}) {
      BlockResidual(state, w, {}, false, steps);
      const double change = RefineBlocks(state, h, passes, gradient, steps);
      const double after = LossBetween(w, Decoded(state), h);
      EXPECT_LE(change, 0) << grid.name;
      EXPECT_NEAR(after - before, change, 2e-4 * before) << grid.name << ' ' << passes;
      before = after;
    }
  }
}

// Nothing that one step could do is left undone.
TEST(RefineBlocks, EndsWhereNoSingleCodeCanImprove) {
  const Matrix<float> w = GaussianWeights(5, 256, 7);
  const Matrix<float> h = DampedBy(CorrelatedMoments(256, 600, 8), 0.01f);
  for (const BlockGrid& grid :
       {GridOf(GgmlType::kQ2_K), GridOf(GgmlType::kIQ4_XS), GridOf(GgmlType::kQ4_1)}) {
    BlockState state(grid, 5, 256, Device::Cpu());
    RoundBlocks(state, ByColumn(w), {});
    Matrix<float> gradient(256, 5), steps(256, 5);
    for (int pass = 0; pass < 60; ++pass) {
      BlockResidual(state, w, {}, false, steps);
      RefineBlocks(state, h, 1, gradient, steps);
    }
    const Matrix<float> values = Decoded(state);
    const double loss = LossBetween(w, values, h);
    const std::vector<double> levels = LevelsOf(grid);
    for (size_t r = 0; r < 5; ++r) {
      std::vector<double> g(256, 0.0);
      for (size_t i = 0; i < 256; ++i) {
        for (size_t j = 0; j < 256; ++j) g[i] += double{h(i, j)} * (double{w(r, j)} - values(r, j));
      }
      for (size_t j = 0; j < 256; ++j) {
        const Line line = LineOf(state, r, j);
        for (const double level : levels) {
          const double step = line.a * level - line.b - values(r, j);
          EXPECT_GE(step * (step * h(j, j) - 2 * g[j]), -1e-6 * loss) << grid.name;
        }
      }
    }
  }
}

TEST(Blocks, DoNotDependOnThreads) {
  const size_t rows = 150;
  const Matrix<float> w = GaussianWeights(rows, kCols, 9);
  const Matrix<float> h = DampedBy(CorrelatedMoments(kCols, 900, 10), 0.01f);
  Matrix<float> u = h.Clone();
  ASSERT_TRUE(CholeskyOfInverseUpper(u));
  for (const BlockGrid& grid : ScalarGrids()) {
    std::vector<uint8_t> bytes[2];
    double losses[2];
    for (const int threads : {1, 3}) {
      const Threading threading(threads);
      BlockState state(grid, rows, kCols, Device::Cpu());
      Matrix<float> remaining = ByColumn(w), errors(kCols, rows);
      double loss = FeedBlocks(state, u, {}, 2, remaining, errors);
      BlockResidual(state, w, {}, false, errors);
      loss += RefineBlocks(state, h, 2, remaining, errors);
      bytes[threads / 2] = Bytes(state);
      losses[threads / 2] = loss;
    }
    EXPECT_EQ(bytes[0], bytes[1]) << grid.name;
    EXPECT_EQ(losses[0], losses[1]) << grid.name;
  }
}

TEST(Blocks, RefuseRowsThatAreNoWholeBlocks) {
  EXPECT_FALSE(FitsBlocks(GridOf(GgmlType::kQ4_K), 384));
  EXPECT_TRUE(FitsBlocks(GridOf(GgmlType::kQ4_0), 384));
  EXPECT_NE(MessageOf([] { BlockState(GridOf(GgmlType::kQ4_K), 2, 384, Device::Cpu()); }).find("Q4_K"),
            std::string::npos);
}

TEST(Blocks, ZerosStayZeros) {
  const Matrix<float> by_column(kCols, kRows, 0.0f);
  for (const BlockGrid& grid : ScalarGrids()) {
    BlockState state(grid, kRows, kCols, Device::Cpu());
    RoundBlocks(state, by_column, {});
    const Matrix<float> values = Decoded(state);
    for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values.data()[i], 0.0f) << grid.name;
  }
}

// On a CUDA device the same but for the rounding of sums, which moves a code now and then.
TEST(Blocks, CudaIsAsGood) {
  MICA_NEEDS_CUDA();
  const size_t rows = 150;
  const Matrix<float> w = GaussianWeights(rows, kCols, 12);
  const Matrix<float> h = DampedBy(CorrelatedMoments(kCols, 900, 13), 0.01f);
  Matrix<float> u = h.Clone();
  ASSERT_TRUE(CholeskyOfInverseUpper(u));
  for (const BlockGrid& grid : ScalarGrids()) {
    double fed[2], refined[2], truth[2];
    for (const bool cuda : {false, true}) {
      const Device device = cuda ? Device::Cuda() : Device::Cpu();
      const Array there_u = CopyTo(device, u), there_h = CopyTo(device, h), there_w = CopyTo(device, w);
      Array remaining = CopyTo(device, ByColumn(w)), errors(kCols, rows, DType::kF32, device);
      BlockState state(grid, rows, kCols, device);
      fed[cuda] = FeedBlocks(state, there_u.view(), {}, 2, remaining.view(), errors.view());
      BlockResidual(state, there_w.view(), {}, false, errors.view());
      refined[cuda] = fed[cuda] + RefineBlocks(state, there_h.view(), 2, remaining.view(), errors.view());
      Array values(rows, kCols, DType::kF32, device);
      BlockValues(state, values.view());
      truth[cuda] = LossBetween(w, OnHost(values.view()), h);
      EXPECT_NEAR(refined[cuda], truth[cuda], 2e-3 * truth[cuda]) << grid.name;
    }
    EXPECT_NEAR(fed[1], fed[0], 0.01 * fed[0]) << grid.name;
    EXPECT_NEAR(truth[1], truth[0], 0.01 * truth[0]) << grid.name;
  }
}

}  // namespace
}  // namespace mica
