#include "base/units.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numbers>

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
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  std::string unit(end);
  if (!unit.empty() && (unit.back() == 'B' || unit.back() == 'b')) unit.pop_back();
  double factor = 0;
  if (unit.empty()) factor = 1;
  if (unit == "k" || unit == "K") factor = 1e3;
  if (unit == "M") factor = 1e6;
  if (unit == "G") factor = 1e9;
  const double bytes = value * factor;
  if (end == text.c_str() || factor == 0 || !(bytes >= 1 && bytes < 1e18)) {
    Fail("{} is '{}', expected a number of bytes such as 40000000, 40MB or 6.5GB", option, text);
  }
  return static_cast<uint64_t>(bytes);
}

}  // namespace mica
