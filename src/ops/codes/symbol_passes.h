// What fitting the model of a matrix of coding `entropy` asks of its integers: passes over all of them, on
// any device.
#pragma once

#include <memory>

#include "base/matrix.h"
#include "device/tensor.h"
#include "format/entropy/entropy_matrix.h"
#include "format/entropy/fit.h"
#include "format/entropy/tables.h"

namespace mica {

// Classes of a row or column that are tried at once: the present one and so many to either side.
inline constexpr int kClassReach = 2;
inline constexpr int kClassCandidates = 2 * kClassReach + 1;

// Of the integers of one matrix, with the classes that it has when a pass is asked for. Results do not depend
// on threads.
class SymbolPasses {
 public:
  virtual ~SymbolPasses() = default;
  // Classes beyond the first and the last count as these.
  virtual EntropyCounts Count(int first_class, int last_class) const = 0;
  // [kClassCandidates, rows]: (i, r) is what the integers of row r cost with a class that is greater by
  // i - kClassReach.
  virtual Matrix<double> RowBits(const EntropyRates& rates) const = 0;
  // [kClassCandidates, cols]: the same of columns.
  virtual Matrix<double> ColumnBits(const EntropyRates& rates) const = 0;
};

// The matrix and n, its integers, [rows, cols] of type I16, must outlive them. They run where n is. Counts
// are the same on every device; sums of bits differ in the order of their FP64 additions.
std::unique_ptr<SymbolPasses> NewSymbolPasses(const EntropyFrame& matrix, ConstTensor n);

}  // namespace mica
