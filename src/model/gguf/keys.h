// The configuration of a model as keys of a GGUF file, both ways.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/container/checkpoint.h"
#include "model/config.h"
#include "model/gguf/architecture.h"

namespace mica {

// general.architecture of a GGUF checkpoint. Throws Error for one that mica does not compute, and for files
// that hold no model (importance matrices, adapters, projectors, vocabularies).
const GgufArchitecture& ReadGgufArchitecture(const Checkpoint& checkpoint);

// What its keys and its tensors (rope_freqs.weight; a head or none) say, as the config.json of such a model
// would. Throws Error naming file, key, value and what is supported; keys that would change what is computed
// in a way that mica does not know are refused.
ModelConfig ReadGgufConfig(const Checkpoint& checkpoint);

// The first file of a GGUF checkpoint, for messages.
std::string GgufFileName(const Checkpoint& checkpoint);

// general.architecture, general.type, general.name and all keys of the architecture; not those of the
// tokenizer and of the types of tensors. Warns of what a GGUF file cannot say (sliding windows).
std::vector<GgufKey> ConfigKeysOf(const ModelConfig& config, const std::string& name);

}  // namespace mica
