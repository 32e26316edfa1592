// Two kinds of failure, kept apart: a caller's fault throws Error and becomes one line and exit code 1 at the
// command line's edge; a fault of our own stops the program at MICA_CHECK.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace mica {

// The message says where, what was found, what was expected and what to do, in one line.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Thrown at the next safe point after Ctrl-C or SIGTERM (base/interrupt.h).
class Interrupted : public Error {
 public:
  using Error::Error;
};

// Throws Error with the formatted message.
template <typename... Args>
[[noreturn]] void Fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

namespace internal {
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);
}

}  // namespace mica

// An invariant of our own code: prints the place and aborts, in every build type.
#define MICA_CHECK(condition)                                                        \
  do {                                                                               \
    if (!(condition)) ::mica::internal::CheckFailed(__FILE__, __LINE__, #condition); \
  } while (false)
