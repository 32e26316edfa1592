// The tokens that end a text, as the files of a model say.
#pragma once

#include <cstdint>
#include <filesystem>
#include <set>

#include "io/text/tokenizer.h"
#include "model/weights.h"

namespace mica {

// All of them: eos_token_id of generation_config.json and of config.json, the eos_token of
// tokenizer_config.json, the eos, eot and eom tokens of a GGUF file. Each file may know another one.
std::set<int32_t> EndTokens(const ModelWeights& weights, const std::filesystem::path& model,
                            const Tokenizer& tokenizer);

}  // namespace mica
