// The tokenizer of a model, checked against it.
#pragma once

#include <filesystem>

#include "io/text/tokenizer.h"
#include "model/config.h"

namespace mica {

// Opens the tokenizer of a model: the one at `tokenizer` (a directory with one, or a file) where that is
// given, else the one in the model's directory, or beside it when the model is a file. Throws Error when it
// has pieces that the model has no row for, other than added ones, which are then ordinary text; warns when
// the model has many more rows than padding explains.
Tokenizer OpenTokenizer(const std::filesystem::path& model, const ModelConfig& config,
                        const std::filesystem::path& tokenizer = {});
// Where that tokenizer is.
std::filesystem::path TokenizerPath(const std::filesystem::path& model,
                                    const std::filesystem::path& tokenizer = {});

}  // namespace mica
