#include "model/vocabulary.h"

#include <algorithm>
#include <system_error>

#include "base/error.h"
#include "base/file_kind.h"
#include "base/log.h"
#include "io/container/checkpoint.h"
#include "io/container/hub_cache.h"
#include "io/container/read_vocabulary.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

bool IsGgufFile(const fs::path& path) {
  std::error_code code;
  return !fs::is_directory(path, code) && IsGgufModel(path);
}

// The tokenizer's files in a directory, or what else it is read from; empty where there is none.
fs::path TokenizerIn(const fs::path& directory) {
  if (Tokenizer::IsIn(directory)) return directory;
  if (IsPresent(directory / kVocabularyFile)) return directory / kVocabularyFile;
  return {};
}

}  // namespace

fs::path TokenizerPath(const fs::path& model) {
  const fs::path path = SnapshotOf(model);
  std::error_code code;
  if (fs::is_directory(path, code)) {
    const fs::path found = TokenizerIn(path);
    return found.empty() ? path : found;
  }
  const fs::path directory = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const fs::path beside = TokenizerIn(directory);
  if (path.filename() == kVocabularyFile || (beside.empty() && IsGgufFile(path))) return path;
  return beside.empty() ? directory : beside;
}

bool HasTokenizer(const fs::path& model) {
  const fs::path path = TokenizerPath(model);
  if (Tokenizer::IsIn(path)) return true;
  return IsGgufModel(path) && HasGgufVocabulary(*Checkpoint::Open(path).gguf());
}

Tokenizer OpenTokenizer(const fs::path& path) {
  std::error_code code;
  const bool is_file = fs::is_regular_file(path, code) && !IsGgufFile(path);
  const fs::path found = is_file ? path : TokenizerPath(path);
  if (is_file || Tokenizer::IsIn(found) || !IsGgufModel(found)) return Tokenizer::Open(found);
  return FromGguf(ReadGgufVocabulary(*Checkpoint::Open(found).gguf(), found.string()), found.string());
}

Tokenizer OpenTokenizer(const fs::path& model, const ModelConfig& config, const fs::path& of_tokenizer) {
  const fs::path& source = of_tokenizer.empty() ? model : of_tokenizer;
  Tokenizer tokenizer = OpenTokenizer(source);
  const size_t pieces = static_cast<size_t>(tokenizer.vocab_size());
  if (pieces > config.vocab) {
    Fail("{}: the tokenizer has {} pieces, the model a vocabulary of {}; they do not belong together",
         source.string(), pieces, config.vocab);
  }
  if (static_cast<size_t>(tokenizer.vocab_size_with_added()) > config.vocab)
    tokenizer.DropAddedFrom(static_cast<int32_t>(config.vocab));
  // Rows are filled up to a multiple of 64 to 256, rarely 1024, or kept for tokens to come.
  constexpr size_t kPadding = 1024;
  const size_t known = std::max(pieces, static_cast<size_t>(tokenizer.vocab_size_with_added()));
  if (config.vocab > known + kPadding) {
    LogWarningOnce(
        "{}: the tokenizer has {} pieces, the model a vocabulary of {}; is it the tokenizer of this model?",
        source.string(), pieces, config.vocab);
  }
  return tokenizer;
}

}  // namespace mica
