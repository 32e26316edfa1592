// A model opened to run: for the commands that generate text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>

#include "base/json.h"
#include "device/device.h"
#include "model/running_model.h"
#include "model/weights.h"

namespace mica {

// Tokens of a context: what is asked for (a number), or where nothing is (null) the smaller of 4096 and the
// model's positions. Warns of more than the model has learnt.
size_t ContextTokens(const Json& asked, const ModelConfig& config);

class OpenedModel {
 public:
  // Says what memory it will take and throws Error where that is not there.
  OpenedModel(const std::filesystem::path& path, const Json& context, int cache_bits, Device device);
  // Reads all weights: behind all that may be wrong with what else was given.
  void Load();

  const ModelWeights& weights() const { return *weights_; }
  const RunningModel& running() const { return *running_; }
  size_t context() const { return context_; }
  double load_seconds() const { return load_seconds_; }
  uint64_t planned_bytes() const { return planned_bytes_; }
  // Most memory that the process had since this model was loaded; on a GPU, that it ever had there.
  uint64_t PeakBytes() const;

 private:
  std::unique_ptr<ModelWeights> weights_;  // does not move
  std::unique_ptr<RunningModel> running_;
  Device device_;
  size_t context_ = 0;
  double load_seconds_ = 0;
  uint64_t planned_bytes_ = 0;
};

}  // namespace mica
