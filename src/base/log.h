// Messages for people, on stderr (results go to stdout).
#pragma once

#include <fmt/format.h>

#include <string>

namespace mica {

enum class LogLevel { kError, kWarning, kInfo, kDebug };

// Throws Error for anything but "error", "warning", "info", "debug".
LogLevel ParseLogLevel(const std::string& name);
void SetLogLevel(LogLevel level);
// Whether messages of this level are said.
bool LogEnabled(LogLevel level);
// One line on stderr, made printable (base/text.h).
void LogMessage(LogLevel level, const std::string& message);
// "mica: MESSAGE", the line that a command ends with when it fails; said at every level.
void LogFailure(const std::string& message);

template <typename... Args>
void LogWarning(fmt::format_string<Args...> format, Args&&... args) {
  LogMessage(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
// A warning about what the user has, not about what happens: shown once a process, however often it is met.
void LogWarningOnce(const std::string& message);
template <typename... Args>
void LogWarningOnce(fmt::format_string<Args...> format, Args&&... args) requires(sizeof...(Args) > 0) {
  LogWarningOnce(fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void LogInfo(fmt::format_string<Args...> format, Args&&... args) {
  LogMessage(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void LogDebug(fmt::format_string<Args...> format, Args&&... args) {
  LogMessage(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace mica
