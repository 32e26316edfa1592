#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/output.h"
#include "cli/commands.h"
#include "io/text/text.h"
#include "io/text/tokenizer.h"

namespace mica {
namespace {

struct TokenizeOptions {
  std::filesystem::path model;
  std::filesystem::path file;
  bool bos = true;
  bool special = false;
};

std::string ReadText(const std::filesystem::path& file) {
  if (file != "-") return ReadFile(file);
  std::string text;
  char block[65536];
  while (const size_t count = std::fread(block, 1, sizeof(block), stdin)) text.append(block, count);
  if (std::ferror(stdin) != 0) Fail("standard input cannot be read");
  return text;
}

// Without a word from the caller, a text begins as the tokenizer's files say.
void Tokenize(const TokenizeOptions& options, std::optional<bool> bos) {
  const Tokenizer tokenizer = Tokenizer::Open(options.model);
  const std::string text = ReadText(options.file);
  if (const size_t at = FirstInvalidUtf8(text); at != std::string::npos) {
    Fail("{}: is not UTF-8 at byte {}; convert it first", options.file.string(), at);
  }
  std::vector<int32_t> ids = options.special ? tokenizer.EncodeWithSpecial(text) : tokenizer.Encode(text);
  if (bos.value_or(tokenizer.text_bos().has_value())) ids.insert(ids.begin(), tokenizer.bos());
  std::string line = "[";
  for (size_t i = 0; i < ids.size(); ++i) line += (i == 0 ? "" : ",") + std::to_string(ids[i]);
  WriteStdout(line + "]\n");
}

}  // namespace

void AddTokenizeCommand(CLI::App& app) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App& command = *app.add_subcommand("tokenize", "Print the token ids of a text as a JSON array");
  command.add_option("model", options->model, "Checkpoint directory or tokenizer.model")->required();
  command.add_option("file", options->file, "UTF-8 text, taken as it is; - for standard input")->required();
  const CLI::Option* bos =
      command.add_flag("--bos,!--no-bos", options->bos,
                       "Put the token that begins a text in front\n[as tokenizer_config.json says]");
  command.add_flag("--special", options->special,
                   "\"<s>\", \"</s>\" and \"<unk>\" in the text become control tokens, as Hugging Face's "
                   "tokenizer does it");
  command.callback(
      [options, bos] { Tokenize(*options, bos->count() > 0 ? std::optional(options->bos) : std::nullopt); });
}

}  // namespace mica
