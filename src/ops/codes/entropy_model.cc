#include "ops/codes/entropy_model.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/threads.h"
#include "device/array.h"
#include "format/entropy/fit.h"
#include "format/entropy/side_stream.h"
#include "format/entropy/tables.h"
#include "ops/codes/fit_tables.h"
#include "ops/codes/integers.h"
#include "ops/codes/symbol_passes.h"

namespace mica {
namespace {

constexpr int kUnitClass = 24;  // standard deviation 1
constexpr double kClassesPerOctave = 4;
constexpr size_t kColumnBlock = 64;  // columns whose means are summed together

int16_t Median(std::vector<int16_t> values) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Bits that a class costs among classes distributed like these, relative to what the step predicts.
class ClassBits {
 public:
  ClassBits(const std::vector<int16_t>& classes, const std::vector<int16_t>& steps, int resolution)
      : steps_(steps), resolution_(resolution), bits_(kRange, 0.25) {
    for (size_t i = 0; i < classes.size(); ++i) bits_[Index(i, classes[i])] += 1;
    double total = 0;
    for (const double count : bits_) total += count;
    for (double& bits : bits_) bits = std::log2(total / bits);
  }
  double operator()(size_t i, int entropy_class) const { return bits_[Index(i, entropy_class)]; }

 private:
  static constexpr size_t kRange = 256;
  size_t Index(size_t i, int entropy_class) const {
    return static_cast<size_t>(std::clamp(entropy_class - PredictedClass(steps_[i], resolution_) + 128, 0,
                                          static_cast<int>(kRange) - 1));
  }
  const std::vector<int16_t>& steps_;
  const int resolution_;
  std::vector<double> bits_;
};

// Gives every row or column the class near its present one for which its integers (bits: [kClassCandidates,
// classes], as SymbolPasses finds them) and the class itself take the fewest bits.
void ChooseClasses(const Matrix<double>& bits, const std::vector<int16_t>& steps, int resolution,
                   std::vector<int16_t>& classes) {
  const ClassBits class_bits(classes, steps, resolution);
  for (size_t i = 0; i < classes.size(); ++i) {
    double costs[kClassCandidates];
    for (size_t d = 0; d < kClassCandidates; ++d) costs[d] = bits(d, i);
    int best = 0;
    for (int d = -kClassReach; d <= kClassReach; ++d) {
      costs[d + kClassReach] += class_bits(i, classes[i] + d);
      if (costs[d + kClassReach] < costs[best + kClassReach]) best = d;
    }
    classes[i] = static_cast<int16_t>(classes[i] + best);
  }
}

// Classes of integers whose mean magnitude is about row[r] * col[c].
void SetClasses(const std::vector<double>& row, const std::vector<double>& col, double deviation_of_mean,
                EntropyFrame& matrix) {
  matrix.row_class.resize(matrix.rows);
  matrix.col_class.resize(matrix.cols);
  for (size_t r = 0; r < matrix.rows; ++r) {
    matrix.row_class[r] = static_cast<int16_t>(
        std::lround(kClassesPerOctave * std::log2(row[r] * deviation_of_mean)) + kUnitClass);
  }
  for (size_t c = 0; c < matrix.cols; ++c) {
    matrix.col_class[c] = static_cast<int16_t>(std::lround(kClassesPerOctave * std::log2(col[c])));
  }
}

// Row and column factors of a matrix of magnitudes, x(r, c) about row[r] * col[c], by alternating means; then
// classes.
template <typename Magnitude>
void SeparateScales(EntropyFrame& matrix, double deviation_of_mean, Magnitude&& magnitude) {
  std::vector<double> row(matrix.rows, 1.0), col(matrix.cols, 1.0);
  for (int pass = 0; pass < kMeanSizePasses; ++pass) {
    ParallelFor(matrix.rows, [&](size_t r) {
      double sum = 0;
      for (size_t c = 0; c < matrix.cols; ++c) sum += magnitude(r, c) / col[c];
      row[r] = std::max(sum / static_cast<double>(matrix.cols), kLeastMeanSize);
    });
    ParallelFor((matrix.cols + kColumnBlock - 1) / kColumnBlock, [&](size_t block) {
      const size_t begin = block * kColumnBlock;
      const size_t end = std::min(matrix.cols, begin + kColumnBlock);
      double sums[kColumnBlock] = {};
      for (size_t r = 0; r < matrix.rows; ++r) {
        for (size_t c = begin; c < end; ++c) sums[c - begin] += magnitude(r, c) / row[r];
      }
      for (size_t c = begin; c < end; ++c)
        col[c] = std::max(sums[c - begin] / static_cast<double>(matrix.rows), kLeastMeanSize);
    });
  }
  SetClasses(row, col, deviation_of_mean, matrix);
}

constexpr double kDeviationOfMean =
    1.3;  // standard deviation over mean magnitude, between Gaussian 1.25 and Laplacian 1.41

// What a repeated sum of classes leaves open is fixed: the median of the column classes is 0.
void NormaliseClasses(EntropyFrame& matrix) {
  const int16_t middle = Median(matrix.col_class);
  for (int16_t& k : matrix.col_class) k = static_cast<int16_t>(k - middle);
  for (int16_t& k : matrix.row_class) k = static_cast<int16_t>(k + middle);
}

}  // namespace

void SizeUnits(const EntropyMatrix& matrix, std::vector<double>& row, std::vector<double>& col) {
  row.resize(matrix.rows);
  col.resize(matrix.cols);
  // A quantiser of the trellis alone has steps of 2.
  const double unit = matrix.states > 1 ? 0.5 : 1.0;
  for (size_t r = 0; r < matrix.rows; ++r)
    row[r] = unit / static_cast<double>(EntropyStep(matrix.row_step[r], matrix.row_resolution));
  for (size_t c = 0; c < matrix.cols; ++c)
    col[c] = 1.0 / static_cast<double>(EntropyStep(matrix.col_step[c], kStepResolution));
}

void SetClassesOfWeights(const std::vector<double>& row, const std::vector<double>& col,
                         EntropyMatrix& matrix) {
  SetClasses(row, col, kDeviationOfMean, matrix);
  NormaliseClasses(matrix);
}

void GuessClasses(MatrixView<const float> w, EntropyMatrix& matrix) {
  MICA_CHECK(w.rows == matrix.rows);
  MICA_CHECK(w.cols == matrix.cols);
  std::vector<double> row, col;
  SizeUnits(matrix, row, col);
  SeparateScales(matrix, kDeviationOfMean, [&](size_t r, size_t c) {
    return std::abs(static_cast<double>(w(r, c))) * row[r] * col[c];
  });
  NormaliseClasses(matrix);
}

void FitEntropyModel(EntropyMatrix& matrix) { FitEntropyModel(matrix, IntegersOf(matrix)); }

void FitEntropyModel(EntropyFrame& matrix, ConstTensor n) {
  if (matrix.row_class.empty() || matrix.col_class.empty()) {
    // No search by rate has set them, which is rare enough for a copy from a device.
    const Array copy = n.device.is_cuda() ? CopyTo(Device::Cpu(), n) : Array();
    const MatrixView<const int16_t> integers = HostIntegers(n.device.is_cuda() ? copy.view() : n);
    SeparateScales(matrix, kDeviationOfMean,
                   [&](size_t r, size_t c) { return std::abs(static_cast<double>(integers(r, c))); });
    NormaliseClasses(matrix);
  }
  const std::unique_ptr<SymbolPasses> passes = NewSymbolPasses(matrix, n);
  const EntropyTables start = DefaultEntropyTables(matrix.states);
  matrix.tables = FitTables(start, passes->Count(0, kEntropyClasses - 1));
  const EntropyRates rates(matrix.tables);
  ChooseClasses(passes->ColumnBits(rates), matrix.col_step, kStepResolution, matrix.col_class);
  ChooseClasses(passes->RowBits(rates), matrix.row_step, matrix.row_resolution, matrix.row_class);
  NormaliseClasses(matrix);
  matrix.tables = FitTables(start, passes->Count(0, kEntropyClasses - 1));
  // Symbols of classes beyond the tables depend on the tables' range: fitted once more with their true
  // counts.
  matrix.tables =
      RefineTables(matrix.tables, passes->Count(matrix.tables.first_class(), matrix.tables.last_class()));
}

double EntropyCodeBits(const EntropyMatrix& matrix) {
  const std::unique_ptr<SymbolPasses> passes = NewSymbolPasses(matrix, IntegersOf(matrix));
  return TablesBits(matrix.tables, passes->Count(matrix.tables.first_class(), matrix.tables.last_class()));
}

}  // namespace mica
