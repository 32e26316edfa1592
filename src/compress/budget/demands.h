// From statistics and a budget to the widths of every column: the allocation step, which needs neither
// weights nor calibration.
#pragma once

#include <cstdint>
#include <vector>

#include "compress/budget/allocation.h"
#include "compress/inform/statistics.h"
#include "format/mask/sparsity_pattern.h"
#include "model/config.h"

namespace mica {

// What a column's sensitivity counts.
struct SensitivitySettings {
  double energy_weight = 1.0;       // exponent of a column's energy: 0 ignores the inputs
  double information_weight = 1.0;  // a in energy * exp(-2 a I): 0 ignores information
};

// What the allocator is told of every matrix, in the order layer by layer, kLinearKinds within. The
// sensitivity of a column is fisher-weighted energy of its weights * H_jj * exp(-2 a I_j), a =
// settings.information_weight, tempered between matrices; unstructured sparsity is spread over the model
// (sparsity_plan.h).
std::vector<MatrixDemand> Demands(const Statistics& statistics, const ModelConfig& config,
                                  const SparsityPattern& sparsity, const SensitivitySettings& settings);

// Bits per weight of the compressed matrices that make the weight files `file_bytes` long, when everything
// else in them (embedding, head, norms, headers) takes `other_bytes`; negative when that is more.
double BitsPerWeightForFile(double file_bytes, uint64_t other_bytes, uint64_t compressed_weights);

// Weights in the matrices that are compressed.
uint64_t CompressedWeights(const ModelConfig& config);

}  // namespace mica
