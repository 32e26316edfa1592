// Any bytes either are a GGUF file with a vocabulary, by which any text is cut as check_tokenizer.h says, or
// throw Error. The first line is the text, the rest the file.
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "check_tokenizer.h"
#include "io/container/read_vocabulary.h"
#include "seeds.h"

namespace mica {
namespace {

std::string Seed(const std::string& text, const std::vector<GgufKey>& keys) {
  return text + "\n" + MadeBy([&](const std::string& path) { GgufWriter(path, {}, keys).Commit(); });
}

std::vector<GgufKey> Keys(const std::string& model, const std::string& pre, std::vector<std::string> tokens,
                          std::vector<int32_t> types) {
  return {{"tokenizer.ggml.model", model},
          {"tokenizer.ggml.pre", pre},
          {"tokenizer.ggml.tokens", GgufArray{std::move(tokens)}},
          {"tokenizer.ggml.token_type", GgufArray{std::move(types)}},
          {"tokenizer.ggml.bos_token_id", uint32_t{1}},
          {"tokenizer.ggml.add_bos_token", true}};
}

}  // namespace
}  // namespace mica

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  using namespace mica;
  using Texts = std::vector<std::string>;
  SetLogLevel(LogLevel::kError);
  std::vector<std::string> seeds;
  for (const char* pre : {"llama-bpe", "qwen2", "deepseek-v3", "gpt-2"}) {
    std::vector<GgufKey> keys = Keys("gpt2", pre, {"a", "<|s|>", "b", "ab", "Ġ", "Ġab", "1", "<t>", "[PAD8]"},
                                     {1, 3, 1, 1, 1, 1, 1, 4, 5});
    keys.push_back({"tokenizer.ggml.merges", GgufArray{Texts{"a b", "Ġ ab"}}});
    seeds.push_back(Seed("ab ab1<t> <|s|>", keys));
  }
  std::vector<GgufKey> keys = Keys("llama", "default", {"<unk>", "<s>", "<0x63>", "▁", "a", "b", "ab", "▁ab", "  "},
                                   {2, 3, 6, 1, 1, 1, 1, 1, 4});
  keys.push_back({"tokenizer.ggml.scores", GgufArray{std::vector<float>{0, 0, 0, -9, -9, -9, -1, -2, -1000}}});
  keys.push_back({"tokenizer.ggml.add_space_prefix", false});
  seeds.push_back(Seed("ab  abc<s>", keys));
  WriteSeeds(*argc, *argv, seeds);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mica;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t line = input.find('\n');
  if (line == std::string_view::npos || line > kMaxFuzzedTextBytes) return 0;
  try {
    // Copied: a file begins where memory is aligned.
    const std::string file(input.substr(line + 1));
    const GgufFile gguf = ParseGguf(std::as_bytes(std::span(file)), "fuzz");
    CheckTokenizer(FromGguf(ReadGgufVocabulary(gguf.keys, "fuzz"), "fuzz"), input.substr(0, line));
  } catch (const Error&) {
  }
  return 0;
}
