// tokenizer.json as it is parsed, before it is understood (tokenizer_json.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"

namespace mica {

inline constexpr uint64_t kMaxTokenizerJsonBytes = uint64_t{256} << 20;

// The two large parts are kept apart: as JSON they would take twenty times their room.
struct TokenizerJsonFile {
  Json json;                                                // without model.vocab and model.merges
  std::vector<std::pair<std::string, int64_t>> vocab;       // tokens as the file writes them, and ids
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  bool has_vocab = false, has_merges = false;
};

// Throws Error naming `where` for what is no JSON, or has something else in the two parts.
TokenizerJsonFile ParseTokenizerJson(std::string_view text, const std::string& where);

}  // namespace mica
