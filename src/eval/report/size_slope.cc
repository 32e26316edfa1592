#include "eval/report/size_slope.h"

#include <algorithm>
#include <cmath>

namespace mica {
namespace {

constexpr double kStep = 0.5;                           // bits per compressed weight
constexpr double kLeastFactor = 1.2, kMostFactor = 20;  // that is believed

// ln of the factor, by the least squares of the losses that a search has measured; absent with fewer than two.
std::optional<double> MeasuredSlope(const QualityRecord& quality, double weights) {
  double n = 0, x = 0, y = 0, xx = 0, xy = 0;
  for (const QualityTrial& trial : quality.trials) {
    if (!trial.bytes || !trial.measured || !(*trial.measured > 0)) continue;
    const double bits = 8 * *trial.bytes / weights, loss = std::log(*trial.measured);
    n += 1, x += bits, y += loss, xx += bits * bits, xy += bits * loss;
  }
  const double spread = n * xx - x * x;
  if (n < 2 || !(spread > 1e-9)) return std::nullopt;
  const double factor = std::exp(-(n * xy - x * y) / spread);
  return factor >= kLeastFactor && factor <= kMostFactor ? std::optional(std::log(factor)) : std::nullopt;
}

}  // namespace

std::optional<SizeSlope> SlopeOf(const Comparison& comparison) {
  if (!comparison.compression || !comparison.compression->bytes_after || !comparison.compression->compressed_weights)
    return std::nullopt;
  SizeSlope slope;
  std::optional<double> kl, excess;
  bool all_have_kl = !comparison.sets.empty();
  for (const SetComparison& set : comparison.sets) {
    all_have_kl &= set.kl.has_value();
    kl = std::max(kl.value_or(0), set.kl.value_or(0));
    excess = std::max(excess.value_or(0), set.excess_nats.value_or(0));
  }
  slope.by_kl = all_have_kl;
  slope.now = {*comparison.compression->bytes_after, (all_have_kl ? kl : excess).value_or(0)};
  if (!(slope.now.loss > 0)) return std::nullopt;
  const double weights = *comparison.compression->compressed_weights;
  double log_factor = std::log(kUsualLossFactor);
  const std::optional<QualityRecord>& quality = comparison.compressed.model.compression->quality;
  if (const auto measured = quality ? MeasuredSlope(*quality, weights) : std::nullopt) {
    log_factor = *measured;
    slope.measured = true;
  }
  slope.factor = std::exp(log_factor);
  const auto at = [&](double bits) {
    return SizeSlope::Step{slope.now.bytes + bits * weights / 8, slope.now.loss * std::exp(-log_factor * bits)};
  };
  slope.smaller = at(-kStep);
  slope.larger = at(kStep);
  // A file that would be smaller than nothing says nothing.
  if (!(slope.smaller.bytes > 0)) return std::nullopt;
  return slope;
}

}  // namespace mica
