// Models fitted on a CUDA device against those of the processor.
#include <gtest/gtest.h>

#include <cstddef>
#include <iterator>
#include <memory>
#include <random>
#include <vector>

#include "ops/codes/entropy_model.h"
#include "ops/codes/integers.h"
#include "ops/codes/symbol_passes.h"
#include "tests/format/entropy/testing.h"
#include "tests/ops/codes/testing.h"
#include "tests/ops/devices.h"

namespace mica {
namespace {

// The integers of a matrix on the device.
Array Uploaded(const EntropyMatrix& matrix) { return OnCuda(IntegersOf(matrix)); }

EntropyMatrix CloneOf(const EntropyMatrix& matrix) {
  EntropyMatrix clone;
  static_cast<EntropyFrame&>(clone) = matrix;
  clone.n = matrix.n.Clone();
  return clone;
}

// Cases of the decoders' tests, and some that take several blocks of every kernel.
std::vector<EntropyMatrix> Samples() {
  std::vector<EntropyCase> cases(std::begin(kEntropyCases), std::end(kEntropyCases));
  cases.insert(cases.end(), {{300, 1500, 128, 8, 0.3}, {1025, 257, 128, 1, 2.0}, {257, 2051, 128, 8, 9.0}});
  std::vector<EntropyMatrix> samples;
  unsigned seed = 0;
  for (const EntropyCase& c : cases) {
    samples.push_back(Sample(c, seed++));
    EntropyMatrix& matrix = samples.back();
    // Where magnitudes do not fit.
    matrix.n.data()[matrix.n.size() / 2] = -32767;
    // Classes far beyond those of the tables.
    std::mt19937 random(seed);
    for (int16_t& k : matrix.col_class) {
      if (random() % 8 == 0) k = static_cast<int16_t>(static_cast<int>(random() % 400) - 200);
    }
  }
  return samples;
}

void ExpectSameCounts(const EntropyCounts& counts, const EntropyCounts& expected) {
  for (size_t q = 0; q < 2; ++q) {
    for (size_t k = 0; k < expected.rows[q].size(); ++k)
      ASSERT_EQ(counts.rows[q][k], expected.rows[q][k]) << "quantiser " << q << ", class " << k;
  }
}

void ExpectNear(const Matrix<double>& bits, const Matrix<double>& expected) {
  ASSERT_EQ(bits.rows(), expected.rows());
  ASSERT_EQ(bits.cols(), expected.cols());
  for (size_t i = 0; i < expected.size(); ++i)
    ASSERT_NEAR(bits.data()[i], expected.data()[i], 1e-11 * expected.data()[i]) << i;
}

TEST(SymbolPassesCuda, FindTheSame) {
  MICA_NEEDS_CUDA();
  for (const EntropyMatrix& matrix : Samples()) {
    SCOPED_TRACE(testing::Message() << matrix.rows << " x " << matrix.cols << ", tiles of "
                                    << matrix.tile_rows << ", " << matrix.states << " states");
    const Array n = Uploaded(matrix);
    const std::unique_ptr<SymbolPasses> expected = NewSymbolPasses(matrix, IntegersOf(matrix)),
                                        found = NewSymbolPasses(matrix, n.view());
    const EntropyTables& tables = matrix.tables;
    ExpectSameCounts(found->Count(0, kEntropyClasses - 1), expected->Count(0, kEntropyClasses - 1));
    ExpectSameCounts(found->Count(tables.first_class(), tables.last_class()),
                     expected->Count(tables.first_class(), tables.last_class()));
    for (const EntropyRates& rates :
         {EntropyRates(tables), EntropyRates(DefaultEntropyTables(matrix.states))}) {
      const Matrix<double> rows = found->RowBits(rates), columns = found->ColumnBits(rates);
      ExpectNear(rows, expected->RowBits(rates));
      ExpectNear(columns, expected->ColumnBits(rates));
      const Matrix<double> rows_again = found->RowBits(rates), columns_again = found->ColumnBits(rates);
      for (size_t i = 0; i < rows.size(); ++i) ASSERT_EQ(rows.data()[i], rows_again.data()[i]);
      for (size_t i = 0; i < columns.size(); ++i) ASSERT_EQ(columns.data()[i], columns_again.data()[i]);
    }
  }
}

// Classes are looked up when a pass begins.
TEST(SymbolPassesCuda, FollowTheClassesOfTheMatrix) {
  MICA_NEEDS_CUDA();
  EntropyMatrix matrix = Sample({200, 90, 128, 8, 0.5}, 3);
  const Array n = Uploaded(matrix);
  const std::unique_ptr<SymbolPasses> found = NewSymbolPasses(matrix, n.view());
  for (int16_t& k : matrix.row_class) k = static_cast<int16_t>(k + 7);
  ExpectSameCounts(found->Count(0, kEntropyClasses - 1),
                   NewSymbolPasses(matrix, IntegersOf(matrix))->Count(0, kEntropyClasses - 1));
}

TEST(FitEntropyModelCuda, StoresAsMuchAsTheProcessor) {
  MICA_NEEDS_CUDA();
  std::vector<EntropyMatrix> matrices = Samples();
  for (const double octaves : {-0.5, 0.5, 1.5}) {
    double entropy = 0;
    matrices.push_back(SeparableGaussian(640, 500, octaves, 17, &entropy));
  }
  for (EntropyMatrix& on_host : matrices) {
    SCOPED_TRACE(testing::Message() << on_host.rows << " x " << on_host.cols);
    // From the integers alone, as without a search by rate.
    on_host.row_class.clear();
    on_host.col_class.clear();
    EntropyMatrix on_device = CloneOf(on_host), again = CloneOf(on_host);
    FitEntropyModel(on_host);
    const Array n = Uploaded(on_host);
    FitEntropyModel(on_device, n.view());
    FitEntropyModel(again, n.view());
    const double bits = static_cast<double>(Pack(on_host).bits());
    EXPECT_NEAR(static_cast<double>(Pack(on_device).bits()), bits, 1e-4 * bits);
    EXPECT_EQ(on_device.row_class, again.row_class);
    EXPECT_EQ(on_device.col_class, again.col_class);
    EXPECT_EQ(on_device.tables.knots, again.tables.knots);
  }
}

}  // namespace
}  // namespace mica
