// Which model it is: what is read of a checkpoint, whatever files it lies in.
#pragma once

#include <cstddef>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "model/weights.h"

namespace mica {

// SHA-256, 64 hexadecimal digits, over what ModelConfig says of the architecture, the facts of each packed
// matrix and, sorted by name, each tensor's name, dtype, shape and the SHA-256 of its bytes. The same for a
// sharded copy or a .bin copy of the same weights (a GGUF file stores them otherwise); keys of config.json and tensors that no layer reads do not
// count. Reads every byte once, and checks that what the model reads is finite, so that nothing of long work
// is lost to a fault of the last tensor; throws Error that names the tensor and the place.
std::string ModelFingerprint(const ModelWeights& weights);

// The same in two steps, of which the first, which reads, can be shared by ranks. Of all tensors that count, by name:
// the SHA-256 of those that `rank` of `size` has, nothing for the others. When asked to stop it throws Error after the
// tensors that it is at.
std::vector<std::string> TensorHashes(const ModelWeights& weights, size_t rank, size_t size, const std::stop_token& stop);
// hashes: of all of them.
std::string ModelFingerprint(const ModelWeights& weights, std::span<const std::string> hashes);

}  // namespace mica
