#include "ops/trellis/tile_solver_cpu.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "base/finite.h"
#include "base/threads.h"
#include "ops/linalg/linalg.h"

namespace mica {
namespace {

constexpr size_t kFeedCols = 32;  // columns between two products that carry errors to all later columns

// The columns of one tile of rows from the first to the last.
class TileSolver {
 public:
  TileSolver(const TileTask& task, const StepChooser& chooser, bool trellis, size_t tile)
      : task_(task),
        chooser_(chooser),
        trellis_(trellis),
        u_(task.u.host<float>()),
        v_(task.v.host<float>()),
        weights_(task.weights.host<float>()),
        tile_(tile),
        first_(tile * kCodedTileRows),
        count_(std::min(kCodedTileRows, task.w.rows - first_)),
        work_(task.w.cols, count_),
        errors_(kFeedCols, count_),
        above_(kFeedCols, count_),
        row_scale_(count_),
        row_class_(count_),
        step_(count_),
        inverse_(count_),
        fed_(count_),
        row_error_(count_, 0.0),
        n_(count_) {
    if (feeds_rows()) block_first_ = first_ / v_.cols * v_.cols;
    const MatrixView<const float> w = task.w.host<float>();
    for (size_t r = 0; r < count_; ++r) {
      const uint32_t row = task.row_order[first_ + r];
      row_scale_[r] = EntropyStep(task.row_step[row], kStepResolution);
      if (task.rates != nullptr) row_class_[r] = task.row_class[row];
      const float* from = w.row(row);
      for (size_t p = 0; p < w.cols; ++p) work_(p, r) = from[task.order[p]];
      for (const uint32_t p : task.dead) work_(p, r) = 0;  // what nobody sees costs nothing
    }
  }

  bool feeds_rows() const { return v_.cols > 0; }
  bool first_of_block() const { return first_ == block_first_; }

  // Columns [begin, end). row_errors: [cols, rows] errors over V_ii of the rows of earlier tiles of the same
  // block (and where this tile leaves its own), by position; not used without row feedback.
  void SolveColumns(size_t begin, size_t end, Matrix<float>& row_errors) {
    const bool from_above = feeds_rows() && !first_of_block();
    if (from_above) {
      const MatrixView<const float> errors = row_errors.view();
      Gemm(false, false, -1.0f, errors.Rows(begin, end - begin).Cols(block_first_, first_ - block_first_),
           v_.Rows(block_first_, first_ - block_first_).Cols(first_ - block_first_, count_), 0.0f,
           above_.view().Rows(0, end - begin));
    }
    for (size_t p = begin; p < end; ++p) {
      const float* above = from_above ? above_.row(p - begin) : nullptr;
      FixColumn(p, above, feeds_rows() ? row_errors.row(p) + first_ : nullptr, errors_.row(p - begin));
      const float* e = errors_.row(p - begin);
      for (size_t k = p + 1; k < end; ++k) {
        const float factor = u_(p, k);
        float* later = work_.row(k);
        for (size_t r = 0; r < count_; ++r) later[r] -= factor * e[r];
      }
    }
    if (end < work_.rows()) {
      const MatrixView<const float> errors = errors_.view();
      Gemm(true, false, -1.0f, u_.Rows(begin, end - begin).Cols(end, work_.rows() - end),
           errors.Rows(0, end - begin), 1.0f, work_.view().Rows(end, work_.rows() - end));
    }
  }

  void Finish() const {
    std::copy(row_error_.begin(), row_error_.end(), task_.row_loss.begin() + static_cast<ptrdiff_t>(first_));
    task_.tallies[tile_] = tally_;
  }

 private:
  // Fixes column p of the tile. change: (w - q) / U_pp, what later columns absorb; row_errors: errors of the
  // rows over V_rr, what later rows absorb.
  void FixColumn(size_t p, const float* above, float* row_errors, float* change) {
    const uint32_t c = task_.order[p];
    const float* w = work_.row(p);
    const float col_scale = EntropyStep(task_.col_step[c], kStepResolution);
    for (size_t r = 0; r < count_; ++r) {
      step_[r] = row_scale_[r] * col_scale;
      inverse_[r] = 1.0f / step_[r];
      fed_[r] = above != nullptr ? w[r] + above[r] : w[r];
    }
    const bool rates = task_.rates != nullptr;
    const TileColumn column{fed_.data(),
                            step_.data(),
                            inverse_.data(),
                            rates ? row_class_.data() : nullptr,
                            rates ? task_.col_class[c] : 0,
                            count_,
                            feeds_rows() ? v_.row(first_) + (first_ - block_first_) : nullptr,
                            v_.stride};
    if (trellis_) chooser_.FollowTrellis(column, n_.data());
    const Trellis& machine = TrellisOf(trellis_ ? kTrellisStates : 1);
    const float reciprocal = 1.0f / u_(p, p);
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
      const uint32_t row = task_.row_order[first_ + r];
      task_.n(row, c) = static_cast<int16_t>(n);
      if (weights_.data != nullptr) weights_(row, c) = q;
    }
  }

  const TileTask& task_;
  const StepChooser& chooser_;
  const bool trellis_;
  const MatrixView<const float> u_, v_;
  const MatrixView<float> weights_;    // empty: not wanted
  const size_t tile_, first_, count_;  // first and number of positions of the tile's rows
  size_t block_first_ = 0;             // of the block of G they are in
  Matrix<float> work_;                 // [cols, rows of the tile], processing order
  Matrix<float> errors_, above_;
  std::vector<float> row_scale_;
  std::vector<int16_t> row_class_;
  std::vector<float> step_, inverse_, fed_;
  std::vector<double> row_error_;
  std::vector<int16_t> n_;
  TileTally tally_;
};

// A matrix whose tiles are being solved.
class MatrixSolver {
 public:
  MatrixSolver(const TileTask& task, const StepPrices& prices)
      : task_(task), trellis_(prices.trellis), chooser_(task.rates, prices), finished_(tiles()) {
    CheckFinite(task.w.host<float>(), "weights");
    if (!task.v.empty()) row_errors_ = Matrix<float>(task.w.cols, task.w.rows);
  }

  size_t tiles() const { return CodedTiles(task_.w.rows); }

  // The tile above must have begun.
  void SolveTile(size_t tile) {
    const size_t cols = task_.w.cols;
    // Whatever happens here, the tiles below must not wait for ever.
    const std::shared_ptr<void> release(nullptr, [&](void*) { finished_[tile].store(cols); });
    TileSolver solver(task_, chooser_, trellis_, tile);
    const bool waits = solver.feeds_rows() && !solver.first_of_block();
    for (size_t begin = 0; begin < cols; begin += kFeedCols) {
      const size_t end = std::min(cols, begin + kFeedCols);
      while (waits && finished_[tile - 1].load(std::memory_order_acquire) < end) std::this_thread::yield();
      solver.SolveColumns(begin, end, row_errors_);
      finished_[tile].store(end, std::memory_order_release);
    }
    solver.Finish();
  }

 private:
  const TileTask& task_;
  const bool trellis_;
  const StepChooser chooser_;
  Matrix<float> row_errors_;
  std::vector<std::atomic<size_t>> finished_;  // columns, by tile
};

}  // namespace

void SolveTilesCpu(std::span<const TileTask> tasks, const StepPrices& prices) {
  std::vector<std::unique_ptr<MatrixSolver>> solvers;
  std::vector<std::pair<size_t, size_t>> tiles;  // tile, matrix: handed out in rising order
  for (size_t m = 0; m < tasks.size(); ++m) {
    solvers.push_back(std::make_unique<MatrixSolver>(tasks[m], prices));
    for (size_t tile = 0; tile < solvers[m]->tiles(); ++tile) tiles.emplace_back(tile, m);
  }
  std::sort(tiles.begin(), tiles.end());
  ParallelFor(tiles.size(), [&](size_t i) { solvers[tiles[i].second]->SolveTile(tiles[i].first); });
}

}  // namespace mica
