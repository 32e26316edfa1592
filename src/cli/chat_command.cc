#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/output.h"
#include "base/system.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/generation_flags.h"
#include "cli/line_editor.h"
#include "cli/opened_model.h"
#include "generate/chat_template.h"
#include "generate/chat_tokens.h"
#include "generate/end_tokens.h"
#include "generate/session.h"
#include "model/vocabulary.h"
#include "record/options.h"

namespace mica {
namespace {

struct ChatOptions {
  CommonOptions common;
  std::filesystem::path model;
  Json generation = Json::object(), given = Json::object();
};

void Chat(ChatOptions& options) {
  ApplyCommonOptions(options.common);
  if (options.common.json) throw UsageError("--json is not for mica chat; mica generate has it");
  OpenedModel opened(options.model, GenerationValue(options.generation, "ctx"),
                           CacheBits(options.generation), options.common.device);
  const ChatTemplate chat = ChatTemplate::Open(opened.weights().checkpoint());
  const auto value = [&](const char* name) {
    const Json* found = ValueIn(options.given, FindOption(ChatOptionTable(), name));
    return found == nullptr ? std::string() : found->get<std::string>();
  };
  const Tokenizer tokenizer = OpenTokenizer(options.model, opened.weights().config(), value("tokenizer"));
  GenerationOptions generation = GenerationOptionsOf(options.generation, options.common.seed, false);
  generation.ends = EndTokens(opened.weights(), options.model, tokenizer);
  opened.Load();
  Session session(opened.running(), tokenizer, opened.context(), CacheBits(options.generation));

  std::vector<ChatMessage> messages;
  if (const std::string system = value("system"); !system.empty()) messages.push_back({"system", system});
  LineEditor editor("> ");
  while (const std::optional<std::string> line = editor.Next()) {
    if (line->empty()) continue;
    if (const size_t at = FirstInvalidUtf8(*line); at != std::string::npos) {
      LogWarning("the message is not UTF-8 at byte {}; it is left out", at);
      continue;
    }
    messages.push_back({"user", *line});
    ChatRequest request;
    request.messages = MessagesJson(messages);
    try {
      const std::vector<int32_t> ids = ChatTokens(chat.Render(request), tokenizer);
      const Generated answer = session.Continue(ids, generation, StreamStdout, InterruptRequested);
      StreamStdout("\n");
      LogInfo("{}; ends with \"{}\"", SpeedText(answer), FinishName(answer.finish));
      messages.push_back({"assistant", answer.text});
      // Ctrl-C ends the answer alone, another signal the program.
      if (answer.finish == Finish::kInterrupted) ForgetInterrupt();
      ThrowIfInterrupted();
    } catch (const Interrupted&) {
      throw;
    } catch (const Error& error) {
      if (!editor.terminal()) throw;
      LogWarning("{}", error.what());  // such as a message that is too long: another one may do
      messages.pop_back();
    }
  }
  ThrowIfInterrupted();
  if (editor.terminal()) StreamStdout("\n");
}

}  // namespace

Subcommand ChatCommand() {
  auto options = std::make_shared<ChatOptions>();
  return {.name = "chat",
          .help = "Talk to a model that has a chat template: a line of stdin is a message, Ctrl-C ends an answer",
          .arguments = {{"model", &options->model, "Checkpoint directory or GGUF file"}},
          .flags = {{ChatOptionTable(), &options->given},
                    {GenerationOptionTable(), &options->generation},
                    CommonFlags(options->common)},
          .run = [options] { Chat(*options); }};
}

}  // namespace mica
