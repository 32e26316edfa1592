// Samples of what two models write, and what writing costs: a part of a compressed model's result file, kept
// small.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"

namespace mica {

// Whole numbers; in a file one text, "3 0 12", where an array would have a line for each.
struct NumberLine {
  std::vector<uint64_t> values;
  bool empty() const { return values.empty(); }
};

// Greedy continuations of one prompt by the original model and by the compressed one.
struct SampleRecord {
  std::optional<std::string> set;     // whose text the prompt was cut from; absent: it was given
  std::optional<std::string> prompt;
  std::optional<std::string> original;  // the continuation
  NumberLine lengths;                   // bytes of `original` that each of its tokens stands for
  // Key "kl": at each of those tokens the divergence of the compressed model's distribution from the
  // original's, hundredths of a nat
  NumberLine hundredths;
  std::optional<uint64_t> parting;  // tokens that both have alike; absent: all of them
  std::optional<std::string> compressed;  // its continuation behind those
  std::optional<bool> original_ended, compressed_ended;  // it ended its text before the tokens that it was given
  Json other;
};

// How fast tokens pass through a model.
struct SpeedRecord {
  std::optional<uint64_t> tokens;  // that were timed: of a prompt, or one by one
  std::optional<double> tokens_per_second;
  Json other;
};

// What a model takes to generate text.
struct RunningRecord {
  std::optional<uint64_t> weight_bytes;       // that stay in memory
  std::optional<uint64_t> peak_memory_bytes;  // of the process meanwhile; on a GPU, there
  std::optional<SpeedRecord> prompt, generated;
  Json other;
};

struct SamplesRecord {
  std::optional<std::string> made_of;  // SamplesMadeOf
  std::optional<std::string> skipped;  // why none were made
  std::optional<uint64_t> tokens;      // of a continuation at most
  std::optional<double> kl;            // mean divergence over all tokens of the original's continuations, nats
  std::vector<SampleRecord> texts;
  std::optional<RunningRecord> original, compressed;
  std::optional<double> seconds;  // that all of it took
  Json other;
};

// A token of a measured text that the compressed model foresees much worse than the original does.
struct LostTokenRecord {
  std::optional<std::string> context;  // the text in front of it
  std::optional<std::string> token;
  std::optional<double> original, compressed;  // negative log likelihood, nats
  Json other;
};

struct EvaluationRecord;

// SHA-256 of all that samples depend on: both models, tokenizer, device and code of their evaluations, how
// many tokens at most, and the prompts' tokens.
std::string SamplesMadeOf(const EvaluationRecord& original, const EvaluationRecord& compressed,
                          uint64_t tokens, std::span<const std::vector<int32_t>> prompts);

}  // namespace mica
