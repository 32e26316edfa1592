#include "base/units.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <numbers>
#include <string_view>
#include <system_error>

#include "base/error.h"

namespace mica {

std::string FormatDuration(double seconds) {
  const long total = std::lround(std::max(0.0, seconds));
  if (total < 3600) return fmt::format("{}:{:02}", total / 60, total % 60);
  return fmt::format("{}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60);
}

std::string FormatPerplexity(double nats, int decimals) {
  constexpr double kMostPlain = 1e7;
  if (nats < std::log(kMostPlain)) return fmt::format("{:.{}f}", std::exp(nats), decimals);
  const double digits = nats / std::numbers::ln10;
  double exponent = std::floor(digits);
  double mantissa = std::round(10 * std::pow(10, digits - exponent)) / 10;
  if (mantissa >= 10) mantissa /= 10, exponent += 1;
  return fmt::format("{:.1f}e+{:.0f}", mantissa, exponent);
}

std::string FormatBytes(double bytes) {
  const char* const units[] = {"B", "kB", "MB", "GB", "TB"};
  int unit = 0;
  while (bytes >= 999.95 && unit < 4) bytes /= 1000, ++unit;
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, units[unit]);
}

uint64_t ParseBytes(const std::string& text, const std::string& option) {
  // from_chars takes neither blanks nor hexadecimal digits, and its "nan" and "inf" fail below.
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [number_end, code] = std::from_chars(text.data(), end, value);
  std::string unit(number_end, end);
  if (!unit.empty() && (unit.back() == 'B' || unit.back() == 'b')) unit.pop_back();
  double factor = 0;
  if (unit.empty()) factor = 1;
  const bool binary = unit.size() == 2 && unit[1] == 'i';
  if (unit.size() == 1 || binary) {
    const size_t power = std::string_view("KMGT").find(unit[0] == 'k' ? 'K' : unit[0]);
    if (power != std::string_view::npos)
      factor = std::pow(binary ? 1024.0 : 1000.0, static_cast<double>(power + 1));
  }
  // Whole, but for what a product of decimals is off by.
  const double bytes = std::round(value * factor);
  const bool whole = std::fabs(value * factor - bytes) <= 1e-9 * bytes;
  if (code != std::errc() || factor == 0 || !(bytes >= 1 && bytes < 1e18) || !whole) {
    Fail("{} is '{}', expected a whole number of bytes such as 40000000, 40MB or 6.5GB", option, text);
  }
  return static_cast<uint64_t>(bytes);
}

}  // namespace mica
