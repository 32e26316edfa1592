// The vocabulary of a tokenizer.json as a GGUF file holds it.
#pragma once

#include <cstddef>
#include <filesystem>

#include "io/text/gguf_vocabulary.h"
#include "io/text/tokenizer_companions.h"

namespace mica {

// Of byte-level BPE model "gpt2", cut by one of the ways that have a name (io/text/pre_kinds.h); of BPE over
// characters with pieces for bytes, as SentencePiece's vocabularies become tokenizer.json, model "llama" with
// minus the merge's rank for a score. tokens: `rows` of them, the rest filled up with "[PAD32000]". bos is
// the token that its files name. Throws Error for a tokenizer that a GGUF file cannot hold, naming what of
// it, and when a text of all kinds is not cut alike by the vocabulary that was made; warns of what is left
// out.
GgufVocabulary VocabularyOfTokenizerJson(const std::filesystem::path& path,
                                         const TokenizerCompanions& companions, size_t rows);

}  // namespace mica
