#include "compress/coder/coder.h"

#include <numeric>

#include "compress/budget/demands.h"

namespace mica {

double Coder::BudgetPerWeight(uint64_t other_bytes) const {
  if (!counts_file()) return task_.budget.value;
  return BitsPerWeightForFile(task_.budget.value, other_bytes, CompressedWeights(config_));
}

MatrixRecord RecordOf(const PackedMatrix& packed, size_t rows, size_t cols, double code_bits,
                      const InputStatistics& input) {
  const double weights = static_cast<double>(rows) * static_cast<double>(cols);
  MatrixRecord record;
  record.rows = rows;
  record.cols = cols;
  record.mean_code_bits = code_bits / weights;
  record.bits_per_weight = static_cast<double>(packed.bits()) / weights;
  record.mean_information = std::accumulate(input.information.begin(), input.information.end(), 0.0) /
                            static_cast<double>(input.information.size());
  return record;
}

}  // namespace mica
