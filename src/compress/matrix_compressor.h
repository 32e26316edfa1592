// Compresses one matrix after the other under the budget of the whole model, in either coding, and packs it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/json.h"
#include "compress/budget/allocation.h"
#include "compress/budget/rate_control.h"
#include "compress/calibrate/drift.h"
#include "compress/inform/statistics.h"
#include "compress/settings.h"
#include "io/packed/packed_checkpoint.h"
#include "model/config.h"
#include "model/weights.h"

namespace mica {

// Throws Error when no widths can meet the budget, whatever the model's weights and inputs are: known before
// any work. other_bytes: what the files hold at least besides the matrices.
void CheckBudget(const CompressionSettings& settings, const ModelConfig& config, uint64_t other_bytes);

class MatrixCompressor {
 public:
  // Plans all matrices. With a budget in file bytes, `other_bytes` is what the files hold besides the
  // matrices. Throws Error when the budget is out of reach.
  MatrixCompressor(const CompressionSettings& settings, const ModelConfig& config,
                   const Statistics& statistics, uint64_t other_bytes);

  // Bits per weight that the plan stores.
  double planned_bits_per_weight() const { return planned_bits_per_weight_; }

  // With a budget in file bytes: the files hold other bytes besides the matrices than was thought when this
  // was made. Called before a layer.
  void SetOtherBytes(size_t layer, uint64_t other_bytes, uint64_t matrix_bytes_so_far);

  // Compresses w, adds it to `shard`, adds its facts to `linears`. Matrices must come layer by layer in the
  // order of kLinearKinds, each once: by Compress, or by Replay when an earlier run did it. Returns the
  // weights as a reader of the file gets them.
  Matrix<float> Compress(size_t layer, LinearKind kind, MatrixView<const float> w, MatrixView<const float> h,
                         PackedShard& shard, Json& linears);
  void Replay(size_t layer, const Json& linears);

 private:
  Matrix<float> CompressFixed(size_t layer, LinearKind kind, MatrixView<const float> w,
                              MatrixView<const float> h, PackedShard& shard, Json& facts);
  Matrix<float> CompressEntropy(size_t layer, LinearKind kind, MatrixView<const float> w,
                                MatrixView<const float> h, PackedShard& shard, Json& facts);

  const CompressionSettings settings_;
  const ModelConfig& config_;
  const Statistics& statistics_;
  double planned_bits_per_weight_ = 0;
  std::vector<MatrixDemand> demands_;   // fixed
  Allocation allocation_;               // fixed
  std::optional<RateControl> control_;  // entropy
  double budget_bits_ = 0;              // entropy
};

}  // namespace mica
