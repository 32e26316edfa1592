// The chat template that a checkpoint comes with: messages to the text that the model was trained on.
//
// The template owns BOS: its text is tokenised as it is, and the caller puts no BOS in front of it, as
// transformers does not (a template that writes none means none). Special tokens are looked for in what the
// template wrote only; the same characters in a message are ordinary text.
#pragma once

#include <cstddef>
#include <ctime>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "generate/template/refusal.h"
#include "generate/template/template.h"
#include "io/container/checkpoint.h"

namespace mica {

struct ChatMessage {
  std::string role;     // "system", "user", "assistant", ...: the program's word, not a user's
  std::string content;  // valid UTF-8
};

// The messages as the array that templates and APIs have.
Json MessagesJson(const std::vector<ChatMessage>& messages);

struct ChatRequest {
  // An array of objects; all texts in it but those of "role" are content. Keys other than role and content
  // (tool_calls, reasoning_content, ...) reach the template as they are.
  Json messages = Json::array();
  bool add_generation_prompt = true;  // the text ends where the assistant's answer begins
  Json tools;  // null or an array; the texts in it are content, and choose template "tool_use"
  // More variables for the template ("enable_thinking"); texts in them are content. They come before those
  // of the same name, the special tokens too.
  Json variables = Json::object();
  std::time_t now = 0;  // for templates that write the date; 0: this moment
};

// A part of the text of one origin; neighbours differ.
struct ChatSegment {
  std::string text;
  bool is_content;  // from a message, tools or variables: special tokens in it are ordinary text
};

std::string TextOf(const std::vector<ChatSegment>& segments);

class ChatTemplate {
 public:
  // The first of: chat_template.jinja of the checkpoint's directory (with
  // additional_chat_templates/NAME.jinja), chat_template in its tokenizer_config.json (a text, or a list of
  // {name, template}) or chat_template.json; of a GGUF model its keys tokenizer.chat_template and
  // tokenizer.chat_template.NAME, then chat_template.jinja beside it; the keys of a kept vocabulary
  // (kVocabularyFile). Special tokens: bos_token, eos_token and the like from tokenizer_config.json and
  // special_tokens_map.json, or by the ids in the GGUF keys. Throws Error when there is no template, naming
  // what was looked for and what to do; for files that are not what they should be; and for templates that
  // mica does not understand (template.h).
  static ChatTemplate Open(const Checkpoint& checkpoint);
  // The same for what lies in a directory.
  static ChatTemplate OpenDirectory(const std::filesystem::path& directory);
  // The same for keys of a GGUF file; `where` names it.
  static ChatTemplate FromKeys(const std::vector<GgufKey>& keys, const std::string& where);

  // Throws Error when the template fails, or needs something that the request does not have; Refusal when
  // it refuses the conversation (roles that do not take turns, say).
  std::vector<ChatSegment> Render(const ChatRequest& request) const;

  // Where the default template was found ("DIR/chat_template.jinja").
  const std::string& where() const { return templates_.front().where; }
  // Of the default template.
  const std::string& source() const { return templates_.front().source; }
  // Texts of the special tokens by name ("bos_token"); additional_special_tokens is a list.
  const Json& special_tokens() const { return special_tokens_; }

 private:
  struct Named {
    std::string name, where, source;
    jinja::Template parsed;
  };

  void Add(const std::string& name, const std::string& where, std::string source);
  bool AddGgufTemplates(const std::vector<GgufKey>& keys, const std::string& where);
  bool AddFilesOf(const std::filesystem::path& directory);
  void AddGivenIn(const Json& json, const std::string& where);
  void PutDefaultFirst();

  std::vector<Named> templates_;  // the default one first
  Json special_tokens_ = Json::object();
};

}  // namespace mica
