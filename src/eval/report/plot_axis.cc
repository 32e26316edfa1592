#include "eval/report/plot_axis.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/units.h"

namespace mica {
namespace {

constexpr double kMargin = 0.04;  // of the axis beyond its values
constexpr size_t kMostTicks = 8;

// 1, 2 or 5 times a power of ten: the least that gives no more ticks than that.
double StepOf(double range) {
  const double least = range / static_cast<double>(kMostTicks);
  const double power = std::pow(10, std::floor(std::log10(least)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= least) return factor * power;
  }
  return 10 * power;
}

}  // namespace

std::string PlotFigure(Plot::Unit unit, double value) {
  switch (unit) {
    case Plot::Unit::kBytes:
      return FormatBytes(value);
    case Plot::Unit::kPercent:
      return fmt::format("{:.4g} %", value);
    case Plot::Unit::kBits:
    case Plot::Unit::kNats:
    case Plot::Unit::kSeconds:
      return fmt::format("{:.4g}", value);
  }
  return "";
}

PlotScale::PlotScale(const Plot::Axis& axis, const std::vector<double>& values) : logarithmic_(axis.logarithmic) {
  std::vector<double> shown;
  for (const double value : values) {
    if (!logarithmic_ || value > 0) shown.push_back(logarithmic_ ? std::log10(value) : value);
  }
  if (!shown.empty()) {
    const auto [least, most] = std::minmax_element(shown.begin(), shown.end());
    low_ = *least, high_ = *most;
  }
  const double smallest = logarithmic_ ? 0.2 : std::max(1e-9, 0.02 * std::fabs(high_));
  if (high_ - low_ < smallest) low_ -= smallest / 2, high_ += smallest / 2;
  const double margin = kMargin * (high_ - low_);
  low_ -= margin, high_ += margin;
  if (!logarithmic_) {
    const double step = StepOf(high_ - low_);
    for (double tick = std::ceil(low_ / step) * step; tick <= high_; tick += step)
      ticks_.push_back(std::fabs(tick) < step / 2 ? 0.0 : tick);
    return;
  }
  // All of 1 to 9 within a decade, 1, 2 and 5 within two, powers of ten beyond.
  const double range = high_ - low_;
  const std::vector<double> factors = range < 0.7   ? std::vector<double>{1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9}
                                      : range < 2.2 ? std::vector<double>{1, 2, 5}
                                                    : std::vector<double>{1};
  for (double power = std::floor(low_); power <= high_; power += 1) {
    for (const double factor : factors) {
      const double tick = factor * std::pow(10, power);
      if (On(tick) >= low_ && On(tick) <= high_) ticks_.push_back(tick);
    }
  }
}

std::vector<std::string> PlotScale::TickLabels(Plot::Unit unit) const {
  constexpr int kMostDecimals = 6;
  std::vector<std::string> labels;
  const auto all_differ = [&] { return std::ranges::adjacent_find(labels) == labels.end(); };
  for (const double tick : ticks_) labels.push_back(PlotFigure(unit, tick));
  if (unit != Plot::Unit::kBytes || ticks_.empty()) return labels;
  // All in the unit of the largest.
  const std::string largest = labels.back(), name = largest.substr(largest.find(' '));
  double one = 1;
  while (FormatBytes(ticks_.back() / one).find(" B") == std::string::npos) one *= 1000;
  for (int decimals = 0; decimals <= kMostDecimals; ++decimals) {
    labels.clear();
    bool exact = true;
    for (const double tick : ticks_) {
      labels.push_back(fmt::format("{:.{}f}{}", tick / one, decimals, name));
      exact = exact && std::fabs(std::stod(labels.back()) * one - tick) < 1e-9 * ticks_.back();
    }
    if (exact && all_differ()) break;
  }
  return labels;
}

double PlotScale::On(double value) const { return logarithmic_ ? std::log10(value) : value; }

double PlotScale::Place(double value) const {
  if (logarithmic_ && !(value > 0)) return 0;
  return std::clamp((On(value) - low_) / (high_ - low_), 0.0, 1.0);
}

}  // namespace mica
