// The tokenizer of a checkpoint directory as keys of a GGUF file.
#pragma once

#include <filesystem>
#include <vector>

#include "io/container/gguf.h"
#include "model/config.h"

namespace mica {

// All keys tokenizer.*: of tokenizer.model (SentencePiece, BPE) its pieces with scores and types, of
// tokenizer.json (BPE) what json_vocabulary.h says; tokens that the files beside it add, as many more as the
// model has rows ("[PAD32000]"), ids of the special tokens, whether a text begins with BOS and a blank, the
// chat template; of a vocabulary that was kept of a GGUF file what it has. A directory without a tokenizer
// gives "no_vocab", with a warning. Throws Error for one of another kind, and for one that does not belong to
// the model.
std::vector<GgufKey> TokenizerKeysOf(const std::filesystem::path& directory, const ModelConfig& config);

// Those of a GGUF file, as they are.
std::vector<GgufKey> TokenizerKeysIn(const std::vector<GgufKey>& keys);
// Writes them as a GGUF file without tensors, if they are of a vocabulary.
void WriteVocabularyFile(const std::vector<GgufKey>& keys, const std::filesystem::path& out);

}  // namespace mica
