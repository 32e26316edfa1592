#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/output.h"
#include "base/system.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/generation_flags.h"
#include "cli/opened_model.h"
#include "generate/end_tokens.h"
#include "generate/session.h"
#include "model/vocabulary.h"
#include "record/options.h"

namespace mica {
namespace {

struct GenerateOptions {
  CommonOptions common;
  std::filesystem::path model, file;
  Json generation = Json::object(), prompt = Json::object();
};

std::string ReadPrompt(const GenerateOptions& options) {
  const Json* prompt = ValueIn(options.prompt, FindOption(PromptOptionTable(), "prompt"));
  const Json* flag = ValueIn(options.prompt, FindOption(PromptOptionTable(), "file"));
  const int sources =
      (prompt == nullptr ? 0 : 1) + (flag == nullptr ? 0 : 1) + (options.file.empty() ? 0 : 1);
  if (sources != 1)
    throw UsageError(sources == 0 ? "no prompt is given; give --prompt TEXT, -f FILE, or - for standard input"
                                  : "more than one prompt is given; give one of --prompt, -f and FILE");
  if (prompt != nullptr) return prompt->get<std::string>();  // an empty one, too, is a prompt
  const std::string file = flag == nullptr ? options.file.string() : flag->get<std::string>();
  std::string text = file == "-" ? ReadStdin() : ReadFile(file);
  if (const size_t at = FirstInvalidUtf8(text); at != std::string::npos)
    Fail("{}: is not UTF-8 at byte {}; convert it first", file, at);
  return text;
}

Json ToJson(const Generated& generated, const OpenedModel& opened, const Tokenizer& tokenizer) {
  Json tokens = Json::array();
  for (const GeneratedToken& token : generated.tokens) {
    Json one = {{"id", token.id}, {"text", token.text}};
    if (!token.alternatives.empty()) {
      one["log_probability"] = token.log_probability;
      Json top = Json::array();
      for (const TokenChance& chance : token.alternatives) {
        const std::string text = tokenizer.Decode({chance.id});
        top.push_back({{"id", chance.id},
                       {"text", FirstInvalidUtf8(text) == std::string::npos ? Json(text) : Json()},
                       {"log_probability", chance.log_probability}});
      }
      one["top"] = std::move(top);
    }
    tokens.push_back(std::move(one));
  }
  const size_t read = generated.prompt_tokens - generated.reused_tokens;
  return {{"text", generated.text},
          {"finish", FinishName(generated.finish)},
          {"prompt_tokens", generated.prompt_tokens},
          {"tokens", std::move(tokens)},
          {"seconds",
           {{"load", opened.load_seconds()},
            {"first_token", generated.prompt_seconds},
            {"decode", generated.decode_seconds}}},
          {"tokens_per_second",
           {{"prompt", generated.prompt_seconds > 0 ? static_cast<double>(read) / generated.prompt_seconds : 0.0},
            {"decode", generated.decode_seconds > 0
                           ? static_cast<double>(generated.tokens.size() - 1) / generated.decode_seconds
                           : 0.0}}},
          {"memory",
           {{"weights", opened.running().weight_bytes()},
            {"planned", opened.planned_bytes()},
            {"peak", opened.PeakBytes()}}}};
}

void Generate(GenerateOptions& options) {
  ApplyCommonOptions(options.common);
  const std::string text = ReadPrompt(options);
  GenerationOptions generation =
      GenerationOptionsOf(options.generation, options.common.seed, options.common.json);
  OpenedModel opened(options.model, GenerationValue(options.generation, "ctx"),
                           CacheBits(options.generation), options.common.device);
  const Json* own = ValueIn(options.prompt, FindOption(PromptOptionTable(), "tokenizer"));
  const Tokenizer tokenizer = OpenTokenizer(options.model, opened.weights().config(),
                                            own == nullptr ? "" : own->get<std::string>());
  generation.ends = EndTokens(opened.weights(), options.model, tokenizer);
  const bool special =
      ValueOf(options.prompt, FindOption(PromptOptionTable(), "special-tokens")).get<bool>();
  const std::vector<int32_t> ids = PromptTokens(tokenizer, text, special);
  CheckPrompt(ids.size(), opened.context());
  opened.Load();
  Session session(opened.running(), tokenizer, opened.context(), CacheBits(options.generation));
  const bool json = options.common.json;
  const Generated generated = session.Continue(
      ids, generation, [&](const std::string& piece) { if (!json) StreamStdout(piece); }, InterruptRequested);
  if (json) {
    WriteStdout(JsonText(ToJson(generated, opened, tokenizer)));
  } else if (!generated.text.ends_with('\n')) {
    StreamStdout("\n");
  }
  LogInfo("{}; ends with \"{}\"; memory {}", SpeedText(generated), FinishName(generated.finish),
          FormatBytes(static_cast<double>(opened.PeakBytes())));
  if (generated.finish == Finish::kInterrupted) ThrowIfInterrupted();
}

}  // namespace

Subcommand GenerateCommand() {
  auto options = std::make_shared<GenerateOptions>();
  return {.name = "generate",
          .help = "Continue a text, from packed weights or from any checkpoint that mica reads",
          .arguments = {{"model", &options->model, "Checkpoint directory or GGUF file"},
                        {"text", &options->file, "File with the text to continue, - for standard input", false}},
          .flags = {{PromptOptionTable(), &options->prompt},
                    {GenerationOptionTable(), &options->generation},
                    CommonFlags(options->common)},
          .run = [options] { Generate(*options); }};
}

}  // namespace mica
