#include "compress/coder/coder.h"

#include <cmath>
#include <numeric>

#include "base/error.h"
#include "compress/budget/demands.h"

namespace mica {
namespace {

constexpr double kCloseToMost = 0.01;  // bits a weight by which a budget may exceed what can be used
constexpr double kRounding = 1e-6;     // bits that a budget in decimals may be off by

}  // namespace

uint64_t Coder::PlannedWeights() const { return CompressedWeights(config_); }

double Coder::BudgetPerWeight(const OtherBytes& other, const Reach& reach, uint64_t weights,
                              uint64_t matrix_bytes) const {
  const double value = task_.budget.value, count = static_cast<double>(weights);
  const auto fits = [&](double budget) {
    return budget * count + kRounding >= reach.least * count && budget <= reach.most + kCloseToMost;
  };
  if (!counts_file()) {
    if (fits(value)) return value;
    // Rounded so that what is named is possible.
    const double least = std::ceil(reach.least * 1000) / 1000;
    const std::string expected = std::isinf(reach.most)
                                     ? fmt::format("at least {}", least)
                                     : fmt::format("{} to {}", least, std::floor(reach.most * 1000) / 1000);
    Fail("--{} is {}, expected {} for {}", BudgetOption(task_.budget.target), value, expected, limits());
  }
  for (const uint64_t besides : {other.expected, other.least}) {
    const double left = BitsPerWeightForFile(value, besides + matrix_bytes, weights);
    if (fits(left)) return left;
  }
  const auto file_bytes = [&](double bits) {
    return static_cast<double>(other.least + matrix_bytes) + bits * count / 8;
  };
  const std::string expected = std::isinf(reach.most)
                                   ? fmt::format("at least {:.0f}", std::ceil(file_bytes(reach.least)))
                                   : fmt::format("{:.0f} to {:.0f}", std::ceil(file_bytes(reach.least)),
                                                 std::floor(file_bytes(reach.most)));
  Fail("--size is {:.0f} bytes, expected {} for {}; embedding, head, norms and headers take {} of them",
       value, expected, limits(), other.least);
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
