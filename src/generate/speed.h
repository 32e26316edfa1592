// How fast a model runs and what memory it takes, measured alike wherever it is told.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/device.h"
#include "model/running_model.h"
#include "model/weights.h"

namespace mica {

struct Speed {
  double mean = 0, deviation = 0;  // tokens/s; 0: not measured
};

struct SpeedSettings {
  size_t prompt_tokens = 512;     // that pass through the model together; 0: none
  size_t generated_tokens = 128;  // one by one from an empty context; 0: none
  size_t repetitions = 5;         // of each, behind one that does not count
  int cache_bits = 16;            // of keys and values
  uint64_t seed = 0;              // of the tokens, which mean nothing: no speed depends on them

  // Tokens that the context must have room for.
  size_t Context() const;
};

struct RunningCost {
  uint64_t file_bytes = 0;       // of the stored tensors
  uint64_t weight_bytes = 0;     // that stay in memory
  uint64_t bytes_per_token = 0;  // of weights that a token reads
  double bits = 0;               // of those, a weight
  Speed prompt, decode;
};

// Measures a model that is in memory. Throws Interrupted after Ctrl-C.
RunningCost MeasureRunning(const ModelWeights& weights, const RunningModel& model,
                           const SpeedSettings& settings);

// Most memory that the process had since ResetPeakResidentBytes; on a GPU, that it ever had there.
uint64_t PeakBytesOn(Device device);

}  // namespace mica
