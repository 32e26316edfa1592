// Bytes of text a second on one thread, by the kinds of tokenizer.json, with a vocabulary that is made up: of
// the words of the text the frequent ones are merged whole. A real one: MICA_TOKENIZER=DIRECTORY.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <cstdlib>
#include <map>
#include <random>
#include <string>

#include "base/json.h"
#include "base/threads.h"
#include "io/text/byte_characters.h"
#include "io/text/tokenizer.h"
#include "io/text/tokenizer_json.h"

namespace mica {
namespace {

// English in its lengths of words, and in how often the frequent ones come.
std::string Text(size_t bytes) {
  std::mt19937 random(1);
  std::vector<std::string> words(20000);
  for (std::string& word : words) {
    for (size_t length = 2 + random() % 8; length > 0; --length)
      word += static_cast<char>('a' + random() % 26);
  }
  std::string text;
  while (text.size() < bytes) {
    const double share = static_cast<double>(random() % 100000 + 1) / 100000;
    text += words[static_cast<size_t>(static_cast<double>(words.size() - 1) * share * share * share)];
    text += random() % 12 == 0 ? ".\n" : random() % 10 == 0 ? ", " : " ";
  }
  return text;
}

Tokenizer MadeUp(bool byte_level) {
  Json vocab;
  const auto add = [&](const std::string& token) { vocab.emplace(token, vocab.size()); };
  for (int byte = 0; byte < 256; ++byte)
    add(byte_level ? CharactersOfBytes(std::string(1, static_cast<char>(byte)))
                   : fmt::format("<0x{:02X}>", byte));
  const std::string blank = byte_level ? "Ġ" : "▁";
  if (!byte_level) add(blank);
  for (char c = 'a'; !byte_level && c <= 'z'; ++c) add(std::string(1, c));
  Json merges = Json::array();
  for (char a = 'a'; a <= 'z'; ++a) {
    for (char b = 'a'; b <= 'z'; ++b) {
      add({a, b});
      merges.push_back({std::string(1, a), std::string(1, b)});
    }
    add(blank + a);
    merges.push_back({blank, std::string(1, a)});
  }
  Json json = {
      {"model", {{"type", "BPE"}, {"byte_fallback", !byte_level}, {"vocab", vocab}, {"merges", merges}}}};
  if (byte_level) {
    json["normalizer"] = {{"type", "NFC"}};
    json["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
    json["decoder"] = {{"type", "ByteLevel"}};
  } else {
    json["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", blank}};
  }
  return Tokenizer(std::make_unique<BpeEncoder>(ReadTokenizerJson(json.dump(), {}, "bench")));
}

void Run(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  SetThreads(1);
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer.EncodeWithBytes(text));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
}

// Argument: 1 of bytes, cut by GPT-2's expression; 0 of characters, not cut.
void BM_Tokenize(benchmark::State& state) { Run(state, MadeUp(state.range(0) == 1), Text(size_t{1} << 22)); }
BENCHMARK(BM_Tokenize)->Arg(1)->Arg(0);

// One word of that many letters.
void BM_TokenizeLongWord(benchmark::State& state) {
  std::string text;
  std::mt19937 random(1);
  while (text.size() < static_cast<size_t>(state.range(0))) text += static_cast<char>('a' + random() % 26);
  Run(state, MadeUp(true), text);
}
BENCHMARK(BM_TokenizeLongWord)->RangeMultiplier(32)->Range(32, 1 << 20);

void BM_TokenizeWithARealOne(benchmark::State& state) {
  const char* directory = std::getenv("MICA_TOKENIZER");
  if (directory == nullptr) return state.SkipWithError("MICA_TOKENIZER is not set");
  Run(state, Tokenizer::Open(directory), Text(size_t{1} << 22));
}
BENCHMARK(BM_TokenizeWithARealOne);

}  // namespace
}  // namespace mica
