// The tokenizer of a model, checked against it.
#pragma once

#include <filesystem>

#include "io/text/tokenizer.h"
#include "model/config.h"

namespace mica {

// Opens the tokenizer in the directory of a model. Throws Error when it has pieces that the model has no row
// for, other than added ones, which are then ordinary text; warns when the model has many more rows than
// padding explains.
Tokenizer OpenTokenizer(const std::filesystem::path& directory, const ModelConfig& config);

}  // namespace mica
