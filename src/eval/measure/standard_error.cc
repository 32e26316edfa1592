#include "eval/measure/standard_error.h"

#include <algorithm>
#include <cmath>

namespace mica {

double StandardError(const std::vector<double>& values) {
  const auto count = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double value : values) sum += value, squares += value * value;
  return std::sqrt(std::max(0.0, squares - sum * sum / count) / (count - 1) / count);
}

}  // namespace mica
