// Any bytes either are a tokenizer.model, which then encodes any text to ids of its pieces, or throw Error;
// and so do the files beside it. The first byte says which file the bytes are.
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/threads.h"
#include "io/text/tokenizer.h"
#include "seeds.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

// A tiny model in SentencePiece's protocol buffers: pieces with scores and types, and settings as LLaMA's.
std::string Field(int number, const std::string& bytes) {
  return std::string(1, static_cast<char>(number << 3 | 2)) + static_cast<char>(bytes.size()) + bytes;
}
std::string Flag(const std::string& tag, int value) { return tag + static_cast<char>(value); }
std::string TinyModel() {
  const std::string zero(4, '\0');
  std::string model;
  int type = 2;  // unknown, then two control pieces, then ordinary ones
  for (const char* piece : {"<unk>", "<s>", "</s>", "\xe2\x96\x81", "a", "b", "ab",
                            "\xe2\x96\x81"
                            "ab"}) {
    std::string message = Field(1, piece) + "\x15" + zero;
    if (type <= 4) message += Flag("\x18", type <= 2 ? 2 : 3);
    ++type;
    model += Field(1, message);
  }
  return model + Field(2, Flag("\x18", 2) + Flag("\x98\x02", 0)) +
         Field(3, Flag("\x18", 1) + Flag("\x20", 0) + Flag("\x28", 1));
}

const std::filesystem::path& Directory() {
  static const TemporaryDirectory place(MemoryPlace());
  return place.path();
}

void Run(uint8_t which, const std::string& content) {
  static const std::string text = "ab a<s>b \xc3\xa9 \xe2\x96\x81 ab  <|user|>\n";
  constexpr const char* kNames[] = {"tokenizer_config.json", "added_tokens.json", "tokenizer.json"};
  if (which % 4 == 3) {
    const Tokenizer tokenizer = Tokenizer::Parse(content, "fuzz");
    for (const bool special : {false, true}) {
      const TextTokens tokens = tokenizer.EncodeWithBytes(text, special);
      MICA_CHECK(tokens.ids.size() == tokens.bytes.size());
      for (const int32_t id : tokens.ids) MICA_CHECK(id >= 0 && id < tokenizer.vocab_size());
    }
    return;
  }
  const char* const name = kNames[which % 4];
  for (const char* other : kNames) std::filesystem::remove(Directory() / other);
  const bool with_model = which % 4 != 2;
  if (with_model && !std::filesystem::exists(Directory() / "tokenizer.model"))
    WriteFileAtomically(Directory() / "tokenizer.model", TinyModel());
  if (!with_model) std::filesystem::remove(Directory() / "tokenizer.model");
  WriteFileAtomically(Directory() / name, content);
  const Tokenizer tokenizer = Tokenizer::Open(Directory());
  MICA_CHECK(tokenizer.vocab_size_with_added() >= tokenizer.vocab_size());
  tokenizer.Encode(text);
}

}  // namespace
}  // namespace mica

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  mica::SetLogLevel(mica::LogLevel::kError);
  mica::Tokenizer::Parse(mica::TinyModel(), "seed");
  mica::WriteSeeds(
      *argc, *argv,
      {"3" + mica::TinyModel(),
       R"(0{"add_bos_token":false,"added_tokens_decoder":{"2":{"content":"</s>"},"9":{"content":"<|user|>"}}})",
       R"(1{"<|user|>":9,"<s>":1})",
       R"(2{"normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend"}]},"pre_tokenizer":{"type":"Metaspace"},
"model":{"type":"BPE","byte_fallback":true}})",
       R"(2{"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"ByteLevel"}]},"model":{"type":"BPE"}})"});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  mica::SetThreads(1);
  try {
    mica::Run(static_cast<uint8_t>(data[0] - '0'), {reinterpret_cast<const char*>(data) + 1, size - 1});
  } catch (const mica::Error&) {
  }
  return 0;
}
