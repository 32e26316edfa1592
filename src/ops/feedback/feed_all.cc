// The feedback recursion, blocked: columns are solved block by block in the L1 cache, and a solved half of
// the columns is taken from the other half by one matrix product (recursively, so that most of the work is in
// large products).
#include <algorithm>
#include <array>
#include <bit>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/system.h"
#include "base/threads.h"
#include "format/mask/sparsity_pattern.h"
#include "ops/cuda_ops.h"
#include "ops/feedback/block_order.h"
#include "ops/feedback/solver_state.h"
#include "ops/linalg/linalg.h"

namespace mica {
namespace {

// Columns behind a block that its n:m cells may reach into: less than the largest cell.
constexpr size_t kMaxHalo = 8;

// The k smallest of [cols, rows] non-negative scores get keep 0, the others 1; of equal ones the first in
// column order, then row order. Radix selection on the bit patterns, which order non-negative floats: three
// histograms of 11, 11 and 10 bits.
void PruneSmallest(const Matrix<float>& scores, size_t cols, uint64_t k, size_t first,
                   MatrixView<uint8_t> keep) {
  const size_t rows = scores.cols();
  constexpr std::array<int, 3> kShift = {21, 10, 0};
  constexpr size_t kBins = 2048;
  MICA_CHECK(k <= uint64_t{rows} * cols);
  uint32_t prefix = 0;     // the threshold's bits found so far
  uint64_t remaining = k;  // rank of the threshold among scores with this prefix
  Matrix<uint32_t> counts(cols, kBins);
  for (size_t pass = 0; pass < kShift.size() && k > 0; ++pass) {
    const int shift = kShift[pass];
    ParallelFor(cols, [&](size_t j) {
      uint32_t* bins = counts.row(j);
      std::fill_n(bins, kBins, 0u);
      const float* score = scores.row(j);
      const uint32_t mask = pass == 2 ? 1023u : 2047u;
      for (size_t r = 0; r < rows; ++r) {
        const uint32_t bits = std::bit_cast<uint32_t>(score[r]);
        if (pass > 0 && (bits >> kShift[pass - 1]) != (prefix >> kShift[pass - 1])) continue;
        ++bins[(bits >> shift) & mask];
      }
    });
    std::vector<uint64_t> totals(kBins, 0);
    for (size_t j = 0; j < cols; ++j) {
      for (size_t bin = 0; bin < kBins; ++bin) totals[bin] += counts(j, bin);
    }
    for (size_t bin = 0; bin < kBins; ++bin) {
      if (totals[bin] >= remaining) {
        prefix |= static_cast<uint32_t>(bin) << shift;
        break;
      }
      remaining -= totals[bin];
    }
  }
  // `remaining` of the scores equal to the threshold go too.
  std::vector<uint64_t> ties_before(cols + 1, 0);
  const float threshold = std::bit_cast<float>(prefix);
  for (size_t j = 0; j < cols; ++j) {
    ties_before[j + 1] =
        ties_before[j] + static_cast<uint64_t>(std::count(scores.row(j), scores.row(j) + rows, threshold));
  }
  ParallelFor(cols, [&](size_t j) {
    uint64_t tie = ties_before[j];
    for (size_t r = 0; r < rows; ++r) {
      const float score = scores(j, r);
      const bool prune = k > 0 && (score < threshold || (score == threshold && tie++ < remaining));
      keep(first + j, r) = prune ? 0 : 1;
    }
  });
}

// One block of one tile of rows.
struct TileBlock {
  alignas(64) float w[(kBlockCols + kMaxHalo) * kTileRows];
  alignas(64) float trial[(kBlockCols + kMaxHalo) * kTileRows];
  alignas(64) float error[kBlockCols * kTileRows];
  alignas(64) float loss[kTileRows];
  alignas(64) uint16_t codes[kBlockCols * kTileRows];
  alignas(64) uint8_t keep[(kBlockCols + kMaxHalo) * kTileRows];
};

class Feedback {
 public:
  Feedback(SolverState& state, ConstTensor u, const FeedbackSettings& settings, Tensor remaining,
           Tensor errors)
      : state_(state),
        u_(u.host<float>()),
        remaining_(remaining.host<float>()),
        errors_(errors.host<float>()),
        settings_(settings),
        cell_(state.plan.mask),
        tile_loss_(state.tiles(), 0.0) {}

  double Run() {
    SolveBlocks(state_.plan, 0, state_.plan.blocks.size(), *this);
    double loss = 0;
    for (const double part : tile_loss_) loss += part;
    return loss;
  }

  // What SolveBlocks calls.
  void Subtract(size_t start, size_t done, size_t from, size_t to) const {
    Gemm(true, false, -1.0f, u_.Rows(start, done - start).Cols(from, to - from),
         errors_.Rows(start, done - start), 1.0f, remaining_.Rows(from, to - from));
  }

  // A group of several blocks: fitted when its first column is due, on weights that have all updates from
  // before the group.
  void FitLargeGroup(const ScaleGroup& group) {
    std::vector<float> importance;
    for (size_t j = group.start; j < group.start + group.count; ++j)
      importance.push_back(1.0f / (u_(j, j) * u_(j, j)));
    ParallelFor(state_.tiles(), [&](size_t tile) {
      Matrix<float> w(group.count, kTileRows);
      state_.LoadTile(remaining_, tile, group.start, group.count, w.data());
      TileGrids grids;
      FitTileGrids(w.data(), group.count, importance.data(), nullptr, group.bits, kGridRounds, &grids);
      state_.StoreGrids(grids, tile, group);
    });
  }

  void SolveBlock(const ColumnBlock& block) {
    const size_t cols = block.end - block.start, halo = Halo(state_.plan, block.end);
    // The block of U close together, its rows apart by an odd number of cache lines.
    constexpr size_t kStride = kBlockCols + 16;
    Matrix<float> u(cols, kStride);
    std::vector<float> reciprocal(cols), importance(cols);
    for (size_t j = 0; j < cols; ++j) {
      std::copy_n(u_.row(block.start + j) + block.start, cols + halo, u.row(j));
      reciprocal[j] = 1.0f / u(j, j);
      importance[j] = reciprocal[j] * reciprocal[j];
    }
    if (state_.plan.mask == MaskKind::kBitmap && block.end <= state_.plan.coded) SelectUnstructured(block);
    ParallelFor(state_.tiles(), [&](size_t tile) {
      auto buffers = std::make_unique<TileBlock>();
      TileBlock& t = *buffers;
      state_.LoadTile(remaining_, tile, block.start, cols + halo, t.w);
      if (state_.masked()) state_.LoadTile(state_.HostKeep(), tile, block.start, cols + halo, t.keep);
      ColumnRun run;
      run.factor = u.data();
      run.stride = kStride;
      run.reciprocal = reciprocal.data();
      double loss = 0;
      for (size_t g = block.first_group; g < block.last_group; ++g) {
        const ScaleGroup& group = state_.plan.groups[g];
        const size_t from = std::max<size_t>(group.start, block.start) - block.start;
        const size_t to = std::min<size_t>(group.start + group.count, block.end) - block.start;
        TileGrids grids;
        if (group.scale_row >= 0) {
          if (block.whole_groups) {
            Fit(block, group, from, to, halo, importance.data(), run, t, &grids);
            state_.StoreGrids(grids, tile, group);
          } else {
            state_.LoadGrids(tile, group, &grids);
          }
        }
        std::fill_n(t.loss, kTileRows, 0.0f);
        run.grid = grids.View(group.bits, group.bits != 0 && state_.masked() ? t.keep : nullptr);
        run.codes = t.codes;
        Advance(block, from, to, cols + halo, run, t.w, t);
        for (size_t r = 0; r < state_.tile_rows(tile); ++r) loss += t.loss[r];
      }
      tile_loss_[tile] += loss;
      state_.StoreTile(t.error, tile, block.start, cols, errors_);
      state_.StoreTile(t.codes, tile, block.start, cols, state_.HostCodes());
      state_.StoreTile(t.w + cols * kTileRows, tile, block.end, halo, remaining_);
      if (cell_.cols > 0) state_.StoreTile(t.keep, tile, block.start, cols + halo, state_.HostKeep());
    });
  }

 private:
  // The mask of a whole block: one threshold for all rows.
  void SelectUnstructured(const ColumnBlock& block) {
    const size_t cols = block.end - block.start;
    Matrix<float> scores(cols, state_.rows);
    ParallelFor(cols, [&](size_t j) {
      const float* w = remaining_.row(block.start + j);
      float* score = scores.row(j);
      for (size_t r = 0; r < state_.rows; ++r) score[r] = w[r] * w[r] * settings_.saliency[block.start + j];
      for (size_t r = 0; r < settings_.row_importance.size(); ++r) score[r] *= settings_.row_importance[r];
    });
    const std::vector<uint64_t>& before = state_.plan.pruned_before;
    PruneSmallest(scores, cols, before[block.end] - before[block.start], block.start, state_.HostKeep());
  }

  // The n:m cell that starts at column `at` of the block, or what is left of one where the coded columns end
  // (n of m of it, rounded up).
  void SelectCell(const ColumnBlock& block, size_t at, const float* w, uint8_t* keep) const {
    const size_t cols = std::min(cell_.cols, state_.plan.coded - block.start - at);
    const size_t pruned = cell_.Pruned(cols);
    float score[kMaxHalo][kTileRows];
    for (size_t i = 0; i < cols; ++i) {
      const float* value = w + (at + i) * kTileRows;
      for (size_t r = 0; r < kTileRows; ++r)
        score[i][r] = value[r] * value[r] * settings_.saliency[block.start + at + i];
    }
    for (size_t i = 0; i < cols; ++i) {
      uint8_t* out = keep + (at + i) * kTileRows;
      for (size_t r = 0; r < kTileRows; ++r) {
        size_t rank = 0;  // of equal scores the first counts as smaller
        for (size_t k = 0; k < cols; ++k)
          rank += score[k][r] < score[i][r] || (score[k][r] == score[i][r] && k < i);
        out[r] = rank >= pruned;
      }
    }
  }

  bool StartsCell(const ColumnBlock& block, size_t at) const {
    const size_t position = block.start + at;
    return cell_.cols > 0 && position < state_.plan.coded && position % cell_.cols == 0;
  }

  // Fixes columns [from, to) of the block in w, [.., end) taking the errors; n:m masks are chosen as their
  // cells are reached. run: grid and codes set, or codes null for a trial.
  void Advance(const ColumnBlock& block, size_t from, size_t to, size_t end, const ColumnRun& run, float* w,
               TileBlock& t) const {
    for (size_t at = from; at < to;) {
      size_t next = to;
      if (cell_.cols > 0 && block.start + at < state_.plan.coded) {
        if (StartsCell(block, at)) SelectCell(block, at, w, t.keep);
        next = std::min(to, at + cell_.cols - (block.start + at) % cell_.cols);
      }
      ColumnRun part = run;
      part.cols = next - at;
      part.update_cols = end - at;
      part.factor = run.factor + at * run.stride + at;
      part.reciprocal = run.reciprocal + at;
      part.grid.keep = run.grid.keep == nullptr ? nullptr : run.grid.keep + at * kTileRows;
      part.change = t.error + at * kTileRows;
      part.codes = run.codes == nullptr ? nullptr : run.codes + at * kTileRows;
      part.loss = t.loss;
      FeedColumns(part, w + at * kTileRows);
      at = next;
    }
  }

  // The grids of columns [from, to): first by rounding error weighted by 1 / U_jj^2, then by the loss that
  // the group's columns really leave when they are fixed one after the other on that grid.
  void Fit(const ColumnBlock& block, const ScaleGroup& group, size_t from, size_t to, size_t halo,
           const float* importance, ColumnRun run, TileBlock& t, TileGrids* grids) const {
    const uint8_t* keep = state_.masked() ? t.keep : nullptr;
    if (cell_.cols > 0) {  // as far as can be said before the columns are reached
      for (size_t at = from; at < to; ++at) {
        if (StartsCell(block, at)) SelectCell(block, at, t.w, t.keep);
      }
    }
    const bool trials = settings_.search_rounds > 0;
    FitTileGrids(t.w + from * kTileRows, to - from, importance + from,
                 keep == nullptr ? nullptr : keep + from * kTileRows, group.bits, trials ? 0 : kGridRounds,
                 grids);
    if (!trials) return;
    const size_t end = std::min(to + (cell_.cols > 0 ? cell_.cols - 1 : 0), block.end - block.start + halo);
    run.codes = nullptr;
    const auto measure = [&](const TileGrids& candidate) {
      std::copy(t.w + from * kTileRows, t.w + end * kTileRows, t.trial + from * kTileRows);
      std::fill_n(t.loss, kTileRows, 0.0f);
      run.grid = candidate.View(group.bits, keep);
      Advance(block, from, to, end, run, t.trial, t);
    };
    measure(*grids);
    alignas(64) float best[kTileRows];
    std::copy_n(t.loss, kTileRows, best);
    TileGrids candidate;
    for (int round = 0; round < settings_.search_rounds; ++round) {
      for (int move = 0; move < kGridMoves; ++move) {
        for (size_t r = 0; r < kTileRows; ++r) candidate.Set(r, MovedGrid(grids->grid[r], move, group.bits));
        measure(candidate);
        KeepBetter(candidate, t.loss, grids, best);
      }
    }
  }

  SolverState& state_;
  MatrixView<const float> u_;
  MatrixView<float> remaining_, errors_;
  const FeedbackSettings& settings_;
  const MaskKind cell_;
  std::vector<double> tile_loss_;
};

}  // namespace

double FeedAll(SolverState& state, ConstTensor u, const FeedbackSettings& settings, Tensor remaining,
               Tensor errors) {
  MICA_CHECK(u.rows == state.cols);
  MICA_CHECK(u.cols == state.cols);
  MICA_CHECK(settings.saliency.size() == state.cols);
  for (const Tensor& matrix : {remaining, errors}) {
    MICA_CHECK(matrix.rows == state.cols);
    MICA_CHECK(matrix.cols == state.rows);
  }
  if (state.device().is_cuda()) return Cuda().FeedAll(state, u, settings, remaining, errors);
  return Feedback(state, u, settings, remaining, errors).Run();
}

}  // namespace mica
