#include "ops/codes/entropy_model.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/error.h"
#include "base/threads.h"
#include "format/entropy/fit.h"
#include "format/entropy/side_stream.h"
#include "format/entropy/tables.h"
#include "ops/codes/fit_tables.h"

namespace mica {
namespace {

constexpr size_t kMagnitudes = EntropyRates::kMagnitudes;
constexpr int kUnitClass = 24;  // standard deviation 1
constexpr double kClassesPerOctave = 4;
constexpr size_t kColumnBlock = 64;  // columns whose candidates are summed together
constexpr int kReach = 2;            // classes to either side that are tried at once

// quantiser * kMagnitudes + min(|n|, kMagnitudes - 1) of every weight: the index of its rate within a class.
Matrix<uint16_t> RateKeys(const EntropyMatrix& matrix) {
  Matrix<uint16_t> keys(matrix.rows, matrix.cols);
  const size_t tiles = matrix.tiles();
  const std::vector<uint32_t> order = StoredRowOrder(matrix);
  const Trellis& trellis = TrellisOf(matrix.states);
  ParallelFor(tiles, [&](size_t tile) {
    std::vector<uint8_t> states(matrix.cols, 0);
    for (size_t p = tile * matrix.tile_rows; p < std::min(matrix.rows, (tile + 1) * matrix.tile_rows); ++p) {
      const int16_t* n = matrix.n.row(order[p]);
      uint16_t* key = keys.row(order[p]);
      for (size_t c = 0; c < matrix.cols; ++c) {
        const size_t magnitude = static_cast<size_t>(std::abs(int{n[c]}));
        key[c] = static_cast<uint16_t>(trellis.quantiser[states[c]] * kMagnitudes +
                                       std::min(magnitude, kMagnitudes - 1));
        states[c] = trellis.next[states[c]][magnitude & 1];
      }
    }
  });
  return keys;
}

EntropyCounts CountSymbols(const EntropyMatrix& matrix, const Matrix<uint16_t>& keys, int first_class,
                           int last_class) {
  const size_t tiles = matrix.tiles();
  std::vector<EntropyCounts> parts(tiles);
  ParallelFor(tiles, [&](size_t tile) {
    for (size_t r = tile * matrix.tile_rows; r < std::min(matrix.rows, (tile + 1) * matrix.tile_rows); ++r) {
      for (size_t c = 0; c < matrix.cols; ++c) {
        const int k = std::clamp(matrix.row_class[r] + matrix.col_class[c], first_class, last_class);
        const bool second = keys(r, c) >= kMagnitudes;
        // The key is cut at kMagnitudes; the integer itself is not.
        parts[tile].Add(second ? 1 : 0, k, std::abs(int{matrix.n(r, c)}));
      }
    }
  });
  EntropyCounts total;
  for (const EntropyCounts& part : parts) total += part;
  return total;
}

int16_t Median(std::vector<int16_t> values) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Bits that a class costs among classes distributed like these, relative to what the step predicts.
class ClassBits {
 public:
  ClassBits(const std::vector<int16_t>& classes, const std::vector<int16_t>& steps, int resolution)
      : steps_(&steps), resolution_(resolution), counts_(kRange, 0.25) {
    for (size_t i = 0; i < classes.size(); ++i) counts_[Index(i, classes[i])] += 1;
    for (const double count : counts_) total_ += count;
  }
  double operator()(size_t i, int entropy_class) const {
    return std::log2(total_ / counts_[Index(i, entropy_class)]);
  }

 private:
  static constexpr size_t kRange = 256;
  size_t Index(size_t i, int entropy_class) const {
    return static_cast<size_t>(std::clamp(entropy_class - PredictedClass((*steps_)[i], resolution_) + 128, 0,
                                          static_cast<int>(kRange) - 1));
  }
  const std::vector<int16_t>* steps_;
  int resolution_;
  std::vector<double> counts_;
  double total_ = 0;
};

// Gives every row the class near its present one for which its integers and the class itself take the fewest
// bits.
void ChooseRowClasses(EntropyMatrix& matrix, const Matrix<uint16_t>& keys, const EntropyRates& rates) {
  const ClassBits class_bits(matrix.row_class, matrix.row_step, matrix.row_resolution);
  ParallelFor(matrix.rows, [&](size_t r) {
    double bits[2 * kReach + 1] = {};
    for (size_t c = 0; c < matrix.cols; ++c) {
      const int k = matrix.row_class[r] + matrix.col_class[c];
      for (int d = -kReach; d <= kReach; ++d) {
        // Rates of quantiser 1 stand kEntropyClasses tables behind those of quantiser 0.
        const uint16_t key = keys(r, c);
        const float* table = rates.Bits(key >= kMagnitudes ? 1 : 0, k + d);
        bits[d + kReach] += static_cast<double>(table[key % kMagnitudes]);
      }
    }
    int best = 0;
    for (int d = -kReach; d <= kReach; ++d) {
      bits[d + kReach] += class_bits(r, matrix.row_class[r] + d);
      if (bits[d + kReach] < bits[best + kReach]) best = d;
    }
    matrix.row_class[r] = static_cast<int16_t>(matrix.row_class[r] + best);
  });
}

void ChooseColumnClasses(EntropyMatrix& matrix, const Matrix<uint16_t>& keys, const EntropyRates& rates) {
  const ClassBits class_bits(matrix.col_class, matrix.col_step, kStepResolution);
  ParallelFor((matrix.cols + kColumnBlock - 1) / kColumnBlock, [&](size_t block) {
    double bits[kColumnBlock][2 * kReach + 1] = {};
    const size_t begin = block * kColumnBlock;
    const size_t end = std::min(matrix.cols, begin + kColumnBlock);
    for (size_t r = 0; r < matrix.rows; ++r) {
      for (size_t c = begin; c < end; ++c) {
        const int k = matrix.row_class[r] + matrix.col_class[c];
        const uint16_t key = keys(r, c);
        for (int d = -kReach; d <= kReach; ++d) {
          const float* table = rates.Bits(key >= kMagnitudes ? 1 : 0, k + d);
          bits[c - begin][d + kReach] += static_cast<double>(table[key % kMagnitudes]);
        }
      }
    }
    for (size_t c = begin; c < end; ++c) {
      double* of_column = bits[c - begin];
      int best = 0;
      for (int d = -kReach; d <= kReach; ++d) {
        of_column[d + kReach] += class_bits(c, matrix.col_class[c] + d);
        if (of_column[d + kReach] < of_column[best + kReach]) best = d;
      }
      matrix.col_class[c] = static_cast<int16_t>(matrix.col_class[c] + best);
    }
  });
}

// Classes of integers whose mean magnitude is about row[r] * col[c].
void SetClasses(const std::vector<double>& row, const std::vector<double>& col, double deviation_of_mean,
                EntropyMatrix& matrix) {
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
void SeparateScales(EntropyMatrix& matrix, double deviation_of_mean, Magnitude&& magnitude) {
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
void NormaliseClasses(EntropyMatrix& matrix) {
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

void FitEntropyModel(EntropyMatrix& matrix) {
  if (matrix.row_class.empty() || matrix.col_class.empty()) {
    SeparateScales(matrix, kDeviationOfMean,
                   [&](size_t r, size_t c) { return std::abs(static_cast<double>(matrix.n(r, c))); });
    NormaliseClasses(matrix);
  }
  const Matrix<uint16_t> keys = RateKeys(matrix);
  const EntropyTables start = DefaultEntropyTables(matrix.states);
  matrix.tables = FitTables(start, CountSymbols(matrix, keys, 0, kEntropyClasses - 1));
  const EntropyRates rates(matrix.tables);
  ChooseColumnClasses(matrix, keys, rates);
  ChooseRowClasses(matrix, keys, rates);
  NormaliseClasses(matrix);
  matrix.tables = FitTables(start, CountSymbols(matrix, keys, 0, kEntropyClasses - 1));
  // Symbols of classes beyond the tables depend on the tables' range: fitted once more with their true
  // counts.
  matrix.tables = RefineTables(
      matrix.tables, CountSymbols(matrix, keys, matrix.tables.first_class(), matrix.tables.last_class()));
}

double EntropyCodeBits(const EntropyMatrix& matrix) {
  const Matrix<uint16_t> keys = RateKeys(matrix);
  return TablesBits(matrix.tables,
                    CountSymbols(matrix, keys, matrix.tables.first_class(), matrix.tables.last_class()));
}

}  // namespace mica
