// Two kinds of failure, kept apart: a caller's fault throws Error and becomes one line and exit code 1 at the
// command line's edge; a fault of our own stops the program at MICA_CHECK.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace mica {

// The message says where, what was found, what was expected and what to do, in one line.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Thrown at the next safe point after Ctrl-C or SIGTERM (base/system.h).
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

// What a check found, as its message shows it.
std::string ShownInteger(long long value);
std::string ShownUnsigned(unsigned long long value);
std::string ShownNumber(double value);
std::string ShownString(std::string_view value);

template <typename T>
std::string Shown(const T& value) {
  if constexpr (std::is_null_pointer_v<T>) {
    return "null";
  } else if constexpr (std::is_pointer_v<T>) {
    return value == nullptr ? "null" : "not null";
  } else if constexpr (std::is_same_v<T, bool>) {
    return value ? "true" : "false";
  } else if constexpr (std::is_enum_v<T>) {
    return ShownInteger(static_cast<long long>(value));
  } else if constexpr (std::is_integral_v<T>) {
    return std::is_signed_v<T> ? ShownInteger(static_cast<long long>(value))
                               : ShownUnsigned(static_cast<unsigned long long>(value));
  } else if constexpr (std::is_floating_point_v<T>) {
    return ShownNumber(static_cast<double>(value));
  } else if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    return ShownString(value);
  } else if constexpr (requires { value == nullptr; }) {
    return value == nullptr ? "null" : "not null";
  } else {
    return "?";
  }
}

// The outcome of a comparison, with both values when it does not hold.
struct Compared {
  bool holds;
  std::string values;
  explicit operator bool() const { return holds; }
};

// The left side of a condition; a comparison with the right side remembers both. Integers of different signs
// are compared by their values.
template <typename L>
class LeftSide {
 public:
  explicit LeftSide(const L& left) : left_(left) {}
  template <typename R>
  Compared operator==(const R& right) const {
    if constexpr (kIntegers<R>)
      return Outcome(std::cmp_equal(left_, right), right);
    else
      return Outcome(left_ == right, right);
  }
  template <typename R>
  Compared operator!=(const R& right) const {
    if constexpr (kIntegers<R>)
      return Outcome(std::cmp_not_equal(left_, right), right);
    else
      return Outcome(left_ != right, right);
  }
  template <typename R>
  Compared operator<(const R& right) const {
    if constexpr (kIntegers<R>)
      return Outcome(std::cmp_less(left_, right), right);
    else
      return Outcome(left_ < right, right);
  }
  template <typename R>
  Compared operator<=(const R& right) const {
    if constexpr (kIntegers<R>)
      return Outcome(std::cmp_less_equal(left_, right), right);
    else
      return Outcome(left_ <= right, right);
  }
  template <typename R>
  Compared operator>(const R& right) const {
    if constexpr (kIntegers<R>)
      return Outcome(std::cmp_greater(left_, right), right);
    else
      return Outcome(left_ > right, right);
  }
  template <typename R>
  Compared operator>=(const R& right) const {
    if constexpr (kIntegers<R>)
      return Outcome(std::cmp_greater_equal(left_, right), right);
    else
      return Outcome(left_ >= right, right);
  }
  explicit operator bool() const { return static_cast<bool>(left_); }

 private:
  template <typename T>
  static constexpr bool kInteger =
      std::is_integral_v<T> && !std::is_same_v<T, bool> && !std::is_same_v<T, char>;
  template <typename R>
  static constexpr bool kIntegers = kInteger<L>&& kInteger<R>;
  template <typename R>
  Compared Outcome(bool holds, const R& right) const {
    if (holds) [[likely]]
      return {true, {}};
    return {false, Shown(left_) + " and " + Shown(right)};
  }

  const L& left_;
};

struct Decomposer {
  template <typename L>
  LeftSide<L> operator<<(const L& left) const {
    return LeftSide<L>(left);
  }
};

[[noreturn]] void CheckFailed(const char* file, int line, const char* condition, const std::string& values);

inline void Check(const char* file, int line, const char* condition, const Compared& compared) {
  if (!compared.holds) [[unlikely]]
    CheckFailed(file, line, condition, compared.values);
}
template <typename L>
void Check(const char* file, int line, const char* condition, const LeftSide<L>& value) {
  if (!static_cast<bool>(value)) [[unlikely]]
    CheckFailed(file, line, condition, {});
}
inline void Check(const char* file, int line, const char* condition, bool holds) {
  if (!holds) [[unlikely]]
    CheckFailed(file, line, condition, {});
}

}  // namespace internal

}  // namespace mica

// An invariant of our own code: prints the place, and the values if it is one comparison, and aborts, in
// every build type. A condition that is always false ends its path for the compiler, too.
#define MICA_CHECK(condition)                                                                             \
  do {                                                                                                    \
    ::mica::internal::Check(__FILE__, __LINE__, #condition, ::mica::internal::Decomposer() << condition); \
    if (__builtin_constant_p(condition) && !(condition)) __builtin_unreachable();                         \
  } while (false)
