#include "io/text/decoder.h"

#include <charconv>
#include <optional>
#include <string_view>
#include <utility>

namespace mica {
namespace {

void Change(const BytesOfTokens&, std::vector<std::string>& tokens) {
  for (std::string& token : tokens) {
    if (const std::optional<char> byte = ByteOfToken(token)) token = std::string(1, *byte);
  }
}

void Change(const ReplaceInTokens& step, std::vector<std::string>& tokens) {
  Matcher matcher(step.pattern);
  for (std::string& token : tokens) {
    if (token.empty()) continue;
    std::string changed;
    size_t done = 0;
    matcher.Start(token);
    while (const std::optional<Matcher::Match> match = matcher.Next()) {
      changed.append(token, done, match->begin - done).append(step.by);
      done = match->end;
    }
    changed.append(token, done);
    token = std::move(changed);
  }
}

void Change(const FuseTokens&, std::vector<std::string>& tokens) {
  std::string fused;
  for (const std::string& token : tokens) fused += token;
  tokens = {std::move(fused)};
}

void Change(const StripTokens& step, std::vector<std::string>& tokens) {
  for (std::string& token : tokens) {
    std::string_view rest = token;
    for (size_t i = 0; i < step.start && rest.starts_with(step.content); ++i)
      rest.remove_prefix(step.content.size());
    for (size_t i = 0; i < step.stop && rest.ends_with(step.content); ++i)
      rest.remove_suffix(step.content.size());
    token = std::string(rest);
  }
}

void Change(const BlanksOfTokens& step, std::vector<std::string>& tokens) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::string changed;
    size_t done = 0;
    for (size_t at = 0; (at = tokens[i].find(step.replacement, done)) != std::string::npos;) {
      changed.append(tokens[i], done, at - done);
      if (i > 0 || !step.in_front) changed += ' ';
      done = at + step.replacement.size();
    }
    changed.append(tokens[i], done);
    tokens[i] = std::move(changed);
  }
}

}  // namespace

std::optional<char> ByteOfToken(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  unsigned byte = 0;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
  if (error != std::errc() || end != token.data() + 5) return std::nullopt;
  return static_cast<char>(byte);
}

std::string Decoder::Decode(std::vector<std::string> tokens) const {
  for (const DecoderStep& step : steps_) std::visit([&](const auto& kind) { Change(kind, tokens); }, step);
  std::string text;
  for (size_t i = 0; i < tokens.size(); ++i) text.append(i == 0 ? "" : separator_).append(tokens[i]);
  return text;
}

}  // namespace mica
