#include "compress/step_solver.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/linalg.h"

namespace mica {
namespace {

constexpr size_t kFeedCols = 32;  // columns between two products that carry errors to all later columns
constexpr double kStepsPerOctave = 8;
constexpr double kClassesPerOctave = 4;
constexpr int kClassOffset = 24;  // class of sigma = step
constexpr double kShape =
    1.3;  // of the generalised Gaussian that weights follow in units of their expected size
// Squared steps that a bit is worth at high rate: dD/dR = 2 ln 2 D with D = 1/12; the trellis halves the step
// at equal rate.
constexpr float kScalarSlope = 0.1155f;
constexpr float kTrellisSlope = 0.37f;

int Eighths(double log2_value) { return static_cast<int>(std::lround(kStepsPerOctave * log2_value)); }

// Adds damping until the factor exists; returns how often it had to be doubled.
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

// What coding one column of a tile needs.
struct ColumnChoice {
  const float* w;        // [rows] values to quantise
  const float* inverse;  // [rows] 1 / step of the row and column
  const int8_t* row_class;
  int col_class;
  size_t rows;
};

int ClassOf(int row_class, int col_class) {
  return std::clamp(row_class + col_class, 0, static_cast<int>(kClasses) - 1);
}

class Chooser {
 public:
  Chooser(const RateTables& tables, const StepSettings& settings)
      : tables_(tables),
        lambda_(static_cast<float>(settings.lambda) * (settings.trellis ? kTrellisSlope : kScalarSlope)),
        zero_reward_(static_cast<float>(settings.zero_reward) * (settings.trellis ? 4.0f : 1.0f)) {}

  // n[r] by loss + lambda bits, each weight on its own.
  void Scalar(const ColumnChoice& column, int16_t* n) const {
    for (size_t r = 0; r < column.rows; ++r) {
      const float x = std::fabs(column.w[r]) * column.inverse[r];
      const auto& bits = tables_[0][ClassOf(column.row_class[r], column.col_class)];
      const int nearest = std::min(static_cast<int>(x + 0.5f), 32000);
      int best = 0;
      float least = x * x + lambda_ * bits[0];
      for (int m = std::max(1, nearest - 1); m <= nearest; ++m) {
        const float d = x - static_cast<float>(m);
        const float cost = d * d + lambda_ * Bits(bits, m) + zero_reward_;
        if (cost < least) least = cost, best = m;
      }
      n[r] = static_cast<int16_t>(column.w[r] < 0 ? -best : best);
    }
  }

  // n along the cheapest path of the trellis from state 0 (Viterbi), at most kTrellisRows rows.
  void Trellis(const ColumnChoice& column, int16_t* n) const {
    constexpr float kNever = 1e30f;
    uint8_t from[kTrellisRows][kTrellisStates];
    int16_t magnitude[kTrellisRows][kQuantisers][2];
    float total[kTrellisStates];
    std::fill_n(total, kTrellisStates, kNever);
    total[0] = 0;
    for (size_t r = 0; r < column.rows; ++r) {
      const float x = std::fabs(column.w[r]) * column.inverse[r];
      const int k = ClassOf(column.row_class[r], column.col_class);
      float cost[kQuantisers][2];  // by quantiser and parity of |n|
      for (int q = 0; q < static_cast<int>(kQuantisers); ++q) {
        const auto& bits = tables_[static_cast<size_t>(q)][static_cast<size_t>(k)];
        for (int parity = 0; parity < 2; ++parity) {
          // Levels of this parity are 4 steps apart: 2 m - q, m = parity, parity + 2, ...
          const float position = 0.5f * (x + static_cast<float>(q));
          int m =
              parity +
              2 * std::max(0, static_cast<int>(std::lrint(0.5f * (position - static_cast<float>(parity)))));
          m = std::min(m, 32000 + parity);
          float least = kNever;
          int best = m;
          for (int candidate = m; candidate >= std::max(parity, m - 2); candidate -= 2) {
            const float level = candidate == 0 ? 0.0f : static_cast<float>(2 * candidate - q);
            const float d = x - level;
            const float c = d * d + lambda_ * Bits(bits, candidate) + (candidate == 0 ? 0.0f : zero_reward_);
            if (c < least) least = c, best = candidate;
          }
          cost[q][parity] = least;
          magnitude[r][q][parity] = static_cast<int16_t>(best);
        }
      }
      float next[kTrellisStates];
      std::fill_n(next, kTrellisStates, kNever);
      for (size_t s = 0; s < kTrellisStates; ++s) {
        for (size_t parity = 0; parity < 2; ++parity) {
          const float path = total[s] + cost[kTrellisQuantiser[s]][parity];
          const uint8_t to = kTrellisNext[s][parity];
          if (path < next[to]) next[to] = path, from[r][to] = static_cast<uint8_t>(2 * s + parity);
        }
      }
      const float floor = *std::min_element(next, next + kTrellisStates);
      for (size_t s = 0; s < kTrellisStates; ++s) total[s] = std::min(next[s] - floor, kNever);
    }
    size_t state = static_cast<size_t>(std::min_element(total, total + kTrellisStates) - total);
    for (size_t r = column.rows; r-- > 0;) {
      const size_t before = from[r][state] / 2, parity = from[r][state] % 2;
      const int16_t m = magnitude[r][kTrellisQuantiser[before]][parity];
      n[r] = static_cast<int16_t>(column.w[r] < 0 ? -m : m);
      state = before;
    }
  }

  static float Bits(const std::array<float, kMagnitudes>& bits, int m) {
    if (m < static_cast<int>(kMagnitudes) - 1) return bits[static_cast<size_t>(m)];
    return bits[kMagnitudes - 1] + EscapeBits(m);
  }
  // Elias gamma code of m - (kMagnitudes - 1) + 1.
  static float EscapeBits(int m) {
    const int beyond = m - static_cast<int>(kMagnitudes) + 2;
    return static_cast<float>(2 * (31 - __builtin_clz(static_cast<unsigned>(beyond))) + 1);
  }

 private:
  const RateTables& tables_;
  const float lambda_;
  const float zero_reward_;
};

int Level(int n, int quantiser, bool trellis) {
  if (!trellis || n == 0) return n;
  return n > 0 ? 2 * n - quantiser : 2 * n + quantiser;
}

std::vector<int8_t> Classes(const std::vector<float>& size, double shift) {
  std::vector<int8_t> classes(size.size());
  for (size_t i = 0; i < size.size(); ++i) {
    classes[i] =
        static_cast<int8_t>(std::clamp<long>(std::lround(kClassesPerOctave * (size[i] + shift)), -127, 127));
  }
  return classes;
}

}  // namespace

StepPlan PlanSteps(MatrixView<const float> w, MatrixView<const float> h, const std::vector<double>& fisher,
                   const StepSettings& settings) {
  MICA_CHECK(h.rows == w.cols && h.cols == w.cols && fisher.size() == w.rows);
  StepPlan plan;
  plan.order.resize(w.cols);
  std::iota(plan.order.begin(), plan.order.end(), 0u);
  std::stable_sort(plan.order.begin(), plan.order.end(),
                   [&](uint32_t a, uint32_t b) { return h(a, a) > h(b, b); });
  for (size_t j = 0; j < w.cols; ++j) plan.dead_channels += h(j, j) > 0 ? 0 : 1;
  plan.u = Matrix<float>(w.cols, w.cols);
  plan.damping_doublings = FactorInverse(h, plan.order, settings.damping, plan.u);
  plan.col_step.resize(w.cols);
  for (size_t p = 0; p < w.cols; ++p)
    plan.col_step[plan.order[p]] = static_cast<int16_t>(Eighths(std::log2(plan.u(p, p))));

  const double mean = std::accumulate(fisher.begin(), fisher.end(), 0.0) / static_cast<double>(w.rows);
  plan.row_step.resize(w.rows);
  for (size_t r = 0; r < w.rows; ++r) {
    const double f = mean > 0 ? fisher[r] + settings.fisher_damping * mean : 1.0;
    plan.row_step[r] = static_cast<int16_t>(Eighths(-0.5 * std::log2(f)));
  }

  // Expected size of each weight in steps: rank one in log2, rows first.
  std::vector<double> row_energy(w.rows, 0.0), col_energy(w.cols, 0.0);
  for (size_t r = 0; r < w.rows; ++r) {
    for (size_t c = 0; c < w.cols; ++c) {
      const double x = w(r, c) * std::exp2(-plan.col_step[c] / kStepsPerOctave);
      row_energy[r] += x * x;
    }
    if (!std::isfinite(row_energy[r])) Fail("weights of a matrix of {} x {} are not finite", w.rows, w.cols);
  }
  plan.row_size.resize(w.rows);
  std::vector<double> row_scale(w.rows);
  for (size_t r = 0; r < w.rows; ++r) {
    const double rms2 = std::max(row_energy[r] / static_cast<double>(w.cols), 1e-30);
    row_scale[r] = 1 / rms2;
    plan.row_size[r] = static_cast<float>(0.5 * std::log2(rms2) - plan.row_step[r] / kStepsPerOctave);
  }
  for (size_t r = 0; r < w.rows; ++r) {
    for (size_t c = 0; c < w.cols; ++c) col_energy[c] += row_scale[r] * w(r, c) * w(r, c);
  }
  plan.col_size.resize(w.cols);
  for (size_t c = 0; c < w.cols; ++c) {
    const double rms2 = std::max(col_energy[c] / static_cast<double>(w.rows), 1e-12);
    plan.col_size[c] = static_cast<float>(0.5 * std::log2(rms2) - plan.col_step[c] / kStepsPerOctave);
  }
  return plan;
}

StepSolution SolveSteps(MatrixView<const float> w, const StepPlan& plan, int log2_c8,
                        const RateTables& tables, const StepSettings& settings) {
  const size_t rows = w.rows, cols = w.cols;
  StepSolution solution;
  solution.trellis = settings.trellis;
  solution.n = Matrix<int16_t>(rows, cols);
  solution.col_step = plan.col_step;
  solution.row_step.resize(rows);
  for (size_t r = 0; r < rows; ++r) solution.row_step[r] = static_cast<int16_t>(plan.row_step[r] + log2_c8);
  solution.row_class = Classes(plan.row_size, -log2_c8 / kStepsPerOctave + kClassOffset / kClassesPerOctave);
  solution.col_class = Classes(plan.col_size, 0);

  const Chooser chooser(tables, settings);
  const size_t tiles = (rows + kTrellisRows - 1) / kTrellisRows;
  struct Tally {
    Histogram histogram = {};
    double escape_bits = 0, loss = 0;
    uint64_t zeros = 0;
  };
  std::vector<Tally> tallies(tiles);
  std::vector<double> row_weight(rows);  // f_i, as the steps express it
  for (size_t r = 0; r < rows; ++r) row_weight[r] = std::exp2(-2 * plan.row_step[r] / kStepsPerOctave);

  ParallelFor(tiles, [&](size_t tile) {
    const size_t first = tile * kTrellisRows, count = std::min(kTrellisRows, rows - first);
    Tally& tally = tallies[tile];
    Matrix<float> work(cols, count);  // transposed, processing order
    for (size_t p = 0; p < cols; ++p) {
      for (size_t r = 0; r < count; ++r) work(p, r) = w(first + r, plan.order[p]);
    }
    Matrix<float> errors(kFeedCols, count);
    std::vector<float> step(count), inverse(count);
    std::vector<int16_t> n(count);
    for (size_t begin = 0; begin < cols; begin += kFeedCols) {
      const size_t end = std::min(cols, begin + kFeedCols);
      for (size_t p = begin; p < end; ++p) {
        const uint32_t c = plan.order[p];
        for (size_t r = 0; r < count; ++r) {
          step[r] = std::exp2(static_cast<float>(solution.row_step[first + r] + solution.col_step[c]) /
                              static_cast<float>(kStepsPerOctave));
          inverse[r] = 1.0f / step[r];
        }
        float* column = work.row(p);
        const ColumnChoice choice{column, inverse.data(), solution.row_class.data() + first,
                                  solution.col_class[c], count};
        if (settings.trellis) {
          chooser.Trellis(choice, n.data());
        } else {
          chooser.Scalar(choice, n.data());
        }
        float* e = errors.row(p - begin);
        const float reciprocal = 1.0f / plan.u(p, p);
        uint8_t state = 0;
        for (size_t r = 0; r < count; ++r) {
          const int quantiser = settings.trellis ? kTrellisQuantiser[state] : 0;
          const int magnitude = std::abs(n[r]);
          const float value = static_cast<float>(Level(n[r], quantiser, settings.trellis)) * step[r];
          e[r] = (column[r] - value) * reciprocal;
          tally.loss += row_weight[first + r] * static_cast<double>(e[r]) * e[r];
          const int k = ClassOf(solution.row_class[first + r], solution.col_class[c]);
          const size_t entry = std::min<size_t>(static_cast<size_t>(magnitude), kMagnitudes - 1);
          ++tally.histogram[static_cast<size_t>(quantiser)][static_cast<size_t>(k)][entry];
          if (entry == kMagnitudes - 1) tally.escape_bits += Chooser::EscapeBits(magnitude);
          tally.zeros += magnitude == 0 ? 1 : 0;
          if (settings.trellis) state = kTrellisNext[state][magnitude & 1];
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
  });
  uint64_t zeros = 0;
  for (const Tally& tally : tallies) {
    for (size_t q = 0; q < kQuantisers; ++q) {
      for (size_t k = 0; k < kClasses; ++k) {
        for (size_t m = 0; m < kMagnitudes; ++m) solution.histogram[q][k][m] += tally.histogram[q][k][m];
      }
    }
    solution.escape_bits += tally.escape_bits;
    solution.loss += tally.loss;
    zeros += tally.zeros;
  }
  solution.zero_share = static_cast<double>(zeros) / static_cast<double>(rows * cols);
  return solution;
}

void DecodeSteps(const StepSolution& solution, MatrixView<float> out) {
  ParallelFor((out.rows + kTrellisRows - 1) / kTrellisRows, [&](size_t tile) {
    std::vector<uint8_t> states(out.cols, 0);
    for (size_t r = tile * kTrellisRows; r < std::min(out.rows, (tile + 1) * kTrellisRows); ++r) {
      for (size_t c = 0; c < out.cols; ++c) {
        const int n = solution.n(r, c);
        const int quantiser = solution.trellis ? kTrellisQuantiser[states[c]] : 0;
        out(r, c) = static_cast<float>(Level(n, quantiser, solution.trellis)) *
                    std::exp2(static_cast<float>(solution.row_step[r] + solution.col_step[c]) /
                              static_cast<float>(kStepsPerOctave));
        if (solution.trellis) states[c] = kTrellisNext[states[c]][n & 1];
      }
    }
  });
}

}  // namespace mica
