// What the files beside a tokenizer say of it: tokenizer_config.json and added_tokens.json.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "io/text/added_tokens.h"

namespace mica {

struct TokenizerCompanions {
  std::optional<bool> adds_bos;    // add_bos_token
  std::optional<std::string> bos;  // text of bos_token
  std::vector<AddedToken> added;   // of both files; some may be pieces of the vocabulary
};

// Of those that are there. Throws Error.
TokenizerCompanions ReadTokenizerCompanions(const std::filesystem::path& directory);

}  // namespace mica
