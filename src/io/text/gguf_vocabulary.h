// The vocabulary inside a GGUF file, as llama.cpp reads it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/text/tokenizer.h"

namespace mica {

// Its tokenizer.ggml.* keys.
struct GgufVocabulary {
  std::string model;                // "llama" (merging by score) or "gpt2" (byte-level, by rank)
  std::string pre;                  // of "gpt2": by which expressions a text is cut; may be missing
  std::vector<std::string> tokens;  // [tokens]
  std::vector<int32_t>
      token_type;             // [tokens] 1 normal 2 unknown 3 control 4 user-defined 5 unused 6 byte; or none
  std::vector<float> scores;  // [tokens] of "llama"
  std::vector<std::string> merges;  // "a b", of "gpt2"
  std::optional<uint32_t> bos;      // bos_token_id
  std::optional<bool> add_bos;      // add_bos_token
  std::optional<bool> add_space_prefix;
};

// Throws Error naming `where`, the key and what is wrong with it; models and values of `pre` that are not
// known are named. As llama.cpp, and unlike the original tokenizers of Qwen, it does not normalise a text.
Tokenizer FromGguf(const GgufVocabulary& vocabulary, const std::string& where);

}  // namespace mica
