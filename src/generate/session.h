// A text that a model continues, and goes on continuing: keys and values of what it has read stay.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "generate/sampling.h"
#include "io/text/tokenizer.h"
#include "model/key_cache.h"
#include "model/running_model.h"

namespace mica {

struct GenerationOptions {
  SamplingOptions sampling;
  size_t max_tokens = 0;  // 0: as many as the context has room for
  std::vector<std::string> stops;
  size_t alternatives = 0;    // likeliest tokens that are told of each place
  std::set<int32_t> ends;     // tokens that end the text
};

enum class Finish { kEnd, kStop, kLength, kInterrupted };
// "end" (the model ended it), "stop" (a stop string), "length" (max_tokens or the context), "interrupted".
const char* FinishName(Finish finish);

struct GeneratedToken {
  int32_t id = 0;
  std::string text;  // that was certain with it
  double log_probability = 0;
  std::vector<TokenChance> alternatives;
};

struct Generated {
  std::vector<GeneratedToken> tokens;
  std::string text;
  Finish finish = Finish::kLength;
  size_t prompt_tokens = 0, reused_tokens = 0;  // of the prompt, and of those whose keys were there
  double prompt_seconds = 0;                    // until the first token is known
  double decode_seconds = 0;                    // of the tokens behind it
};

// What a model is given of a text to continue: its tokens, in front of them the token that begins a text where
// the tokenizer puts one (an empty text has it wherever there is one). special: the text of special tokens
// becomes their ids.
std::vector<int32_t> PromptTokens(const Tokenizer& tokenizer, std::string_view text, bool special);
// Throws Error for an empty prompt and for one that leaves no room for an answer in the context.
void CheckPrompt(size_t tokens, size_t context);

class Session {
 public:
  Session(const RunningModel& model, const Tokenizer& tokenizer, size_t context, int cache_bits);

  size_t context() const { return cache_.capacity(); }
  // Continues `prompt`, whose beginning may be what the session has read already; show is given text as it
  // becomes certain, in whole characters. `stop`, asked before every token, ends it with kInterrupted. Throws
  // Error as CheckPrompt does.
  Generated Continue(std::span<const int32_t> prompt, const GenerationOptions& options,
                     const std::function<void(const std::string&)>& show, const std::function<bool()>& stop);

 private:
  const RunningModel* model_;
  const Tokenizer* tokenizer_;
  KeyCache cache_;
  std::vector<int32_t> read_;  // tokens in the cache
};

}  // namespace mica
