#include "compress/entropy/solver.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/finite.h"
#include "base/threads.h"
#include "ops/codes/entropy_model.h"
#include "ops/linalg/linalg.h"
#include "ops/trellis/step_chooser.h"

namespace mica {
namespace {

constexpr size_t kFeedCols = 32;  // columns between two products that carry errors to all later columns

struct Tally {
  double loss = 0, error = 0, energy = 0;
  std::array<uint64_t, 17> widths{};  // integers by the bits of their magnitude; 0: zeros
};

// What integers take with one code for the widths of their magnitudes, sign and lower bits as they are.
double RoughBits(const std::array<uint64_t, 17>& widths) {
  double total = 0, bits = 0;
  for (const uint64_t count : widths) total += static_cast<double>(count);
  for (size_t width = 0; width < widths.size(); ++width) {
    const auto count = static_cast<double>(widths[width]);
    if (count > 0) bits += count * (std::log2(total / count) + static_cast<double>(width));
  }
  return bits;
}

// The columns of one tile of rows from the first to the last.
class TileSolver {
 public:
  TileSolver(MatrixView<const float> w, const StepPlan& plan, const StepChooser& chooser, bool trellis,
             size_t tile, EntropyMatrix& solution, MatrixView<float> weights)
      : plan_(plan),
        chooser_(chooser),
        trellis_(trellis),
        first_(tile * kCodedTileRows),
        count_(std::min(kCodedTileRows, w.rows - first_)),
        solution_(solution),
        weights_(weights),
        work_(w.cols, count_),
        errors_(kFeedCols, count_),
        above_(kFeedCols, count_),
        row_scale_(count_),
        row_class_(count_),
        step_(count_),
        inverse_(count_),
        fed_(count_),
        row_error_(count_, 0.0),
        n_(count_) {
    if (!plan.v.empty()) block_first_ = first_ / plan.v.cols() * plan.v.cols();
    for (size_t r = 0; r < count_; ++r) {
      const uint32_t row = plan.row_order[first_ + r];
      row_scale_[r] = EntropyStep(solution.row_step[row], solution.row_resolution);
      if (!solution.row_class.empty()) row_class_[r] = solution.row_class[row];
      const float* from = w.row(row);
      for (size_t p = 0; p < w.cols; ++p) work_(p, r) = from[plan.columns->order()[p]];
      for (const uint32_t p : plan.columns->factor->dead())
        work_(p, r) = 0;  // what nobody sees costs nothing
    }
  }

  bool feeds_rows() const { return !plan_.v.empty(); }
  bool first_of_block() const { return first_ == block_first_; }

  // Columns [begin, end). row_errors: [cols, rows] errors over V_ii of the rows of earlier tiles of the same
  // block (and where this tile leaves its own), by position; not used without row feedback.
  void SolveColumns(size_t begin, size_t end, Matrix<float>& row_errors) {
    const bool from_above = feeds_rows() && !first_of_block();
    if (from_above) {
      const MatrixView<const float> errors = row_errors.view(), v = plan_.v.view();
      Gemm(false, false, -1.0f, errors.Rows(begin, end - begin).Cols(block_first_, first_ - block_first_),
           v.Rows(block_first_, first_ - block_first_).Cols(first_ - block_first_, count_), 0.0f,
           above_.view().Rows(0, end - begin));
    }
    for (size_t p = begin; p < end; ++p) {
      const float* above = from_above ? above_.row(p - begin) : nullptr;
      FixColumn(p, above, feeds_rows() ? row_errors.row(p) + first_ : nullptr, errors_.row(p - begin));
      const float* e = errors_.row(p - begin);
      for (size_t k = p + 1; k < end; ++k) {
        const float factor = plan_.columns->u()(p, k);
        float* later = work_.row(k);
        for (size_t r = 0; r < count_; ++r) later[r] -= factor * e[r];
      }
    }
    if (end < work_.rows()) {
      const MatrixView<const float> u = plan_.columns->u(), errors = errors_.view();
      Gemm(true, false, -1.0f, u.Rows(begin, end - begin).Cols(end, work_.rows() - end),
           errors.Rows(0, end - begin), 1.0f, work_.view().Rows(end, work_.rows() - end));
    }
  }

  Tally Finish() {
    for (size_t r = 0; r < count_; ++r)
      tally_.loss += row_error_[r] * std::exp2(-2.0 * plan_.row_log[plan_.row_order[first_ + r]]);
    return tally_;
  }

 private:
  // Fixes column p of the tile. change: (w - q) / U_pp, what later columns absorb; row_errors: errors of the
  // rows over V_rr, what later rows absorb.
  void FixColumn(size_t p, const float* above, float* row_errors, float* change) {
    const uint32_t c = plan_.columns->order()[p];
    const float* w = work_.row(p);
    const float col_scale = EntropyStep(solution_.col_step[c], kStepResolution);
    for (size_t r = 0; r < count_; ++r) {
      step_[r] = row_scale_[r] * col_scale;
      inverse_[r] = 1.0f / step_[r];
      fed_[r] = above != nullptr ? w[r] + above[r] : w[r];
    }
    const bool rates = !solution_.row_class.empty();
    const TileColumn column{fed_.data(),
                            step_.data(),
                            inverse_.data(),
                            rates ? row_class_.data() : nullptr,
                            rates ? solution_.col_class[c] : 0,
                            count_,
                            feeds_rows() ? plan_.v.row(first_) + (first_ - block_first_) : nullptr,
                            plan_.v.cols()};
    if (trellis_) chooser_.FollowTrellis(column, n_.data());
    const Trellis& machine = TrellisOf(solution_.states);
    const float reciprocal = 1.0f / plan_.columns->u()(p, p);
    const double reciprocal_square = static_cast<double>(reciprocal) * reciprocal;
    size_t state = 0;
    for (size_t r = 0; r < count_; ++r) {
      const int n = trellis_ ? n_[r] : chooser_.Round(fed_[r], column, r);
      const int level = machine.Level(n, machine.quantiser[state]);
      state = machine.next[state][static_cast<size_t>(n & 1)];
      const float q = static_cast<float>(level) * step_[r];
      const float error = fed_[r] - q;
      if (column.v != nullptr) {
        const float* v = column.v + r * column.v_stride;
        const float e = error / v[r];
        row_errors[r] = e;
        for (size_t k = r + 1; k < count_; ++k) fed_[k] -= e * v[k];
      }
      change[r] = (w[r] - q) * reciprocal;
      row_error_[r] += static_cast<double>(error) * error * reciprocal_square;
      tally_.error += static_cast<double>(change[r]) * change[r];
      tally_.energy += static_cast<double>(w[r]) * w[r] * reciprocal_square;
      ++tally_.widths[static_cast<size_t>(std::bit_width(static_cast<unsigned>(std::abs(n))))];
      const uint32_t row = plan_.row_order[first_ + r];
      solution_.n(row, c) = static_cast<int16_t>(n);
      if (weights_.data != nullptr) weights_(row, c) = q;
    }
  }

  const StepPlan& plan_;
  const StepChooser& chooser_;
  const bool trellis_;
  const size_t first_, count_;  // positions of the tile's rows
  size_t block_first_ = 0;      // of the block of G they are in
  EntropyMatrix& solution_;
  const MatrixView<float> weights_;  // empty: not wanted
  Matrix<float> work_;               // [cols, rows of the tile], processing order
  Matrix<float> errors_, above_;
  std::vector<float> row_scale_;
  std::vector<int16_t> row_class_;
  std::vector<float> step_, inverse_, fed_;
  std::vector<double> row_error_;
  std::vector<int16_t> n_;
  Tally tally_;
};

// A matrix whose integers are still to be found, and what they are found with.
class MatrixSolver {
 public:
  MatrixSolver(const StepTask& task, double log2_c, const StepPrices& prices, EntropyMatrix& solution)
      : task_(task), trellis_(prices.trellis), solution_(solution) {
    const size_t rows = task.w.rows, cols = task.w.cols;
    const StepPlan& plan = *task.plan;
    MICA_CHECK(plan.row_log.size() == rows);
    MICA_CHECK(plan.columns->col_step.size() == cols);
    MICA_CHECK(plan.columns->u().rows == cols);
    MICA_CHECK(plan.v.empty() || plan.v.cols() % kCodedTileRows == 0 || plan.v.cols() >= rows);
    CheckFinite(task.w, "weights");
    solution.rows = rows;
    solution.cols = cols;
    solution.states = prices.trellis ? kTrellisStates : 1;
    solution.n = Matrix<int16_t>(rows, cols);
    solution.col_step = plan.columns->col_step;
    if (prices.trellis) solution.row_key = plan.row_key;
    solution.row_step.resize(rows);
    for (size_t r = 0; r < rows; ++r) {
      solution.row_step[r] = static_cast<int16_t>(std::clamp(StepEighths(plan.row_log[r] + log2_c),
                                                             -kMaxStepOctaves * kStepResolution,
                                                             kMaxStepOctaves * kStepResolution));
    }
    solution.tables = DefaultEntropyTables(solution.states);
    if (prices.lambda > 0) {
      GuessClasses(task.w, solution);
      rates_ = std::make_unique<EntropyRates>(solution.tables);
    }
    chooser_ = std::make_unique<StepChooser>(rates_.get(), prices);
    tallies_.resize(tiles());
    finished_ = std::vector<std::atomic<size_t>>(tiles());
    if (!plan.v.empty()) row_errors_ = Matrix<float>(cols, rows);
  }

  size_t tiles() const { return CodedTiles(task_.w.rows); }

  // The tile above must have begun.
  void SolveTile(size_t tile) {
    const size_t cols = task_.w.cols;
    // Whatever happens here, the tiles below must not wait for ever.
    const std::shared_ptr<void> release(nullptr, [&](void*) { finished_[tile].store(cols); });
    TileSolver solver(task_.w, *task_.plan, *chooser_, trellis_, tile, solution_, task_.weights);
    const bool waits = solver.feeds_rows() && !solver.first_of_block();
    for (size_t begin = 0; begin < cols; begin += kFeedCols) {
      const size_t end = std::min(cols, begin + kFeedCols);
      while (waits && finished_[tile - 1].load(std::memory_order_acquire) < end) std::this_thread::yield();
      solver.SolveColumns(begin, end, row_errors_);
      finished_[tile].store(end, std::memory_order_release);
    }
    tallies_[tile] = solver.Finish();
  }

  StepReport Report() const {
    Tally total;
    for (const Tally& tally : tallies_) {
      total.loss += tally.loss;
      total.error += tally.error;
      total.energy += tally.energy;
      for (size_t i = 0; i < total.widths.size(); ++i) total.widths[i] += tally.widths[i];
    }
    return {.loss = total.loss,
            .relative_error = total.energy > 0 ? total.error / total.energy : 0,
            .zero_share = static_cast<double>(total.widths[0]) / static_cast<double>(task_.w.rows * task_.w.cols),
            .rough_bits = RoughBits(total.widths)};
  }

 private:
  const StepTask task_;
  const bool trellis_;
  EntropyMatrix& solution_;
  std::unique_ptr<EntropyRates> rates_;
  std::unique_ptr<StepChooser> chooser_;
  std::vector<Tally> tallies_;
  Matrix<float> row_errors_;
  std::vector<std::atomic<size_t>> finished_;  // columns, by tile
};

}  // namespace

std::vector<StepSolution> SolveSteps(const std::vector<StepTask>& tasks, double log2_c,
                                     const StepPrices& prices) {
  std::vector<StepSolution> solutions(tasks.size());
  std::vector<std::unique_ptr<MatrixSolver>> solvers;
  std::vector<std::pair<size_t, size_t>> tiles;  // tile, matrix: handed out in rising order
  for (size_t m = 0; m < tasks.size(); ++m) {
    solvers.push_back(std::make_unique<MatrixSolver>(tasks[m], log2_c, prices, solutions[m].matrix));
    for (size_t tile = 0; tile < solvers[m]->tiles(); ++tile) tiles.emplace_back(tile, m);
  }
  std::sort(tiles.begin(), tiles.end());
  ParallelFor(tiles.size(), [&](size_t i) { solvers[tiles[i].second]->SolveTile(tiles[i].first); });
  for (size_t m = 0; m < tasks.size(); ++m) solutions[m].report = solvers[m]->Report();
  return solutions;
}

}  // namespace mica
