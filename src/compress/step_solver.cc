#include "compress/step_solver.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/linalg.h"

namespace mica {
namespace {

constexpr size_t kFeedCols = 32;  // columns between two products that carry errors to all later columns
constexpr double kStepsPerOctave = 8;
// Squared steps that a bit is worth at high rate: dD/dR = 2 ln 2 D with D = 1/12; the trellis halves the step
// at equal rate.
constexpr float kScalarSlope = 0.1155f;
constexpr float kTrellisSlope = 0.37f;
constexpr int kTrellisStates = 8;

int Eighths(double log2_value) { return static_cast<int>(std::lround(kStepsPerOctave * log2_value)); }

// u <- h in the order given, damped until the inverse's factor exists; returns how often the damping had to
// be doubled.
int FactorInverse(MatrixView<const float> h, const std::vector<uint32_t>& order, double damping,
                  Matrix<float>& u) {
  const size_t n = h.rows;
  double trace = 0;
  for (size_t j = 0; j < n; ++j) trace += h(j, j);
  if (!std::isfinite(trace))
    Fail("second moments of {} input channels are not finite; the calibration activations overflow", n);
  const double mean = trace > 0 ? trace / static_cast<double>(n) : 1.0;
  for (int doublings = 0;; ++doublings) {
    ParallelFor(n, [&](size_t i) {
      for (size_t j = 0; j < n; ++j) u(i, j) = h(order[i], order[j]);
      u(i, i) += static_cast<float>(u(i, i) > 0 ? damping * mean : mean);
    });
    if (CholeskyOfInverseUpper(u)) return doublings;
    if (doublings == 24)
      Fail("second moments of {} input channels are not positive definite at any damping", n);
    damping = std::max(2 * damping, 1e-6);
  }
}

// One column of a tile.
struct TileColumn {
  const float* w;            // [rows] values to quantise
  const float* inverse;      // [rows] 1 / step
  const int16_t* row_class;  // [rows]; null without rates
  int col_class;
  size_t rows;
};

class Chooser {
 public:
  Chooser(const EntropyRates* rates, const StepSettings& settings)
      : rates_(rates),
        lambda_(static_cast<float>(settings.lambda) * (settings.trellis ? kTrellisSlope : kScalarSlope)),
        zero_price_(static_cast<float>(settings.zero_price) * (settings.trellis ? 4.0f : 1.0f)) {}

  // Each weight on its own: the nearest integer, the one before it or zero, whichever is cheapest.
  void RoundColumn(const TileColumn& column, int16_t* n) const {
    for (size_t r = 0; r < column.rows; ++r) {
      const float x = std::fabs(column.w[r]) * column.inverse[r];
      const int nearest = static_cast<int>(std::min(x + 0.5f, static_cast<float>(kMaxInteger)));
      int best = nearest;
      if (rates_ != nullptr || zero_price_ > 0) {
        const float* bits = RatesOf(0, column, r);
        best = 0;
        float least = x * x + Price(bits, 0);
        for (int m = std::max(1, nearest - 1); m <= nearest; ++m) {
          const float d = x - static_cast<float>(m);
          const float cost = d * d + Price(bits, m) + zero_price_;
          if (cost < least) least = cost, best = m;
        }
      }
      n[r] = static_cast<int16_t>(column.w[r] < 0 ? -best : best);
    }
  }

  // The cheapest path of the trellis from state 0 (Viterbi); at most kTileRows rows.
  void FollowTrellis(const TileColumn& column, int16_t* n) const {
    constexpr float kNever = 1e30f;
    uint8_t from[kTileRows][kTrellisStates];
    int16_t magnitude[kTileRows][2][2];
    float total[kTrellisStates];
    std::fill_n(total, kTrellisStates, kNever);
    total[0] = 0;
    for (size_t r = 0; r < column.rows; ++r) {
      const float x = std::fabs(column.w[r]) * column.inverse[r];
      float cost[2][2];  // by quantiser and parity of |n|
      for (int q = 0; q < 2; ++q) {
        const float* bits = RatesOf(q, column, r);
        for (int parity = 0; parity < 2; ++parity)
          Candidate(x, q, parity, bits, &cost[q][parity], &magnitude[r][q][parity]);
      }
      float next[kTrellisStates];
      std::fill_n(next, kTrellisStates, kNever);
      for (int s = 0; s < kTrellisStates; ++s) {
        for (int parity = 0; parity < 2; ++parity) {
          const float path = total[s] + cost[trellis_.quantiser[static_cast<size_t>(s)]][parity];
          const int to = trellis_.next[static_cast<size_t>(s)][static_cast<size_t>(parity)];
          if (path < next[to]) next[to] = path, from[r][to] = static_cast<uint8_t>(2 * s + parity);
        }
      }
      const float floor = *std::min_element(next, next + kTrellisStates);
      for (int s = 0; s < kTrellisStates; ++s) total[s] = next[s] < kNever / 2 ? next[s] - floor : kNever;
    }
    int state = static_cast<int>(std::min_element(total, total + kTrellisStates) - total);
    for (size_t r = column.rows; r-- > 0;) {
      const int before = from[r][state] / 2, parity = from[r][state] % 2;
      const int16_t m = magnitude[r][trellis_.quantiser[static_cast<size_t>(before)]][parity];
      n[r] = static_cast<int16_t>(column.w[r] < 0 ? -m : m);
      state = before;
    }
  }

 private:
  // Levels of one quantiser and parity are 4 steps apart (2 m - q for m = parity, parity + 2, ...): the
  // nearest and the one before it.
  void Candidate(float x, int q, int parity, const float* bits, float* cost, int16_t* magnitude) const {
    const float position = 0.5f * (x + static_cast<float>(q));  // in m
    const float capped = std::min(0.5f * (position - static_cast<float>(parity)), 16000.0f);
    const int nearest = parity + 2 * std::max(0, static_cast<int>(capped + 0.5f));
    *cost = 1e30f;
    for (int m = nearest; m >= std::max(parity, nearest - 2); m -= 2) {
      const float d = x - static_cast<float>(trellis_.Level(m, q));
      const float c = d * d + Price(bits, m) + (m == 0 ? 0.0f : zero_price_);
      if (c < *cost) *cost = c, *magnitude = static_cast<int16_t>(m);
    }
  }
  const float* RatesOf(int quantiser, const TileColumn& column, size_t r) const {
    return rates_ == nullptr ? nullptr : rates_->Bits(quantiser, column.row_class[r] + column.col_class);
  }
  float Price(const float* bits, int m) const {
    return bits == nullptr ? 0.0f : lambda_ * bits[std::min(m, EntropyRates::kMagnitudes - 1)];
  }

  const Trellis& trellis_ = TrellisOf(kTrellisStates);
  const EntropyRates* rates_;
  const float lambda_;
  const float zero_price_;
};

}  // namespace

StepPlan PlanSteps(MatrixView<const float> h, const std::vector<double>& fisher,
                   const StepSettings& settings) {
  StepPlan plan;
  const size_t cols = h.rows, rows = fisher.size();
  plan.order.resize(cols);
  std::iota(plan.order.begin(), plan.order.end(), 0u);
  for (size_t j = 0; j < cols; ++j) plan.dead_channels += h(j, j) > 0 ? 0 : 1;
  plan.u = Matrix<float>(cols, cols);
  plan.damping_doublings = FactorInverse(h, plan.order, settings.damping, plan.u);
  // [H^-1]_jj is the squared norm of column j of the factor, whatever the order.
  std::vector<double> inverse_diagonal(cols, 0.0);
  for (size_t i = 0; i < cols; ++i) {
    for (size_t j = i; j < cols; ++j) inverse_diagonal[j] += static_cast<double>(plan.u(i, j)) * plan.u(i, j);
  }
  std::stable_sort(plan.order.begin(), plan.order.end(),
                   [&](uint32_t a, uint32_t b) { return inverse_diagonal[a] > inverse_diagonal[b]; });
  FactorInverse(h, plan.order, settings.damping * std::exp2(plan.damping_doublings), plan.u);
  plan.col_step.resize(cols);
  for (size_t p = 0; p < cols; ++p)
    plan.col_step[plan.order[p]] = static_cast<int16_t>(Eighths(std::log2(plan.u(p, p))));

  const double mean = std::accumulate(fisher.begin(), fisher.end(), 0.0) / static_cast<double>(rows);
  plan.row_log.resize(rows);
  for (size_t r = 0; r < rows; ++r) {
    const double f =
        mean > 0 ? (fisher[r] + settings.fisher_damping * mean) / (1 + settings.fisher_damping) : 1.0;
    plan.row_log[r] = static_cast<float>(-0.5 * std::log2(f));
  }
  return plan;
}

StepSizes MeasureSizes(MatrixView<const float> w, const StepPlan& plan) {
  StepSizes sizes;
  std::vector<double> row_energy(w.rows, 0.0), col_energy(w.cols, 0.0), col_inverse(w.cols);
  for (size_t c = 0; c < w.cols; ++c) col_inverse[c] = std::exp2(-plan.col_step[c] / kStepsPerOctave);
  for (size_t r = 0; r < w.rows; ++r) {
    for (size_t c = 0; c < w.cols; ++c) {
      const double x = w(r, c) * col_inverse[c];
      row_energy[r] += x * x;
    }
    if (!std::isfinite(row_energy[r])) Fail("weights of a matrix of {} x {} are not finite", w.rows, w.cols);
    row_energy[r] = std::max(row_energy[r] / static_cast<double>(w.cols), 1e-30);
    sizes.row.push_back(static_cast<float>(0.5 * std::log2(row_energy[r]) - plan.row_log[r]));
  }
  for (size_t r = 0; r < w.rows; ++r) {
    for (size_t c = 0; c < w.cols; ++c) {
      const double x = w(r, c) * col_inverse[c];
      col_energy[c] += x * x / row_energy[r];
    }
  }
  for (size_t c = 0; c < w.cols; ++c) {
    sizes.col.push_back(
        static_cast<float>(0.5 * std::log2(std::max(col_energy[c] / static_cast<double>(w.rows), 1e-12))));
  }
  return sizes;
}

EntropyMatrix SolveSteps(MatrixView<const float> w, const StepPlan& plan, double log2_c,
                         const StepSettings& settings, StepReport* report) {
  const size_t rows = w.rows, cols = w.cols;
  MICA_CHECK(plan.row_log.size() == rows && plan.col_step.size() == cols && plan.u.rows() == cols);
  EntropyMatrix solution;
  solution.rows = rows;
  solution.cols = cols;
  solution.states = settings.trellis ? kTrellisStates : 1;
  solution.n = Matrix<int16_t>(rows, cols);
  solution.col_step = plan.col_step;
  solution.row_step.resize(rows);
  for (size_t r = 0; r < rows; ++r)
    solution.row_step[r] = static_cast<int16_t>(Eighths(plan.row_log[r] + log2_c));
  solution.tables = DefaultEntropyTables(solution.states);
  std::unique_ptr<EntropyRates> rates;
  if (settings.lambda > 0) {
    GuessClasses(w, solution);
    rates = std::make_unique<EntropyRates>(solution.tables);
  }
  std::vector<float> row_scale(rows), col_scale(cols);
  for (size_t r = 0; r < rows; ++r) row_scale[r] = EntropyStep(solution.row_step[r], solution.row_resolution);
  for (size_t c = 0; c < cols; ++c) col_scale[c] = EntropyStep(solution.col_step[c], kStepResolution);

  const Chooser chooser(rates.get(), settings);
  const Trellis& machine = TrellisOf(solution.states);
  const size_t tiles = (rows + kTileRows - 1) / kTileRows;
  struct Tally {
    double loss = 0, error = 0, energy = 0;
    uint64_t zeros = 0;
  };
  std::vector<Tally> tallies(tiles);
  ParallelFor(tiles, [&](size_t tile) {
    const size_t first = tile * kTileRows, count = std::min(kTileRows, rows - first);
    Tally& tally = tallies[tile];
    Matrix<float> work(cols, count);  // transposed, processing order
    for (size_t p = 0; p < cols; ++p) {
      for (size_t r = 0; r < count; ++r) work(p, r) = w(first + r, plan.order[p]);
    }
    Matrix<float> errors(kFeedCols, count);
    std::vector<float> step(count), inverse(count);
    std::vector<double> row_error(count, 0.0);
    std::vector<int16_t> n(count);
    for (size_t begin = 0; begin < cols; begin += kFeedCols) {
      const size_t end = std::min(cols, begin + kFeedCols);
      for (size_t p = begin; p < end; ++p) {
        const uint32_t c = plan.order[p];
        for (size_t r = 0; r < count; ++r) {
          step[r] = row_scale[first + r] * col_scale[c];
          inverse[r] = 1.0f / step[r];
        }
        float* column = work.row(p);
        const TileColumn tile_column{column, inverse.data(),
                                     rates ? solution.row_class.data() + first : nullptr,
                                     rates ? solution.col_class[c] : 0, count};
        if (settings.trellis) {
          chooser.FollowTrellis(tile_column, n.data());
        } else {
          chooser.RoundColumn(tile_column, n.data());
        }
        float* e = errors.row(p - begin);
        const float reciprocal = 1.0f / plan.u(p, p);
        size_t state = 0;
        for (size_t r = 0; r < count; ++r) {
          const int level = machine.Level(n[r], machine.quantiser[state]);
          state = machine.next[state][static_cast<size_t>(n[r] & 1)];
          e[r] = (column[r] - static_cast<float>(level) * step[r]) * reciprocal;
          row_error[r] += static_cast<double>(e[r]) * e[r];
          const double whole = static_cast<double>(column[r]) * reciprocal;
          tally.energy += whole * whole;
          tally.zeros += n[r] == 0 ? 1 : 0;
          solution.n(first + r, c) = n[r];
        }
        for (size_t k = p + 1; k < end; ++k) {
          const float factor = plan.u(p, k);
          float* later = work.row(k);
          for (size_t r = 0; r < count; ++r) later[r] -= factor * e[r];
        }
      }
      if (end < cols) {
        const MatrixView<const float> u_part =
            MatrixView<const float>(plan.u.view()).Rows(begin, end - begin).Cols(end, cols - end);
        Gemm(true, false, -1.0f, u_part, MatrixView<const float>(errors.view()).Rows(0, end - begin), 1.0f,
             work.view().Rows(end, cols - end));
      }
    }
    for (size_t r = 0; r < count; ++r) {
      tally.error += row_error[r];
      tally.loss += row_error[r] * std::exp2(-2.0 * plan.row_log[first + r]);
    }
  });
  if (report != nullptr) {
    *report = {};
    double error = 0, energy = 0;
    uint64_t zeros = 0;
    for (const Tally& tally : tallies) {
      report->loss += tally.loss;
      error += tally.error;
      energy += tally.energy;
      zeros += tally.zeros;
    }
    report->relative_error = energy > 0 ? error / energy : 0;
    report->zero_share = static_cast<double>(zeros) / static_cast<double>(rows * cols);
  }
  return solution;
}

}  // namespace mica
