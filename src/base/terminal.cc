#include "base/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace mica {
namespace {

std::atomic<bool> g_open_line{false};

std::string_view Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

bool MovesCursor(int descriptor) {
  const std::string_view term = Environment("TERM");
  return ::isatty(descriptor) == 1 && !term.empty() && term != "dumb";
}

bool TakesColours(int descriptor) { return MovesCursor(descriptor) && Environment("NO_COLOR").empty(); }

size_t TerminalColumns(int descriptor, size_t otherwise) {
  constexpr int kLeast = 20;
  if (::isatty(descriptor) != 1) return otherwise;
  struct winsize size = {};
  const bool says = ::ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  const int columns = says ? size.ws_col : std::atoi(Environment("COLUMNS").data());
  return columns > 0 ? static_cast<size_t>(std::max(kLeast, columns)) : otherwise;
}

void SetOpenLine(bool open) { g_open_line = open; }

void WipeOpenLine() {
  if (g_open_line.exchange(false)) std::fputs("\r\033[K", stderr);
}

}  // namespace mica
