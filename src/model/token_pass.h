// The work of one token more on a CUDA device, which is the same for every token of a text.
#pragma once

#include <cstdint>

#include "device/array.h"
#include "device/recorded_work.h"
#include "model/layer.h"

namespace mica {

// A cache's, kept from token to token. RunningModel records the work when it has been done once, so that all
// memory is there, and then gives it to the device at once.
struct TokenPass {
  // What addresses in recorded work depend on beside the cache: the model, the thread, and which tables of
  // angles the layers have.
  struct Owner {
    uint64_t model = 0, thread = 0, tables = 0;
    bool operator==(const Owner&) const = default;
  };
  Owner owner;
  Array x;                    // [1, hidden] FP32, the residual stream
  PassMemory memory;          // of the layers
  Array logits, logits_here;  // [1, vocab] FP32, on the device and on the processor
  RecordedWork work;          // from the embedding in x to the logits
  bool recordable = true;
};

}  // namespace mica
