#include "eval/measure/samples.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/context.h"
#include "base/error.h"
#include "base/system.h"
#include "base/units.h"
#include "generate/end_tokens.h"
#include "generate/text_stream.h"
#include "model/key_cache.h"
#include "model/running_model.h"
#include "ops/head/head.h"
#include "record/options.h"

namespace mica {
namespace {

constexpr size_t kWordSearch = 24;  // tokens in which a word will begin
// What speed is measured with: enough for figures that repeat to a few percent, little beside an evaluation.
constexpr size_t kTimedPrompt = 256, kTimedTokens = 32, kTimings = 2;

SpeedSettings Timed(const ModelConfig& config, uint64_t seed) {
  return {.prompt_tokens = std::min(kTimedPrompt, config.max_positions),
          .generated_tokens = std::min(kTimedTokens, config.max_positions),
          .repetitions = kTimings,
          .cache_bits = kSampleCacheBits,
          .seed = seed};
}

// The logits before each token of a continuation, [tokens, vocab].
Matrix<float> LogitsAlong(const RunningModel& model, std::span<const int32_t> prompt,
                          const std::vector<GeneratedToken>& continuation, KeyCache& cache) {
  Matrix<float> logits(continuation.size(), model.config().vocab);
  if (continuation.empty()) return logits;
  cache.Truncate(0);
  std::ranges::copy(model.Continue(prompt, cache), logits.row(0));
  std::vector<int32_t> ids;
  for (const GeneratedToken& token : continuation) ids.push_back(token.id);
  ids.pop_back();
  if (ids.empty()) return logits;
  const Matrix<float> rest = model.ContinueAll(ids, cache);
  std::copy_n(rest.data(), rest.size(), logits.row(1));
  return logits;
}

std::string Sizes(uint64_t needed, uint64_t there) {
  return fmt::format("{}, and {} are free", FormatBytes(static_cast<double>(needed)),
                     FormatBytes(static_cast<double>(there)));
}

// Whether no character is torn in the text of these tokens, but for the last one.
bool BeginsWhole(const Tokenizer& tokenizer, std::span<const int32_t> ids) {
  TokenText text(tokenizer, {});
  return std::ranges::none_of(ids, [&](int32_t id) { return text.Add(id).find("\xEF\xBF\xBD") != std::string::npos; });
}

// Tokens that both have alike, the end of a text counting as one; none where there is nothing else.
std::optional<size_t> Parting(const Generated& a, const Generated& b) {
  const auto same = std::ranges::mismatch(a.tokens, b.tokens, {}, &GeneratedToken::id, &GeneratedToken::id);
  if (same.in1 == a.tokens.end() && same.in2 == b.tokens.end() && a.finish == b.finish) return std::nullopt;
  return static_cast<size_t>(same.in1 - a.tokens.begin());
}

// The text behind the first `tokens` tokens.
std::string TextBehind(const Generated& generated, size_t tokens) {
  size_t bytes = 0;
  for (size_t i = 0; i < tokens; ++i) bytes += generated.tokens[i].text.size();
  return generated.text.substr(bytes);
}

std::optional<bool> Ended(const Generated& generated) {
  return generated.finish == Finish::kEnd ? std::optional(true) : std::nullopt;
}

SampleRecord RecordOf(const SamplePrompt& prompt, const Generated& original, const Generated& compressed,
                      const std::vector<float>& kl) {
  SampleRecord record;
  if (!prompt.set.empty()) record.set = prompt.set;
  record.prompt = prompt.text;
  record.original = original.text;
  size_t left = original.text.size();
  for (const GeneratedToken& token : original.tokens) {
    record.lengths.values.push_back(token.text.size());
    left -= token.text.size();
  }
  if (left > 0) record.lengths.values.back() += left;  // of a character that no further token completes
  for (const float nats : kl)
    record.hundredths.values.push_back(static_cast<uint64_t>(std::lround(100 * std::min(nats, 1000.0f))));
  record.parting = Parting(original, compressed);
  if (record.parting) record.compressed = TextBehind(compressed, *record.parting);
  record.original_ended = Ended(original);
  record.compressed_ended = Ended(compressed);
  return record;
}

RunningRecord RunningOf(const SampledModel& model) {
  RunningRecord record;
  record.weight_bytes = model.cost.weight_bytes;
  record.peak_memory_bytes = model.peak_bytes;
  record.prompt = SpeedRecord{model.timed.prompt_tokens, model.cost.prompt.mean, {}};
  record.generated = SpeedRecord{model.timed.generated_tokens, model.cost.decode.mean, {}};
  return record;
}

}  // namespace

SampleSettings SampleSettingsFromJson(const Json& json, const std::string& where) {
  const Json values = ReadOptions(SampleOptionTable(), json, where);
  if (values.empty()) Fail("{}: is empty; give \"count\", \"tokens\" or \"prompts\", or leave it out", where);
  const auto value = [&](const char* name) { return ValueOf(values, FindOption(SampleOptionTable(), name)); };
  SampleSettings settings;
  settings.count = value("count");
  settings.tokens = value("tokens");
  const Json prompts = value("prompts");
  if (prompts.is_null()) return settings;
  if (values.contains("count"))
    Fail("{}: \"count\" and \"prompts\" disagree: prompts are cut from the texts or given; leave one of them out", where);
  const size_t most = static_cast<size_t>(FindOption(SampleOptionTable(), "count").most);
  if (prompts.empty() || prompts.size() > most)
    Fail("{}: \"prompts\" has {} texts, expected 1 to {}", where, prompts.size(), most);
  settings.prompts = prompts.get<std::vector<std::string>>();
  settings.count = 0;
  return settings;
}

SamplePrompt CutPrompt(const std::string& set, const Windows& windows, const Tokenizer& tokenizer,
                       size_t max_positions, std::mt19937_64& random) {
  MICA_CHECK(windows.count() > 0 && windows.window > 1);
  const size_t window = random() % windows.count();
  const auto ids = std::span(windows.ids).subspan(window * windows.window, windows.window);
  // The first token of a window may be the one that begins a text.
  const size_t count = std::min({kCutTokens, ids.size() - 1, std::max<size_t>(2, max_positions / 2) - 1});
  const size_t last = ids.size() - count;
  const size_t drawn = 1 + random() % last;
  size_t first = 0;
  for (size_t at = drawn; at <= std::min(last, drawn + kWordSearch); ++at) {
    if (!BeginsWhole(tokenizer, ids.subspan(at, count))) continue;
    const std::string text = TokenText(tokenizer, ids.first(at)).Add(ids[at]);
    const bool word = text.starts_with(' ') || text.starts_with('\n');
    if (first == 0 || word) first = at;  // a language without blanks has whole characters at least
    if (word) break;
  }
  // Near the end of a window there may be no character that begins behind it.
  for (size_t at = drawn; first == 0 && at > 0; --at) {
    if (BeginsWhole(tokenizer, ids.subspan(at, count))) first = at;
  }
  if (first == 0) first = drawn;
  SamplePrompt prompt{set, {}, {}};
  if (tokenizer.text_bos()) prompt.ids.push_back(*tokenizer.text_bos());
  TokenText text(tokenizer, ids.first(first));
  size_t whole = prompt.ids.size();  // tokens whose text ends with a character
  for (const int32_t id : ids.subspan(first, count)) {
    prompt.ids.push_back(id);
    const std::string piece = text.Add(id);
    prompt.text += piece;
    if (!piece.empty()) whole = prompt.ids.size();
  }
  if (!prompt.text.empty()) prompt.ids.resize(whole);
  return prompt;
}

std::vector<SamplePrompt> GivenPrompts(const SampleSettings& settings, const Tokenizer& tokenizer,
                                       size_t max_positions) {
  std::vector<SamplePrompt> prompts;
  for (const std::string& text : settings.prompts) {
    SamplePrompt prompt{"", PromptTokens(tokenizer, text, false), text};
    if (prompt.ids.size() + settings.tokens > max_positions) {
      Fail("prompt {} of the samples has {} tokens and {} are to follow, but the model has learnt {} positions; "
           "shorten it, or give fewer \"tokens\"",
           prompts.size() + 1, prompt.ids.size(), settings.tokens, max_positions);
    }
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

size_t SampleTask::Context(const ModelConfig& config) const {
  size_t context = Timed(config, seed).Context();
  for (const SamplePrompt& prompt : prompts) context = std::max(context, prompt.ids.size() + tokens);
  return std::min(context, config.max_positions);
}

uint64_t SampleTask::LogitBytes(const ModelConfig& config) const {
  return uint64_t{prompts.size()} * tokens * config.vocab * sizeof(float);
}

std::string WhyNoSamples(const ModelWeights& weights, const SampleTask& task, const char* which) {
  const ModelConfig& config = weights.config();
  const uint64_t logits = 2 * task.LogitBytes(config);
  const uint64_t needed = PlanRunning(weights, task.Context(config), kSampleCacheBits, task.device).total() +
                          (task.device.is_cuda() ? 0 : logits);
  const uint64_t there = AvailableMemory(task.device);
  if (needed > there) return fmt::format("generating with the {} model takes about {}", which, Sizes(needed, there));
  if (const uint64_t host = AvailableMemoryBytes(); logits > host)
    return fmt::format("the logits of the samples take about {}", Sizes(logits, host));
  return "";
}

SampledModel SampleModel(const ModelWeights& weights, const std::filesystem::path& path, const Tokenizer& tokenizer,
                         const SampleTask& task, const SampledModel* along,
                         const std::function<void(uint64_t)>& advance) {
  SampledModel result;
  ResetPeakResidentBytes();
  const RunningModel model(weights, task.device);
  result.timed = Timed(weights.config(), task.seed);
  result.cost = MeasureRunning(weights, model, result.timed);
  // Before logits are kept, which are no part of generating.
  result.peak_bytes = PeakBytesOn(task.device);
  GenerationOptions options;
  options.max_tokens = task.tokens;
  options.ends = EndTokens(weights, path, tokenizer);
  Session session(model, tokenizer, task.Context(weights.config()), kSampleCacheBits);
  KeyCache cache(weights.config(), task.Context(weights.config()), kSampleCacheBits, task.device);
  for (size_t i = 0; i < task.prompts.size(); ++i) {
    size_t told = 0;
    const auto stop = [&] {
      advance(1), ++told;
      return InterruptRequested();
    };
    const std::vector<int32_t>& prompt = task.prompts[i].ids;
    result.texts.push_back(session.Continue(prompt, options, [](const std::string&) {}, stop));
    ThrowIfInterrupted();
    advance(task.tokens - std::min(told, task.tokens));
    const Generated& followed = along == nullptr ? result.texts.back() : along->texts[i];
    result.logits.push_back(LogitsAlong(model, prompt, followed.tokens, cache));
  }
  return result;
}

SamplesRecord CompareSamples(const SampleTask& task, const SampledModel& original, SampledModel& compressed) {
  SamplesRecord record;
  record.tokens = task.tokens;
  double sum = 0, tokens = 0;
  for (size_t i = 0; i < task.prompts.size(); ++i) {
    const size_t count = original.texts[i].tokens.size();
    std::vector<float> kl(count);
    std::vector<uint8_t> same_top(count);
    if (count > 0) Divergence(original.logits[i], compressed.logits[i], kl, same_top);
    for (const float nats : kl) sum += nats;
    tokens += static_cast<double>(count);
    record.texts.push_back(RecordOf(task.prompts[i], original.texts[i], compressed.texts[i], kl));
  }
  if (tokens > 0) record.kl = sum / tokens;
  record.original = RunningOf(original);
  record.compressed = RunningOf(compressed);
  return record;
}

}  // namespace mica
