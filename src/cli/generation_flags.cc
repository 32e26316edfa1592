#include "cli/generation_flags.h"

#include <fmt/format.h>

#include "record/options.h"

namespace mica {

Json GenerationValue(const Json& given, const char* name) {
  return ValueOf(given, FindOption(GenerationOptionTable(), name));
}

int CacheBits(const Json& given) {
  return std::stoi(GenerationValue(given, "kv-bits").get<std::string>());
}

GenerationOptions GenerationOptionsOf(const Json& given, uint64_t seed, bool alternatives) {
  const auto value = [&](const char* name) { return GenerationValue(given, name); };
  GenerationOptions options;
  options.sampling = {.temperature = value("temperature"),
                      .top_k = value("top-k"),
                      .top_p = value("top-p"),
                      .min_p = value("min-p"),
                      .repeat_penalty = value("repeat-penalty"),
                      .seed = seed};
  options.max_tokens = value("max-tokens");
  if (const Json stops = value("stop"); !stops.is_null()) options.stops = stops.get<std::vector<std::string>>();
  options.alternatives = alternatives ? value("top").get<size_t>() : 0;
  return options;
}

std::string SpeedText(const Generated& generated) {
  const double prompt = static_cast<double>(generated.prompt_tokens - generated.reused_tokens);
  std::string text =
      fmt::format("first token after {:.2f} s; prompt: {} tokens", generated.prompt_seconds, generated.prompt_tokens);
  if (generated.reused_tokens > 0) text += fmt::format(" ({} known)", generated.reused_tokens);
  if (generated.prompt_seconds > 0) text += fmt::format(", {:.1f} tokens/s", prompt / generated.prompt_seconds);
  text += fmt::format("; answer: {} tokens", generated.tokens.size());
  if (generated.tokens.size() > 1 && generated.decode_seconds > 0) {
    text += fmt::format(", {:.1f} tokens/s",
                        static_cast<double>(generated.tokens.size() - 1) / generated.decode_seconds);
  }
  return text;
}

}  // namespace mica
