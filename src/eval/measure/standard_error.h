// The standard error of a mean.
#pragma once

#include <vector>

namespace mica {

// Standard error of the mean of at least two values.
double StandardError(const std::vector<double>& values);

}  // namespace mica
