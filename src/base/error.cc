#include "base/error.h"

#include <cstdio>
#include <cstdlib>

namespace mica::internal {

std::string ShownInteger(long long value) { return fmt::format("{}", value); }
std::string ShownUnsigned(unsigned long long value) { return fmt::format("{}", value); }
std::string ShownNumber(double value) { return fmt::format("{}", value); }
std::string ShownString(std::string_view value) { return fmt::format("'{}'", value); }

void CheckFailed(const char* file, int line, const char* condition, const std::string& values) {
  std::string_view place(file);
  if (const size_t source = place.rfind("/src/"); source != std::string_view::npos)
    place.remove_prefix(source + 1);
  const std::string message =
      fmt::format("mica: internal error at {}:{}: {} does not hold{}; please report this\n", place, line,
                  condition, values.empty() ? "" : " (" + values + ")");
  std::fputs(message.c_str(), stderr);
  std::abort();
}

}  // namespace mica::internal
