#include "model/vocabulary.h"

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "io/container/checkpoint.h"

namespace mica {

std::filesystem::path TokenizerPath(const std::filesystem::path& model,
                                    const std::filesystem::path& tokenizer) {
  if (!tokenizer.empty()) return tokenizer;
  if (std::error_code code; std::filesystem::is_directory(model, code)) return model;
  return model.has_parent_path() ? model.parent_path() : std::filesystem::path(".");
}

Tokenizer OpenTokenizer(const std::filesystem::path& model, const ModelConfig& config,
                        const std::filesystem::path& of_tokenizer) {
  const std::filesystem::path directory = TokenizerPath(model, of_tokenizer);
  if (of_tokenizer.empty() && IsGgufModel(model) && !Tokenizer::IsIn(directory)) {
    Fail(
        "{}: its own vocabulary is not read; put the tokenizer.model of the original checkpoint beside it, "
        "or "
        "give its directory with --tokenizer to a command that has this option",
        model.string());
  }
  Tokenizer tokenizer = Tokenizer::Open(directory);
  const size_t pieces = static_cast<size_t>(tokenizer.vocab_size());
  if (pieces > config.vocab) {
    Fail("{}: the tokenizer has {} pieces, the model a vocabulary of {}; they do not belong together",
         directory.string(), pieces, config.vocab);
  }
  if (static_cast<size_t>(tokenizer.vocab_size_with_added()) > config.vocab)
    tokenizer.DropAddedFrom(static_cast<int32_t>(config.vocab));
  // Rows are filled up to a multiple of 64 to 256, rarely 1024, or kept for tokens to come.
  constexpr size_t kPadding = 1024;
  const size_t known = std::max(pieces, static_cast<size_t>(tokenizer.vocab_size_with_added()));
  if (config.vocab > known + kPadding) {
    LogWarningOnce(
        "{}: the tokenizer has {} pieces, the model a vocabulary of {}; is it the tokenizer of this model?",
        directory.string(), pieces, config.vocab);
  }
  return tokenizer;
}

}  // namespace mica
