// Which model it is: what is read of a checkpoint, whatever files it lies in.
#pragma once

#include <stop_token>
#include <string>

#include "model/weights.h"

namespace mica {

// SHA-256, 64 hexadecimal digits, over what ModelConfig says of the architecture, the facts of each packed
// matrix and, sorted by name, each tensor's name, dtype, shape and the SHA-256 of its bytes. The same for a
// sharded copy or a .bin copy of the same weights (a GGUF file stores them otherwise); keys of config.json and tensors that no layer reads do not
// count. Reads every byte once, and checks that what the model reads is finite, so that nothing of long work
// is lost to a fault of the last tensor; throws Error that names the tensor and the place.
// When asked to stop it throws Error after the tensors that it is at.
std::string ModelFingerprint(const ModelWeights& weights, const std::stop_token& stop = {});

}  // namespace mica
