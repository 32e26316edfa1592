// The tokenizer of a model, checked against it.
#pragma once

#include <filesystem>

#include "io/text/tokenizer.h"
#include "model/config.h"

namespace mica {

// Where the tokenizer of a model or a directory is: its own files (tokenizer.model, tokenizer.json,
// kVocabularyFile), for a file those beside it, else the vocabulary that a GGUF file or the only GGUF model
// of a directory has. Opening it says so where there is none.
std::filesystem::path TokenizerPath(const std::filesystem::path& model);
// Whether there is one.
bool HasTokenizer(const std::filesystem::path& model);
// Opens the one at TokenizerPath; `path` may also be a tokenizer.model or tokenizer.json. Throws Error.
Tokenizer OpenTokenizer(const std::filesystem::path& path);

// Opens the tokenizer of a model: the one of `tokenizer` where that is given, else its own. Throws Error when
// it has pieces that the model has no row for, other than added ones, which are then ordinary text; warns
// when the model has many more rows than padding explains.
Tokenizer OpenTokenizer(const std::filesystem::path& model, const ModelConfig& config,
                        const std::filesystem::path& tokenizer = {});

}  // namespace mica
