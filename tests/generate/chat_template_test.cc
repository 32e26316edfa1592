// Where chat templates are found, and what they are given.
#include "generate/chat_template.h"

#include "base/file.h"
#include "tests/error_message.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

constexpr const char* kPlain =
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}";

class ChatTemplates : public testing::Test {
 protected:
  void Write(const char* name, const std::string& text) { WriteFileAtomically(directory_ / name, text); }
  ChatTemplate Open() { return ChatTemplate::OpenDirectory(directory_.path()); }
  static std::string Rendered(const ChatTemplate& chat, const Json& tools = nullptr) {
    ChatRequest request;
    request.messages = MessagesJson({{"user", "<s>hi"}});
    request.tools = tools;
    return TextOf(chat.Render(request));
  }

  TemporaryDirectory directory_;
};

TEST_F(ChatTemplates, OfTokenizerConfig) {
  Write("tokenizer_config.json", Json{{"chat_template", kPlain},
                                      {"bos_token", {{"content", "<s>"}, {"lstrip", false}}},
                                      {"eos_token", "</s>"},
                                      {"additional_special_tokens", {"<x>", {{"content", "<y>"}}}}}
                                     .dump());
  Write("special_tokens_map.json", R"({"bos_token": "<other>", "pad_token": {"content": "<pad>"}})");
  const ChatTemplate chat = Open();
  EXPECT_EQ(chat.special_tokens(), Json::parse(R"({"bos_token": "<s>", "eos_token": "</s>",
      "additional_special_tokens": ["<x>", "<y>"], "pad_token": "<pad>"})"));
  EXPECT_THAT(chat.where(), testing::EndsWith("tokenizer_config.json: chat_template"));
  ChatRequest request;
  request.messages = MessagesJson({{"user", "<s>hi"}, {"assistant", "yo"}});
  const std::vector<ChatSegment> segments = chat.Render(request);
  ASSERT_EQ(segments.size(), 4u);
  EXPECT_EQ(segments[0].text, "<s>[user]");
  EXPECT_FALSE(segments[0].is_content);
  EXPECT_EQ(segments[1].text, "<s>hi");
  EXPECT_TRUE(segments[1].is_content);
  EXPECT_EQ(segments[3].text, "yo");
}

TEST_F(ChatTemplates, JinjaFileComesFirst) {
  Write("tokenizer_config.json", R"({"chat_template": "config", "bos_token": "<s>"})");
  Write("chat_template.json", R"({"chat_template": "json"})");
  EXPECT_EQ(Rendered(Open()), "config");
  Write("chat_template.jinja", "{{ bos_token }}file");
  EXPECT_EQ(Rendered(Open()), "<s>file");
  std::filesystem::create_directory(directory_ / "additional_chat_templates");
  Write("additional_chat_templates/tool_use.jinja", "tools");
  EXPECT_EQ(Rendered(Open()), "<s>file");
  EXPECT_EQ(Rendered(Open(), Json::array()), "tools");
}

TEST_F(ChatTemplates, SeveralByName) {
  Write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]})");
  EXPECT_EQ(Rendered(Open()), "D");
  EXPECT_EQ(Rendered(Open(), Json::array()), "T");
}

TEST_F(ChatTemplates, OfGgufKeys) {
  const std::vector<GgufKey> keys = {
      {"tokenizer.ggml.tokens", GgufArray{std::vector<std::string>{"<unk>", "<s>", "</s>"}}},
      {"tokenizer.ggml.bos_token_id", uint32_t{1}},
      {"tokenizer.ggml.eos_token_id", uint32_t{9}},
      {"tokenizer.chat_template.tool_use", std::string("T")},
      {"tokenizer.chat_template", std::string(kPlain)}};
  const ChatTemplate chat = ChatTemplate::FromKeys(keys, "m.gguf");
  EXPECT_EQ(chat.special_tokens(), Json::parse(R"({"bos_token": "<s>"})"));
  EXPECT_EQ(Rendered(chat), "<s>[user]<s>hi");
  EXPECT_EQ(Rendered(chat, Json::array()), "T");
  ExpectError([&] { ChatTemplate::FromKeys({}, "m.gguf"); },
              {"m.gguf", "no chat template", "tokenizer.chat_template", "chat_template.jinja"});
  ExpectError(
      [&] {
        ChatTemplate::FromKeys({{"tokenizer.chat_template", true}}, "m.gguf");
      },
      {"BOOL", "expected STRING"});
}

TEST_F(ChatTemplates, KeptVocabulary) {
  GgufWriter(directory_ / kVocabularyFile, {},
             {{"tokenizer.ggml.tokens", GgufArray{std::vector<std::string>{"<s>"}}},
              {"tokenizer.ggml.bos_token_id", uint32_t{0}},
              {"tokenizer.chat_template", std::string(kPlain)}})
      .Commit();
  EXPECT_EQ(Rendered(Open()), "<s>[user]<s>hi");
}

TEST_F(ChatTemplates, WithoutOneAnErrorSaysWhatToDo) {
  ExpectError([&] { Open(); },
              {"has no chat template", "chat_template.jinja", "tokenizer_config.json", "mica generate"});
  Write("tokenizer_config.json", R"({"chat_template": null})");
  ExpectError([&] { Open(); }, {"has no chat template"});
  Write("tokenizer_config.json", R"({"chat_template": 3})");
  ExpectError([&] { Open(); }, {"tokenizer_config.json: chat_template: is number, expected text"});
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "a"}]})");
  ExpectError([&] { Open(); }, {"no object of name and template"});
  Write("tokenizer_config.json", R"({"chat_template": "\n{% nope %}"})");
  ExpectError([&] { Open(); }, {"tokenizer_config.json: chat_template, line 2: tag 'nope' is not known"});
}

TEST_F(ChatTemplates, VariablesAndTools) {
  Write(
      "chat_template.jinja",
      "{{ thinking }}{{ bos_token }}{{ tools | tojson }}{{ documents is none }}{{ add_generation_prompt }}");
  Write("tokenizer_config.json", R"({"bos_token": "<s>"})");
  ChatRequest request;
  request.add_generation_prompt = false;
  request.variables = {{"thinking", "<s>"}};
  request.tools = {"<s>"};
  const std::vector<ChatSegment> segments = Open().Render(request);
  ASSERT_EQ(segments.size(), 4u);
  EXPECT_TRUE(segments[0].is_content);
  EXPECT_EQ(segments[1].text, "<s>[\"");
  EXPECT_TRUE(segments[2].is_content);
  EXPECT_EQ(segments[3].text, "\"]TrueFalse");
}

TEST_F(ChatTemplates, RequestsThatAreNone) {
  Write("chat_template.jinja", "{{ raise_exception('never') }}");
  const ChatTemplate chat = Open();
  ChatRequest request;
  try {
    chat.Render(request);
    FAIL();
  } catch (const Refusal& refusal) {
    EXPECT_THAT(
        refusal.what(),
        testing::EndsWith("chat_template.jinja, line 1: the template refuses the conversation: never"));
  }
  request.messages = {{{"content", "x"}}};
  ExpectError([&] { chat.Render(request); }, {"\"role\""});
  request.messages = 3;
  ExpectError([&] { chat.Render(request); }, {"expected an array"});
  request.messages = Json::array();
  request.variables = 3;
  ExpectError([&] { chat.Render(request); }, {"expected an object"});
}

}  // namespace
}  // namespace mica
