// What the report says of compressed matrices, one by one and together.
#pragma once

#include <map>
#include <string>

#include "base/json.h"
#include "compress/entropy/solver.h"
#include "compress/fixed/solver.h"
#include "compress/inform/statistics.h"
#include "format/entropy/entropy_matrix.h"
#include "format/fixed/fixed_matrix.h"

namespace mica {

// One matrix of the report: {"rows", "cols", "mean_code_bits", "bits_per_weight", "zero_share", "histogram":
// {"4": weights}, "relative_error", "predicted_loss", "measured_loss", "dead_channels", "damping_doublings",
// "groups", "silhouette", "mean_information" (nats)}.
Json FixedMatrixFacts(const FixedMatrix& matrix, uint64_t stored_bits, const SolverReport& solved,
                      const InputStatistics& input);
// The same of coding `entropy`: mean_code_bits counts the coded integers, code_bits bits; the histogram of
// widths is empty.
Json EntropyMatrixFacts(const EntropyMatrix& matrix, uint64_t stored_bits, uint64_t code_bits,
                        const StepReport& solved, const StepPlan& plan, const InputStatistics& input);

// Sums over matrices: {"weights", "mean_code_bits", "bits_per_weight", "zero_share", "histogram"}; `layers`
// is the report's "layers" array.
Json TotalFacts(const Json& layers);

}  // namespace mica
