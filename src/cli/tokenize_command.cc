#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/output.h"
#include "base/text.h"
#include "cli/commands.h"
#include "io/text/tokenizer.h"
#include "model/vocabulary.h"
#include "record/options.h"

namespace mica {
namespace {

struct TokenizeOptions {
  std::filesystem::path model;
  std::filesystem::path file;
  Json given = Json::object();
};

void Tokenize(const TokenizeOptions& options) {
  const auto is_set = [&](const char* name) {
    return ValueOf(options.given, FindOption(TokenizingOptionTable(), name)).get<bool>();
  };
  const Tokenizer tokenizer = OpenTokenizer(options.model);
  const std::string text = options.file == "-" ? ReadStdin() : ReadFile(options.file);
  if (const size_t at = FirstInvalidUtf8(text); at != std::string::npos) {
    Fail("{}: is not UTF-8 at byte {}; convert it first", options.file.string(), at);
  }
  std::vector<int32_t> ids =
      is_set("special-tokens") ? tokenizer.EncodeWithSpecial(text) : tokenizer.Encode(text);
  const Json* bos = ValueIn(options.given, FindOption(TokenizingOptionTable(), "bos"));
  if (bos != nullptr ? bos->get<bool>() : tokenizer.text_bos().has_value())
    ids.insert(ids.begin(), tokenizer.bos());
  std::string line = "[";
  for (size_t i = 0; i < ids.size(); ++i) line += (i == 0 ? "" : ",") + std::to_string(ids[i]);
  WriteStdout(line + "]\n");
}

}  // namespace

Subcommand TokenizeCommand() {
  auto options = std::make_shared<TokenizeOptions>();
  return {.name = "tokenize",
          .help = "Print the token ids of a text as a JSON array",
          .arguments = {{"model", &options->model, "Checkpoint directory, GGUF file, tokenizer.model or tokenizer.json"},
                        {"file", &options->file, "UTF-8 text, taken as it is; - for standard input"}},
          .flags = {{TokenizingOptionTable(), &options->given}},
          .run = [options] { Tokenize(*options); }};
}

}  // namespace mica
