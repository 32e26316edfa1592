#include "generate/session.h"

#include <algorithm>

#include "base/error.h"
#include "base/system.h"
#include "generate/text_stream.h"

namespace mica {

const char* FinishName(Finish finish) {
  switch (finish) {
    case Finish::kEnd:
      return "end";
    case Finish::kStop:
      return "stop";
    case Finish::kLength:
      return "length";
    case Finish::kInterrupted:
      return "interrupted";
  }
  MICA_CHECK(false);
}

std::vector<int32_t> PromptTokens(const Tokenizer& tokenizer, std::string_view text, bool special) {
  std::vector<int32_t> ids = special ? tokenizer.EncodeWithSpecial(text) : tokenizer.Encode(text);
  if (tokenizer.text_bos()) {
    if (ids.empty() || ids.front() != *tokenizer.text_bos()) ids.insert(ids.begin(), *tokenizer.text_bos());
  } else if (ids.empty() && tokenizer.has_bos()) {
    ids = {tokenizer.bos()};
  }
  return ids;
}

void CheckPrompt(size_t tokens, size_t context) {
  if (tokens == 0) Fail("the prompt is empty and the model has no token that begins a text; give some text");
  if (tokens < context) return;
  Fail("the prompt has {} tokens, but the context has room for {} and at least one of them is to be generated; "
       "shorten the prompt or give a larger --ctx",
       tokens, context);
}

Session::Session(const RunningModel& model, const Tokenizer& tokenizer, size_t context, int cache_bits)
    : model_(&model),
      tokenizer_(&tokenizer),
      cache_(model.config(), context, cache_bits, model.device()) {}

Generated Session::Continue(std::span<const int32_t> prompt, const GenerationOptions& options,
                            const std::function<void(const std::string&)>& show,
                            const std::function<bool()>& stop) {
  CheckPrompt(prompt.size(), context());
  Generated result;
  result.prompt_tokens = prompt.size();
  // The last token is read again where all of them were: its logits are not kept.
  const auto same = std::mismatch(read_.begin(), read_.end(), prompt.begin(), prompt.end());
  const size_t reused = std::min(static_cast<size_t>(same.first - read_.begin()), prompt.size() - 1);
  result.reused_tokens = reused;
  cache_.Truncate(std::min(reused, cache_.tokens()));
  read_.assign(prompt.begin(), prompt.begin() + static_cast<ptrdiff_t>(reused));

  const size_t room = context() - prompt.size();
  const size_t most = options.max_tokens == 0 ? room : std::min(room, options.max_tokens);
  Sampler sampler(options.sampling);
  TokenText decoder(*tokenizer_, prompt);
  StopStrings stops(options.stops);
  const auto out = [&](const std::string& text) {
    if (text.empty()) return;
    result.text += text;
    show(text);
  };
  std::vector<int32_t> text(prompt.begin(), prompt.end());
  const double began = MonotonicSeconds();
  double first = began;
  std::span<const int32_t> next = std::span(text).subspan(reused);
  while (true) {
    std::vector<float> logits;
    try {
      logits = model_->Continue(next, cache_);
    } catch (const Interrupted&) {
      result.finish = Finish::kInterrupted;
      break;
    }
    read_ = text;
    // Rows that only pad the vocabulary have no text.
    logits.resize(std::min(logits.size(), static_cast<size_t>(tokenizer_->vocab_size_with_added())));
    const std::vector<float> own = options.alternatives > 0 ? logits : std::vector<float>();
    const int32_t id = sampler.Choose(logits, text);
    if (result.tokens.empty()) first = MonotonicSeconds();
    if (options.ends.contains(id)) {
      result.finish = Finish::kEnd;
      break;
    }
    GeneratedToken token = {.id = id, .text = decoder.Add(id), .log_probability = 0, .alternatives = {}};
    if (!own.empty()) {
      token.alternatives = LikeliestTokens(own, options.alternatives, id);
      token.log_probability = token.alternatives.back().log_probability;
      token.alternatives.pop_back();
    }
    text.push_back(id);
    out(stops.Add(token.text));
    result.tokens.push_back(std::move(token));
    if (stops.found()) {
      result.finish = Finish::kStop;
      break;
    }
    if (result.tokens.size() >= most) {
      result.finish = Finish::kLength;
      break;
    }
    if (stop()) {
      result.finish = Finish::kInterrupted;
      break;
    }
    next = std::span(text).last(1);
  }
  const double ended = MonotonicSeconds();
  if (!stops.found()) {
    out(stops.Add(decoder.Finish()));
    out(stops.Finish());
  }
  result.prompt_seconds = (result.tokens.empty() ? ended : first) - began;
  result.decode_seconds = result.tokens.empty() ? 0 : ended - first;
  return result;
}

}  // namespace mica
