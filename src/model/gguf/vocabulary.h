// The tokenizer of a checkpoint directory as keys of a GGUF file.
#pragma once

#include <filesystem>
#include <vector>

#include "io/container/gguf.h"
#include "model/config.h"

namespace mica {

// All keys tokenizer.*: of a SentencePiece tokenizer (tokenizer.model, BPE) its pieces with scores and types,
// tokens that the files beside it add, as many more as the model has rows ("[PAD32000]"), ids of the special
// tokens, whether a text begins with BOS and a blank, the chat template. A directory without a tokenizer
// gives "no_vocab", with a warning. Throws Error for one of another kind, and for one that does not belong to
// the model.
std::vector<GgufKey> TokenizerKeysOf(const std::filesystem::path& directory, const ModelConfig& config);

// Those of a GGUF file, as they are.
std::vector<GgufKey> TokenizerKeysIn(const std::vector<GgufKey>& keys);

}  // namespace mica
