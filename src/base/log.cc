#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdio>
#include <mutex>
#include <set>

#include "base/error.h"
#include "base/terminal.h"
#include "base/text.h"

namespace mica {
namespace {

constexpr size_t kLineBytes = 8192;  // of a message at most: two paths and what is said of them

spdlog::logger& Logger() {
  static const std::shared_ptr<spdlog::logger> logger = [] {
    const auto colours = TakesColours(STDERR_FILENO) ? spdlog::color_mode::always : spdlog::color_mode::never;
    auto created = std::make_shared<spdlog::logger>(
        "mica", std::make_shared<spdlog::sinks::stderr_color_sink_mt>(colours));
    created->set_pattern("%^%l%$: %v");
    created->set_level(spdlog::level::info);
    return created;
  }();
  return *logger;
}

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kDebug:
      return spdlog::level::debug;
  }
  return spdlog::level::info;
}

}  // namespace

LogLevel ParseLogLevel(const std::string& name) {
  if (name == "error") return LogLevel::kError;
  if (name == "warning") return LogLevel::kWarning;
  if (name == "info") return LogLevel::kInfo;
  if (name == "debug") return LogLevel::kDebug;
  Fail("--log-level is '{}', expected error, warning, info or debug", name);
}

void LogWarningOnce(const std::string& message) {
  static std::mutex mutex;
  static std::set<std::string> shown;
  const std::lock_guard<std::mutex> lock(mutex);
  if (shown.insert(message).second) LogMessage(LogLevel::kWarning, message);
}

void SetLogLevel(LogLevel level) { Logger().set_level(ToSpdlog(level)); }
bool LogEnabled(LogLevel level) { return Logger().should_log(ToSpdlog(level)); }

void LogMessage(LogLevel level, const std::string& message) {
  if (!LogEnabled(level)) return;
  WipeOpenLine();
  Logger().log(ToSpdlog(level), "{}", Printable(message, kLineBytes));
}

void LogFailure(const std::string& message) {
  WipeOpenLine();
  std::fputs(("mica: " + Printable(message, kLineBytes) + "\n").c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace mica
