// The vocabulary that the keys of a GGUF file hold.
#pragma once

#include <string>
#include <vector>

#include "io/container/gguf.h"
#include "io/text/gguf_vocabulary.h"

namespace mica {

// Whether the keys tokenizer.ggml.* are of a vocabulary: false for a file without one ("no_vocab").
bool HasGgufVocabulary(const std::vector<GgufKey>& keys);

// Throws Error naming `where` and the key: there is none, or a value is of another type.
GgufVocabulary ReadGgufVocabulary(const std::vector<GgufKey>& keys, const std::string& where);

}  // namespace mica
