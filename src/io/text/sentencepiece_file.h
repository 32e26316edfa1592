// What a tokenizer.model (a protocol buffer, sentencepiece_model.proto) says of its pieces, and of how a text is
// cut into them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mica {

struct SentencePiece {
  std::string text;  // blanks as U+2581
  float score = 0;
  // 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 a byte: the numbers of GGUF files as well.
  int32_t type = 1;
};

struct SentencePieceFile {
  std::vector<SentencePiece> pieces;         // by id
  int32_t unk = 0, bos = 1, eos = 2, pad = -1;  // -1: none
  // The defaults are those of fields that are absent.
  bool merges = false;           // TrainerSpec.model_type: BPE by score, else a unigram model
  bool blank_is_suffix = false;  // TrainerSpec.treat_whitespace_as_suffix
  bool byte_fallback = false;    // TrainerSpec.byte_fallback
  bool identity = true;          // NormalizerSpec.precompiled_charsmap is empty
  bool blank_in_front = true;    // NormalizerSpec.add_dummy_prefix, of a text
  bool removes_blanks = true;    // NormalizerSpec.remove_extra_whitespaces
  bool escapes_blanks = true;    // NormalizerSpec.escape_whitespaces
};

// Throws Error naming `where` for bytes that are no such buffer.
SentencePieceFile ParseSentencePieceFile(std::string_view bytes, const std::string& where);

}  // namespace mica
