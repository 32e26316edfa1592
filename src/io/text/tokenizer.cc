#include "io/text/tokenizer.h"

#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/file_kind.h"
#include "base/text.h"
#include "io/text/sentence_piece.h"
#include "io/text/tokenizer_companions.h"
#include "io/text/tokenizer_json.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr const char* kModelName = "tokenizer.model";
constexpr const char* kJsonName = "tokenizer.json";
constexpr uint64_t kMaxModelBytes = uint64_t{64} << 20;

[[noreturn]] void RefuseWithoutTokenizer(const fs::path& directory) {
  if (IsPresent(directory / "vocab.json") && IsPresent(directory / "merges.txt")) {
    Fail("{}: has vocab.json and merges.txt but neither {} nor {}; fetch {} as well", directory.string(),
         kModelName, kJsonName, kJsonName);
  }
  Fail("{}: has no {} and no {}; copy it from the original checkpoint", directory.string(), kModelName,
       kJsonName);
}

void CheckUtf8(std::string_view text) {
  if (const size_t at = FirstInvalidUtf8(text); at != std::string_view::npos)
    Fail("the text is not UTF-8 at byte {}; convert it first", at);
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<TextEncoder> encoder) : encoder_(std::move(encoder)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

bool Tokenizer::IsIn(const fs::path& directory) {
  std::error_code code;
  return fs::exists(directory / kModelName, code) || fs::exists(directory / kJsonName, code);
}

Tokenizer Tokenizer::Open(const fs::path& path) {
  const bool in_directory = fs::is_directory(path);
  fs::path file = path;
  if (in_directory) {
    file = path / kModelName;
    if (!IsPresent(file)) file = path / kJsonName;
    if (!IsPresent(file)) RefuseWithoutTokenizer(path);
  }
  const TokenizerCompanions companions = in_directory ? ReadTokenizerCompanions(path) : TokenizerCompanions();
  if (file.extension() == ".json") {
    return Tokenizer(std::make_unique<BpeEncoder>(
        ReadTokenizerJson(ReadFile(file, kMaxTokenizerJsonBytes), companions, file.string())));
  }
  auto encoder = std::make_unique<SentencePieceEncoder>(ReadFile(file, kMaxModelBytes), file.string());
  if (in_directory) encoder->Take(companions);
  return Tokenizer(std::move(encoder));
}

Tokenizer Tokenizer::Parse(const std::string& model, const std::string& where) {
  return Tokenizer(std::make_unique<SentencePieceEncoder>(model, where));
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text) const {
  CheckUtf8(text);
  return encoder_->Encode(text, false);
}

std::vector<int32_t> Tokenizer::EncodeWithSpecial(std::string_view text) const {
  CheckUtf8(text);
  return encoder_->Encode(text, true);
}

TextTokens Tokenizer::EncodeWithBytes(std::string_view text, bool special) const {
  CheckUtf8(text);
  return encoder_->EncodeWithBytes(text, special);
}

std::string Tokenizer::Decode(const std::vector<int32_t>& ids) const { return encoder_->Decode(ids); }

bool Tokenizer::has_bos() const { return encoder_->bos().has_value(); }

int32_t Tokenizer::bos() const {
  const std::optional<int32_t> bos = encoder_->bos();
  if (!bos) Fail("the tokenizer has no token that begins a text (BOS)");
  return *bos;
}

std::optional<int32_t> Tokenizer::text_bos() const {
  return encoder_->adds_bos() ? std::optional(bos()) : std::nullopt;
}

int32_t Tokenizer::vocab_size() const { return encoder_->vocab_size(); }

int32_t Tokenizer::vocab_size_with_added() const { return encoder_->vocab_size_with_added(); }

void Tokenizer::DropAddedFrom(int32_t id) { encoder_->DropAddedFrom(id); }

const std::string& Tokenizer::fingerprint() const { return encoder_->fingerprint(); }

}  // namespace mica
