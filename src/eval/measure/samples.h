// Samples: what the original and the compressed model make of the same prompts, how far they are apart token
// by token, and what generating costs either.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/matrix.h"
#include "device/device.h"
#include "eval/measure/perplexity.h"
#include "generate/session.h"
#include "generate/speed.h"
#include "io/text/tokenizer.h"
#include "model/weights.h"
#include "record/samples.h"

namespace mica {

struct SampleSettings {
  size_t count = 12;                 // prompts that are cut from the texts; 0 without `prompts`: no samples
  size_t tokens = 32;                // of a continuation at most
  std::vector<std::string> prompts;  // in place of those

  bool wanted() const { return count > 0 || !prompts.empty(); }
};
// Reads {"count", "tokens", "prompts"}. Throws Error naming `where` and the key.
SampleSettings SampleSettingsFromJson(const Json& json, const std::string& where);

struct SamplePrompt {
  std::string set;  // whose text it was cut from; empty: it was given
  std::vector<int32_t> ids;
  std::string text;
};

// Tokens of a prompt that is cut from a text, as far as the model has positions and the window tokens.
inline constexpr size_t kCutTokens = 16;

// Cuts a prompt from a window at a place that `random` chooses: from the beginning of a word on, where one is
// near, to the end of a character; the token that begins a text, if there is one, in front.
SamplePrompt CutPrompt(const std::string& set, const Windows& windows, const Tokenizer& tokenizer,
                       size_t max_positions, std::mt19937_64& random);
// The prompts that are given. Throws Error naming the one that with its continuation exceeds the model's
// positions.
std::vector<SamplePrompt> GivenPrompts(const SampleSettings& settings, const Tokenizer& tokenizer,
                                       size_t max_positions);

inline constexpr int kSampleCacheBits = 16;  // of keys and values

// What samples are made of.
struct SampleTask {
  std::vector<SamplePrompt> prompts;
  size_t tokens = 0;  // of a continuation at most
  uint64_t seed = 0;
  Device device{};

  // Tokens of the context: the longest prompt and its continuation, and what speed is measured with, as far as
  // the model has positions.
  size_t Context(const ModelConfig& config) const;
  // Bytes of host memory that the logits of one model's continuations take.
  uint64_t LogitBytes(const ModelConfig& config) const;
};

// Why samples of a model cannot be taken here, by what it will hold in memory as a whole, with the logits of both
// models; empty where they can. which: "original" or "compressed".
std::string WhyNoSamples(const ModelWeights& weights, const SampleTask& task, const char* which);

// A model's part.
struct SampledModel {
  std::vector<Generated> texts;        // [prompts], greedy
  std::vector<Matrix<float>> logits;   // [prompts] of [tokens of a continuation, vocab]: before each of them
  RunningCost cost;
  SpeedSettings timed;
  uint64_t peak_bytes = 0;
};

// Loads the model and continues each prompt; the logits are those along its own continuations, or where
// `along` is not null along the continuations that it holds. advance: called with 1 for each of
// task.prompts.size() * task.tokens tokens. Throws Error where the memory is not there, Interrupted after
// Ctrl-C.
SampledModel SampleModel(const ModelWeights& weights, const std::filesystem::path& path, const Tokenizer& tokenizer,
                         const SampleTask& task, const SampledModel* along,
                         const std::function<void(uint64_t)>& advance);

// What results tell of both. compressed: sampled along `original`; its logits are overwritten.
SamplesRecord CompareSamples(const SampleTask& task, const SampledModel& original, SampledModel& compressed);

}  // namespace mica
