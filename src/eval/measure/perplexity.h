// Perplexity of a model on a text, layer by layer: the windows of a chunk pass through one decoder layer
// together, so a layer's weights are read once per chunk and peak memory is one layer plus the activations of
// a chunk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "device/memory_plan.h"
#include "device/precision.h"
#include "eval/measure/passed_windows.h"
#include "model/bos.h"
#include "model/weights.h"
#include "ops/product/product.h"

namespace mica {

// How a text is cut into windows and what is scored. The text is tokenised once, BOS in front where the model
// has one (model/bos.h), and cut into windows of equal length that do not overlap; the incomplete tail is
// dropped. The first token of a window is never scored.
enum class Convention {
  kGptq,      // all window - 1 predictions of each window (GPTQ, SparseGPT and Wanda print this)
  kLlamacpp,  // BOS, where there is one, is in place of the first token of each window; the window - 1 -
              // window / 2 predictions of the second half are scored
};
const char* ConventionName(Convention convention);  // "gptq", "llamacpp"
// Throws Error for another name.
Convention ParseConvention(const std::string& name);
// Where windows of the convention have BOS: `llamacpp` has it in each of them instead of once a text.
BosPlace PlaceIn(Convention convention, BosPlace place);

// A text ready to be evaluated.
struct Windows {
  size_t window = 0;         // tokens of one window
  size_t first_scored = 1;   // tokens [first_scored, window) of each window are predicted and scored
  std::vector<int32_t> ids;  // [count, window]
  size_t text_tokens = 0;    // tokens of the whole text, BOS included if there is one
  size_t count() const { return window == 0 ? 0 : ids.size() / window; }
  size_t scored_per_window() const { return window - first_scored; }
  // The token that position t of window w predicts, or -1 where nothing is scored.
  int32_t Target(size_t w, size_t t) const;
};

// Cuts `text_ids` (the whole text, without BOS), that of `bos` in front if there is one, into windows of
// `window` tokens, at most `max_windows` of them (0: all). In place kWindow BOS takes the place of the first
// token of each window, which is not scored, so that the tokens scored are those of place kText. Throws Error
// naming `where` when the text does not fill one window, or when `window` is too short for the convention to
// score anything.
Windows CutWindows(const std::vector<int32_t>& text_ids, const Bos& bos, size_t window, Convention convention,
                   size_t max_windows, const std::string& where);

struct PerplexitySettings {
  Arithmetic arithmetic;
  // Budget of the residual stream of a chunk, which has at least one window; none: what suits the device.
  std::optional<uint64_t> activation_bytes;
  // The model (not a reference) computes in the form that running models keep, so that what that costs can be
  // measured.
  bool as_running = false;
  // Where the streams of the windows behind the last layers are kept, of one rank that measures alone; nullptr: nowhere.
  // The model's is filled; the reference's is read where it is complete, and filled where it is not.
  PassedStream* model_stream = nullptr;
  PassedStream* reference_stream = nullptr;
};

// Seconds of wall clock that parts of an evaluation took.
struct PassSeconds {
  double weights = 0;     // the model's layers and embeddings read, decoded where they are packed, prepared
  double pass = 0;        // the windows through layers and head: the model's own work
  double reference = 0;   // the reference's layers, read and passed
  double divergence = 0;  // both heads once more, their distributions compared
};

struct Perplexity {
  std::vector<double>
      window_nll;                // [windows] mean negative log likelihood of the window's scored tokens, nats
  std::vector<float> token_nll;  // [windows, scored_per_window] of each scored token, nats
  double nll = 0;                // mean over the windows, nats per token
  double perplexity = 0;         // exp(nll); infinite where that is beyond a number
  // Against a reference, over the same tokens: Kullback-Leibler divergence of the model's next-token
  // distribution from the reference's, nats per token, and the share of tokens where both find the same token
  // most likely.
  std::vector<double> window_kl;  // [windows]; empty without a reference
  double kl = 0;                  // mean over the windows
  double same_top = 0;
  PassSeconds seconds;
};

// Called now and then with the number of tokens done since the last call (a share of each token's work counts
// as that share of a token) and a few words on where the work is ("layer 3/40").
using TokensDone = std::function<void(uint64_t tokens, const std::string& detail)>;

// With a `reference`, a model of the same vocabulary, its windows pass as well and divergences are measured.
// Sums are FP64 in fixed order; the result depends neither on the number of threads nor on the activation
// budget. Throws Error when an id is outside the vocabulary, the model's attention does not allow the window,
// the memory this needs is not there, or a likelihood is not finite; Interrupted after Ctrl-C.
Perplexity EvaluatePerplexity(const ModelWeights& weights, const Windows& windows,
                              const PerplexitySettings& settings, const TokensDone& tokens_done = {},
                              const ModelWeights* reference = nullptr);

// Throws what EvaluatePerplexity would throw before its first window: ids, window length and memory against
// what there is.
void CheckEvaluation(const ModelConfig& config, const Windows& windows, const PerplexitySettings& settings,
                     const ModelConfig* reference = nullptr);

// What the evaluation takes at most of the memory of its device: prepared layers (on a GPU two, one of them
// on its way in), the activations of a chunk and of a step; with a reference, what both need at once.
MemoryPlan PlanEvaluation(const ModelConfig& config, size_t window, size_t windows,
                          const PerplexitySettings& settings, const ModelConfig* reference = nullptr);

}  // namespace mica
