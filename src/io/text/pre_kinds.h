// The ways to cut a text into words that GGUF files have names for: values of tokenizer.ggml.pre, which
// llama.cpp knows by heart.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace mica {

// GPT-2's expression, by which the pre-tokenizer ByteLevel of tokenizer.json cuts as well.
inline constexpr std::string_view kGpt2Expression =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct PreKind {
  std::string_view name;
  // Each cuts what the ones before it have left in one piece.
  std::span<const std::string_view> expressions;
  bool implies_bos = false;    // where add_bos_token does not say
  bool ignore_merges = false;  // a word that is a token is taken whole
};

std::span<const PreKind> PreKinds();

// The first that cuts by these expressions; null when there is none.
const PreKind* FindPreKind(std::span<const std::string> expressions, bool ignore_merges);

}  // namespace mica
