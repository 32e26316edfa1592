#include "compress/budget/rate_control.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace mica {
namespace {

constexpr int kBinsPerOctave = 8;
constexpr int kFirstOctave = -32;  // of the expected sizes at c = 1
constexpr int kLastOctave = 64;
constexpr int kBins = (kLastOctave - kFirstOctave) * kBinsPerOctave;
// Weights in units of their expected size: a generalised Gaussian, its shape measured on trained models
// (docs/method.md).
constexpr double kShape = 1.3;
constexpr double kNextMatrixWeight =
    0.25;  // of the matrices to come, how much evidence the first correction leans on

// Prices of a non-zero that are searched, in squared steps: beyond the highest, what is left has at least 64
// steps and no use for finer ones.
constexpr double kUsualPrice = 64, kHighestPrice = 4096;
constexpr double kZeroTolerance = 0.01;  // by which predicted zeros may be too few to begin

// Entropy (bits, sign included) and share of zeros of a weight of standard deviation `size` steps, rounded
// with a price on non-zeros.
struct Point {
  double bits = 0, zero = 0;
};

Point RateOf(double size, double zero_price) {
  constexpr double kLargest = 128;  // beyond it the law of high rates holds: a bit for each doubling
  if (size > kLargest) {
    Point point = RateOf(kLargest, zero_price);
    point.bits += std::log2(size / kLargest);
    point.zero *= kLargest / size;
    return point;
  }
  // |w| = size * a * g, P(g) ~ exp(-g^shape); integrated over cells of the quantiser by a fine grid on g.
  static const double scale = std::sqrt(std::tgamma(1 / kShape) / std::tgamma(3 / kShape));
  static const std::vector<double> cumulative = [] {
    std::vector<double> sum = {0.0};  // at g = i / 100
    for (int i = 0; i < 4000; ++i) sum.push_back(sum.back() + std::exp(-std::pow((i + 0.5) / 100, kShape)));
    for (double& s : sum) s /= sum.back();
    return sum;
  }();
  const auto below = [&](double magnitude) {  // P(|w| < magnitude steps)
    const double position = 100 * magnitude / (size * scale);
    if (position >= 4000) return 1.0;
    const size_t i = static_cast<size_t>(position);
    return cumulative[i] + (position - static_cast<double>(i)) * (cumulative[i + 1] - cumulative[i]);
  };
  // Zero is the cheapest below the point where x^2 = min over m of (x - m)^2 + price.
  const double threshold = zero_price <= 1 ? 0.5 * (1 + zero_price) : std::sqrt(zero_price);
  Point point;
  const auto add = [&](double p, double sign_bits) {
    if (p > 1e-12) point.bits += p * (sign_bits - std::log2(p));
  };
  point.zero = below(threshold);
  add(point.zero, 0);
  double from = threshold;
  for (int m = std::max(1, static_cast<int>(threshold + 0.5)); m < 4096; ++m) {
    const double to = std::max(from, m + 0.5);
    add(below(to) - below(from), 1);
    from = to;
    if (below(to) > 1 - 1e-9) break;
  }
  return point;
}

// RateOf at one price, interpolated between sizes.
class RateTable {
 public:
  explicit RateTable(double zero_price) {
    for (int i = 0; i <= (kLast - kFirst) * kPerOctave; ++i)
      points_.push_back(RateOf(std::exp2(kFirst + static_cast<double>(i) / kPerOctave), zero_price));
  }
  Point operator()(double log2_size) const {
    const double position = (log2_size - kFirst) * kPerOctave;
    if (position <= 0) return {0, 1};  // too small ever to be anything but zero
    const double last = static_cast<double>(points_.size() - 1);
    if (position >= last) return {points_.back().bits + (position - last) / kPerOctave, 0};
    const size_t i = static_cast<size_t>(position);
    const double share = position - static_cast<double>(i);
    return {points_[i].bits + share * (points_[i + 1].bits - points_[i].bits),
            points_[i].zero + share * (points_[i + 1].zero - points_[i].zero)};
  }

 private:
  static constexpr int kFirst = -16, kLast = 8, kPerOctave = 16;
  std::vector<Point> points_;
};

const RateTable& FreeRates() {
  static const RateTable table(0.0);
  return table;
}

// log2 of the step of a scalar quantiser with the rate of the trellis: half of its quantisers' steps are
// twice as large.
constexpr double kTrellisShift = 0.95;

}  // namespace

RateControl::RateControl(const std::vector<StepSizes>& sizes, double budget_bits, double zero_share,
                         bool trellis, const std::vector<double>& least_bits)
    : budget_bits_(budget_bits), zero_share_(zero_share), trellis_(trellis) {
  MICA_CHECK(least_bits.empty() || least_bits.size() == sizes.size());
  for (const StepSizes& size : sizes) {
    Demand demand;
    if (!least_bits.empty()) demand.least_bits = least_bits[single_.size()];
    demand.weights.assign(kBins, 0.0);
    const auto histogram = [](const std::vector<float>& values, int offset) {
      std::vector<double> counts(kBins, 0.0);
      for (const float v : values) {
        counts[static_cast<size_t>(
            std::clamp(static_cast<int>(std::lround(v * kBinsPerOctave)) + offset, 0, kBins - 1))] += 1;
      }
      return counts;
    };
    const int offset = -kFirstOctave * kBinsPerOctave;
    const std::vector<double> rows = histogram(size.row, offset), cols = histogram(size.col, offset);
    for (int i = 0; i < kBins; ++i) {
      if (rows[static_cast<size_t>(i)] == 0) continue;
      for (int j = 0; j < kBins; ++j) {
        if (cols[static_cast<size_t>(j)] == 0) continue;
        demand.weights[static_cast<size_t>(std::clamp(i + j - offset, 0, kBins - 1))] +=
            rows[static_cast<size_t>(i)] * cols[static_cast<size_t>(j)];
      }
    }
    demand.total = static_cast<double>(size.row.size()) * static_cast<double>(size.col.size());
    single_.push_back(std::move(demand));
  }
  rest_.resize(single_.size() + 1);
  rest_.back().weights.assign(kBins, 0.0);
  for (size_t i = single_.size(); i-- > 0;) {
    rest_[i] = rest_[i + 1];
    rest_[i].total += single_[i].total;
    rest_[i].least_bits += single_[i].least_bits;
    for (size_t b = 0; b < rest_[i].weights.size(); ++b) rest_[i].weights[b] += single_[i].weights[b];
  }
  CheckZeros();
}

template <typename Rates>
RateControl::Prediction RateControl::Predict(const Demand& demand, double log2_c, const Rates& rates) const {
  Prediction prediction{demand.least_bits, 0};
  const double shift = log2_c + (trellis_ ? kTrellisShift : 0.0);
  for (size_t b = 0; b < demand.weights.size(); ++b) {
    if (demand.weights[b] == 0) continue;
    const Point point = rates(static_cast<double>(b) / kBinsPerOctave + kFirstOctave - shift);
    prediction.bits += demand.weights[b] * point.bits;
    prediction.zeros += demand.weights[b] * point.zero;
  }
  return prediction;
}

template <typename Rates>
double RateControl::StepFor(const Demand& demand, double bits, const Rates& rates) const {
  double low = -60, high = 60;  // bits fall as log2 c rises
  for (int i = 0; i < 50; ++i) {
    const double middle = 0.5 * (low + high);
    (Predict(demand, middle, rates).bits > bits ? low : high) = middle;
  }
  return high;
}

double RateControl::Zeros(const Demand& demand, double bits, double zero_price) const {
  const RateTable rates(zero_price);
  return Predict(demand, StepFor(demand, bits, rates), rates).zeros;
}

void RateControl::CheckZeros() const {
  const Demand& all = rest_[0];
  const double wanted = (zero_share_ - kZeroTolerance) * all.total;
  if (wanted <= 0 || Zeros(all, budget_bits_, kHighestPrice) >= wanted) return;
  double low = 0, high = budget_bits_;
  for (int i = 0; i < 24; ++i) {
    const double middle = 0.5 * (low + high);
    (Zeros(all, middle, kHighestPrice) >= wanted ? low : high) = middle;
  }
  Fail(
      "a budget of {:.3f} bits per weight is out of reach with {:.1f} % zeros: the weights left have no use "
      "for "
      "more than {:.2f}; ask for fewer bits or a lower --sparsity",
      budget_bits_ / all.total, 100 * zero_share_, std::floor(100 * low / all.total) / 100);
}

RateControl::Choice RateControl::Next(size_t count) {
  MICA_CHECK(count > 0);
  MICA_CHECK(chosen_ + count <= single_.size());
  const Demand& rest = rest_[chosen_];
  const double all = rest_[0].total;
  Prediction open;
  for (const Prediction& one : open_) open.bits += one.bits, open.zeros += one.zeros;
  // What a weight took more than predicted so far; few matrices are weak evidence.
  const double trust = weights_ / (weights_ + kNextMatrixWeight * all / static_cast<double>(single_.size()));
  const double bits_bias = weights_ > 0 ? trust * (bits_ - predicted_.bits) / weights_ : 0;
  const double zeros_bias = weights_ > 0 ? trust * (zeros_ - predicted_.zeros) / weights_ : 0;
  const double unknown = all - weights_;
  const double bits_left = budget_bits_ - bits_ - open.bits - bits_bias * unknown;
  const double zeros_left = zero_share_ * all - zeros_ - open.zeros - zeros_bias * unknown;

  Choice choice;
  const auto predict = [&](const auto& rates) {
    choice.predicted.clear();
    for (size_t i = 0; i < count; ++i)
      choice.predicted.push_back(Predict(single_[chosen_ + i], choice.log2_c, rates));
  };
  choice.log2_c = StepFor(rest, bits_left, FreeRates());
  if (zero_share_ > 0 && Predict(rest, choice.log2_c, FreeRates()).zeros < zeros_left) {
    double low = 0, high = kUsualPrice;
    if (Zeros(rest, bits_left, high) < zeros_left) low = high, high = kHighestPrice;
    for (int i = 0; i < 24; ++i) {
      const double middle = 0.5 * (low + high);
      (Zeros(rest, bits_left, middle) < zeros_left ? low : high) = middle;
    }
    const RateTable rates(high);
    choice.zero_price = high;
    choice.log2_c = StepFor(rest, bits_left, rates);
    predict(rates);
  } else {
    predict(FreeRates());
  }
  Take(choice.predicted);
  return choice;
}

double RateControl::bits_left() const {
  double left = budget_bits_ - bits_;
  for (const Prediction& one : open_) left -= one.bits;
  return left;
}

void RateControl::Take(const std::vector<Prediction>& predicted) {
  MICA_CHECK(chosen_ + predicted.size() <= single_.size());
  chosen_ += predicted.size();
  open_.insert(open_.end(), predicted.begin(), predicted.end());
}

void RateControl::Record(double stored_bits, double zeros) {
  MICA_CHECK(!open_.empty());
  bits_ += stored_bits;
  zeros_ += zeros;
  predicted_.bits += open_.front().bits;
  predicted_.zeros += open_.front().zeros;
  weights_ += single_[chosen_ - open_.size()].total;
  open_.pop_front();
}

}  // namespace mica
