// What an evaluation tells: the content of the file that `mica eval -o` writes. As in record/compression.h, a
// record holds what its file says, so that files of other programs, with perplexities alone, can be compared
// as well.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "record/compression.h"
#include "record/samples.h"

namespace mica {

// Shape of a model, as its config.json names it.
struct ArchitectureRecord {
  std::optional<std::string> architecture;  // "LlamaForCausalLM"; key "class"
  std::optional<std::string> model_type;    // "llama"
  std::optional<uint64_t> layers, hidden, heads, kv_heads, head_dim, ffn, vocab, max_positions;
  std::optional<double> rope_theta;
  std::optional<bool> tied_head;  // the embedding is the output head
  Json other;
};

// The model that was measured.
struct ModelRecord {
  std::optional<std::string> path;         // as it was given
  std::optional<std::string> fingerprint;  // model/fingerprint.h, 64 hexadecimal digits
  std::optional<std::string> tokenizer;    // SHA-256 of it, 64 hexadecimal digits
  ArchitectureRecord architecture;
  std::optional<uint64_t> parameters;
  std::optional<uint64_t> file_bytes;            // of the weight files
  std::optional<std::string> layout;             // "safetensors", "pytorch", ...
  std::optional<CompressionRecord> compression;  // of a packed model
  Json other;
};

// The model that the divergence was measured from.
struct ReferenceModel {
  std::optional<std::string> path;
  std::optional<std::string> fingerprint;
  Json other;
};

// How it was measured.
struct EvaluationSettings {
  std::optional<std::string> convention;  // "gptq" or "llamacpp" (eval/measure/perplexity.h)
  // "text", "window" or "none": where windows had BOS (model/bos.h); with convention llamacpp never "text"
  std::optional<std::string> bos;
  std::optional<uint64_t> seqlen;       // tokens of a window
  std::optional<std::string> dtype;     // arithmetic: "fp32" or "bf16"
  std::optional<bool> as_running;       // the model computed as it does when it generates; absent: it did not
  std::optional<uint64_t> max_windows;  // of each text; absent, in the file null: all
  std::optional<bool> special_tokens;   // "<unk>" and the like in a text were control tokens
  std::optional<uint64_t> threads;
  std::optional<uint64_t> seed;  // nothing is drawn at random
  std::optional<std::string> device;
  Json other;
};
Json ToJson(const EvaluationSettings& record);

// The text of a set.
struct TextRecord {
  std::optional<std::string> kind;            // "wikitext2", "ptb", "c4" or "text"
  std::optional<std::string> path;            // as it was given
  std::optional<std::string> sha256;          // of the text as it is tokenised, 64 hexadecimal digits
  std::optional<std::string> content_sha256;  // of the file once decompressed (record/compression.h)
  // SHA-256 of what the tokenizer made of the text, the token in front of it with it: ids of 32 bits, little-endian
  std::optional<std::string> tokens_sha256;
  std::optional<uint64_t> bytes;  // of the file as it is stored
  Json other;
};

// Tokens that occur equally often in the windows (eval/measure/token_classes.h).
struct TokenClassRecord {
  std::optional<uint64_t> from, to;  // occurrences; to 0: no end
  std::optional<uint64_t> tokens;    // scored
  std::optional<double> nll;         // their mean, nats
  Json other;
};

// How far the predictions have moved from those of the reference, over the scored tokens.
struct DivergenceRecord {
  std::optional<double> kl;              // Kullback-Leibler divergence, nats per token
  std::optional<double> same_top;        // share of tokens where both find the same token most likely
  std::optional<double> standard_error;  // of kl as a mean over windows; absent with one window
  Json other;
};

// One text that was measured, or that was not and says why.
struct SetRecord {
  std::optional<double> perplexity;  // key "ppl"; absent where only its logarithm fits a number
  std::optional<std::string> error;  // why there is none ("out of memory"); "ppl" may hold it as well
  std::optional<double> seconds;     // key "time"
  std::optional<double> nll;         // mean negative log likelihood, nats per token
  // nats of the scored tokens / ln 2 / bytes of the text that those stand for (Tokenizer::EncodeWithBytes);
  // absent when they stand for none
  std::optional<double> bits_per_byte;
  std::optional<uint64_t> tokens;         // of all windows
  std::optional<uint64_t> scored_tokens;  // of those, tokens that were predicted
  std::optional<uint64_t> windows;
  std::vector<double> window_nll;  // [windows] nats per token of each
  std::vector<TokenClassRecord> by_occurrence;
  std::vector<LostTokenRecord> lost_tokens;  // that lost most against the original model, the most first
  std::optional<uint64_t> text_tokens;  // of the whole text
  // of the model's own pass through layers and head, over all windows
  std::optional<double> tokens_per_second;
  Ordered<double> phases;  // seconds by phase (eval/measure/perplexity.h, PassSeconds), within "time"
  TextRecord data;
  std::optional<DivergenceRecord> divergence;  // with a reference
  Json other;
};

// The logarithm of a set's perplexity, nats per token: "nll" where the file has it, unless a perplexity that
// differs from e^nll by more than a thousandth is more exact, or says that it is something else. Absent where
// neither is known.
std::optional<double> LogPerplexity(const SetRecord& record);

// The whole of a result file.
struct EvaluationRecord {
  Program program;                     // key "mica"
  std::optional<std::string> created;  // "2026-01-01T00:00:00Z"
  ModelRecord model;
  std::optional<ReferenceModel> reference;
  EvaluationSettings settings;
  Host host;
  Ordered<SetRecord> sets;  // key "datasets"
  PhaseTimes time;          // the texts' reading, the model's fingerprint, the sets' phases together
  std::optional<uint64_t> peak_memory_bytes;
  std::optional<GpuRecord> gpu;  // none: the processor computed
  std::optional<SamplesRecord> samples;  // of a compressed model in a run
  Json other;
};

// Reads a file of `mica eval`. A set is an object of "datasets" with a "ppl", an "nll" or an "error". Throws
// Error naming `where` and the key when `json` is no such file or a value is of another type.
EvaluationRecord EvaluationFromJson(const Json& json, const std::string& where);
// The same for files that are compared, which may be of any program: a file with one of the keys of a result
// of ours ("mica", "datasets"), or a plain one with the sets at top level, {"wikitext2": {"ppl": 5.79,
// "time": 223},
// ...}, where a "ppl" may be the text that says why there is none, and what is not in a set counts only as
// far as it is understood. Throws Error naming `where` also when there is nothing in it to compare.
EvaluationRecord AnyEvaluationFromJson(const Json& json, const std::string& where);
Json ToJson(const EvaluationRecord& record);

}  // namespace mica
