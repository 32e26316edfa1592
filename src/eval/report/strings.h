// Every word of a report, in every language, in one table.
#pragma once

#include <fmt/format.h>

#include <span>
#include <string>
#include <string_view>

namespace mica {

enum class Language { kEnglish, kChinese };

// "en" or "zh"; throws Error for others.
Language ParseLanguage(const std::string& name);
const char* LanguageTag(Language language);  // for <html lang>: "en", "zh-CN"

struct ReportString {
  std::string_view key;
  std::string_view english;  // fmt placeholders by number, the same ones in every language
  std::string_view chinese;
};
std::span<const ReportString> ReportStrings();

// The text of `key`; an unknown key is our bug.
std::string_view Translate(Language language, std::string_view key);
// The same for a key that may be unknown ("self_attn.q_proj", a new part of the file): then the key itself.
std::string TranslateOr(Language language, std::string_view prefix, const std::string& name);

template <typename... Args>
std::string Say(Language language, std::string_view key, const Args&... args) {
  return fmt::format(fmt::runtime(Translate(language, key)), args...);
}

}  // namespace mica
