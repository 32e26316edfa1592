// Refinement: the loss tr((W - Q) H (W - Q)^T) is quadratic, and after the feedback every weight can still be
// moved. Per block of columns each row (1) refits its scales by least squares with the codes held, (2)
// exchanges a pruned weight for a kept one where that lowers the loss, and (3) moves every code to the best
// grid point given all the others (coordinate descent, as in QuantEase, 2309.01885). Each step lowers the
// loss by an amount that is known; with G = H (W - Q) kept up to date, one pass costs one product of H with
// the changes.
#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "base/system.h"
#include "base/threads.h"
#include "format/mask/sparsity_pattern.h"
#include "ops/cuda_ops.h"
#include "ops/feedback/solver_state.h"
#include "ops/linalg/linalg.h"

namespace mica {
namespace {

// Exchanges a row may make in a block in one pass; most gain is in the first, and the next pass sees what
// descent made of it.
constexpr int kExchanges = 2;
// Pruned weights and kept weights that are compared pair by pair.
constexpr size_t kCandidates = 4;
// A pass that gains less than this share of what the first gained is the last.
constexpr double kWorthwhile = 0.02;

struct TileBlock {
  alignas(64) float g[kBlockCols * kTileRows];  // H (W - Q), as far as the block's columns have been changed
  alignas(64) float q[kBlockCols * kTileRows];  // values now
  alignas(64) float before[kBlockCols * kTileRows];  // values at the start of the pass
  alignas(64) float steps[kBlockCols * kTileRows];   // code - zero of kept weights; scratch of the descent
  alignas(64) float product[kBlockCols * kTileRows];
  alignas(64) float loss[kTileRows];
  alignas(64) uint16_t codes[kBlockCols * kTileRows];
  alignas(64) uint8_t keep[kBlockCols * kTileRows];
  std::vector<TileGrids> grids;  // of the block's scale groups
};

class Refinement {
 public:
  Refinement(SolverState& state, ConstTensor h, Tensor gradient, Tensor steps)
      : state_(state),
        h_(h.host<float>()),
        gradient_(gradient.host<float>()),
        steps_(steps.host<float>()),
        cell_(state.plan.mask) {}

  double Run(int passes, ConstTensor residual) {
    Gemm(false, false, 1.0f, h_, residual, 0.0f, gradient_);
    double total = 0, first = 0;
    for (int pass = 0; pass < passes; ++pass) {
      double gained = 0;
      // Exchanges need a descent behind them to pay in full, so the last pass makes none.
      for (const ColumnBlock& block : state_.plan.blocks) gained += RefineBlock(block, pass + 1 < passes);
      total += gained;
      if (pass == 0) first = gained;
      if (gained > kWorthwhile * first) break;  // both are negative
    }
    return total;
  }

 private:
  double RefineBlock(const ColumnBlock& block, bool exchange) {
    ThrowIfInterrupted();
    const size_t cols = block.end - block.start;
    if (state_.plan.groups[block.first_group].bits == 0) return 0;
    Matrix<float> h(cols, cols);
    std::vector<float> reciprocal(cols);
    for (size_t j = 0; j < cols; ++j) {
      std::copy_n(h_.row(block.start + j) + block.start, cols, h.row(j));
      reciprocal[j] = 1.0f / h(j, j);
    }
    std::vector<double> tile_loss(state_.tiles());
    ParallelFor(state_.tiles(), [&](size_t tile) {
      const auto buffers = std::make_unique<TileBlock>();
      tile_loss[tile] = RefineTile(block, h, reciprocal, exchange, tile, *buffers);
    });
    Gemm(false, false, -1.0f, h_.Cols(block.start, cols), steps_.Rows(block.start, cols), 1.0f, gradient_);
    double loss = 0;
    for (const double part : tile_loss) loss += part;
    return loss;
  }

  const ScaleGroup& Group(size_t g) const { return state_.plan.groups[g]; }

  double RefineTile(const ColumnBlock& block, const Matrix<float>& h, const std::vector<float>& reciprocal,
                    bool exchange, size_t tile, TileBlock& t) {
    const size_t cols = block.end - block.start, rows = state_.tile_rows(tile);
    state_.LoadTile(gradient_, tile, block.start, cols, t.g);
    state_.LoadTile(state_.HostCodes(), tile, block.start, cols, t.codes);
    if (state_.masked()) {
      state_.LoadTile(state_.HostKeep(), tile, block.start, cols, t.keep);
    } else {
      std::fill_n(t.keep, cols * kTileRows, uint8_t{1});
    }
    t.grids.resize(block.last_group - block.first_group);
    std::fill_n(t.loss, kTileRows, 0.0f);
    double loss = 0;
    for (size_t g = block.first_group; g < block.last_group; ++g) {
      TileGrids& grids = t.grids[g - block.first_group];
      if (Group(g).scale_row >= 0) state_.LoadGrids(tile, Group(g), &grids);
      Decode(block, g, grids, t);
    }
    std::copy_n(t.q, cols * kTileRows, t.before);
    for (size_t g = block.first_group; g < block.last_group; ++g) {
      if (Group(g).scale_row < 0 || !block.whole_groups) continue;
      TileGrids& grids = t.grids[g - block.first_group];
      RefitScales(block, g, h, t, &grids);
      state_.StoreGrids(grids, tile, Group(g));
    }
    if (exchange && state_.masked()) {
      for (size_t r = 0; r < rows; ++r) ExchangeRow(block, h, r, t);
    }
    for (size_t g = block.first_group; g < block.last_group; ++g) {
      const auto [from, to] = Extent(block, g);
      ColumnRun run;
      run.cols = to - from;
      run.update_cols = cols - from;
      run.factor = h.row(from) + from;
      run.stride = cols;
      run.reciprocal = reciprocal.data() + from;
      run.grid = t.grids[g - block.first_group].View(Group(g).bits, t.keep + from * kTileRows);
      run.change = t.steps + from * kTileRows;
      run.codes = t.codes + from * kTileRows;
      run.loss = t.loss;
      DescendColumns(run, t.q + from * kTileRows, t.g + from * kTileRows);
    }
    for (size_t r = 0; r < rows; ++r) loss += t.loss[r];
    for (size_t i = 0; i < cols * kTileRows; ++i) t.before[i] = t.q[i] - t.before[i];
    state_.StoreTile(t.before, tile, block.start, cols, steps_);
    state_.StoreTile(t.codes, tile, block.start, cols, state_.HostCodes());
    if (state_.masked()) state_.StoreTile(t.keep, tile, block.start, cols, state_.HostKeep());
    return loss;
  }

  // Columns of scale group g that lie in the block, from its start.
  std::array<size_t, 2> Extent(const ColumnBlock& block, size_t g) const {
    return {std::max<size_t>(Group(g).start, block.start) - block.start,
            std::min<size_t>(Group(g).start + Group(g).count, block.end) - block.start};
  }

  void Decode(const ColumnBlock& block, size_t g, const TileGrids& grids, TileBlock& t) const {
    const auto [from, to] = Extent(block, g);
    const bool half = Group(g).bits == 16;
    for (size_t i = from * kTileRows; i < to * kTileRows; ++i) {
      const size_t r = i % kTileRows;
      const float value =
          half ? ToFloat(F16{t.codes[i]}) : (static_cast<float>(t.codes[i]) - grids.zero[r]) * grids.scale[r];
      t.q[i] = t.keep[i] != 0 ? value : 0.0f;
    }
  }

  // With n = code - zero held, the loss of scale s + d differs by -2 d n.g + d^2 n.Hn; d = n.g / n.Hn, as far
  // as stored scales allow.
  void RefitScales(const ColumnBlock& block, size_t g, const Matrix<float>& h, TileBlock& t,
                   TileGrids* grids) const {
    const auto [from, to] = Extent(block, g);
    const size_t first = from, count = to - from, cols = block.end - block.start;
    for (size_t i = first * kTileRows; i < (first + count) * kTileRows; ++i) {
      t.steps[i] = t.keep[i] != 0 ? static_cast<float>(t.codes[i]) - grids->zero[i % kTileRows] : 0.0f;
    }
    const MatrixView<float> steps(t.steps + first * kTileRows, count, kTileRows),
        product(t.product, cols, kTileRows);
    Gemm(false, false, 1.0f, h.view().Cols(first, count), steps, 0.0f, product);
    float along[kTileRows] = {}, curvature[kTileRows] = {}, delta[kTileRows];
    for (size_t j = first; j < first + count; ++j) {
      for (size_t r = 0; r < kTileRows; ++r) {
        along[r] += t.steps[j * kTileRows + r] * t.g[j * kTileRows + r];
        curvature[r] += t.steps[j * kTileRows + r] * t.product[j * kTileRows + r];
      }
    }
    for (size_t r = 0; r < kTileRows; ++r) {
      delta[r] = 0;
      if (!(curvature[r] > 0)) continue;
      const ScaleCode refitted = ToScaleCode(grids->scale[r] + along[r] / curvature[r]);
      const float scale = ToFloat(refitted);
      const float change = scale - grids->scale[r];
      const float gain = change * (change * curvature[r] - 2 * along[r]);
      if (!(gain < 0)) continue;
      delta[r] = change;
      t.loss[r] += gain;
      grids->Set(r, {refitted, grids->grid[r].zero});
    }
    for (size_t j = 0; j < cols; ++j) {
      for (size_t r = 0; r < kTileRows; ++r)
        t.g[j * kTileRows + r] -= delta[r] * t.product[j * kTileRows + r];
    }
    // Values as they will be decoded, so that no rounding of scale times steps is lost.
    Decode(block, g, *grids, t);
  }

  // One row of the tile, close together.
  struct Row {
    size_t cols;
    std::array<float, kBlockCols> g, q;
    std::array<uint8_t, kBlockCols> keep;
    std::array<const TileGrids*, kBlockCols> grids;
    std::array<uint8_t, kBlockCols> bits;
    size_t index;

    // The value nearest to w that column j can hold, and its code.
    float Nearest(size_t j, float w, uint16_t* code) const {
      if (bits[j] == 16) {
        const F16 half = ToF16(std::clamp(w, -65504.0f, 65504.0f));
        *code = half.bits;
        return ToFloat(half);
      }
      const float scale = grids[j]->scale[index];
      const int zero = grids[j]->grid[index].zero;
      *code = GridCode(w, scale, zero, (1 << bits[j]) - 1);
      return GridValue(*code, scale, zero);
    }
  };
  // Weight `in` kept with `code`, weight `out` pruned instead.
  struct Exchange {
    size_t in = 0, out = 0;
    float value = 0;
    uint16_t code = 0;
    float loss = 0;
  };

  // Whether pruning `out` and keeping `in` lowers the loss more than `best`.
  static void Consider(const Row& row, const Matrix<float>& h, size_t in, size_t out, Exchange* best) {
    const float removed = row.q[out];
    const float g = row.g[in] + h(in, out) * removed;
    Exchange exchange{in, out, 0, 0, 0};
    exchange.value = row.Nearest(in, g / h(in, in), &exchange.code);
    exchange.loss = removed * (2 * row.g[out] + h(out, out) * removed) +
                    exchange.value * (h(in, in) * exchange.value - 2 * g);
    if (exchange.loss < best->loss) *best = exchange;
  }

  // The most promising weights of columns [from, to): pruned ones by what they would gain alone, kept ones by
  // what they would cost.
  static void ConsiderPairs(const Row& row, const Matrix<float>& h, size_t from, size_t to, Exchange* best) {
    std::array<size_t, kCandidates> in{}, out{};
    std::array<float, kCandidates> gain{}, cost{};
    size_t ins = 0, outs = 0;
    // Insertion into lists sorted by falling gain and by rising cost.
    const auto insert = [](float key, size_t column, auto& keys, auto& columns, size_t& count) {
      size_t at = count;
      while (at > 0 && key < keys[at - 1]) --at;
      if (at == kCandidates) return;
      count = std::min(count + 1, kCandidates);
      for (size_t i = count - 1; i > at; --i) {
        keys[i] = keys[i - 1];
        columns[i] = columns[i - 1];
      }
      keys[at] = key;
      columns[at] = column;
    };
    for (size_t j = from; j < to; ++j) {
      if (row.keep[j] != 0) {
        insert(row.q[j] * (2 * row.g[j] + h(j, j) * row.q[j]), j, cost, out, outs);
      } else {
        insert(-row.g[j] * row.g[j] / h(j, j), j, gain, in, ins);
      }
    }
    for (size_t a = 0; a < ins; ++a) {
      for (size_t b = 0; b < outs; ++b) Consider(row, h, in[a], out[b], best);
    }
  }

  // Whether the cell that column j of the block belongs to lies in the block as a whole; [from, to) is that
  // cell.
  bool WholeCell(const ColumnBlock& block, size_t j, size_t* from, size_t* to) const {
    const size_t position = block.start + j, start = position - position % cell_.cols;
    const size_t end = std::min(start + cell_.cols, state_.plan.coded);
    *from = start - std::min(start, block.start);
    *to = end - block.start;
    return start >= block.start && end <= block.end;
  }

  void ExchangeRow(const ColumnBlock& block, const Matrix<float>& h, size_t r, TileBlock& t) const {
    Row row;
    row.cols = block.end - block.start;
    row.index = r;
    for (size_t g = block.first_group; g < block.last_group; ++g) {
      const auto [from, to] = Extent(block, g);
      std::fill(row.grids.begin() + static_cast<ptrdiff_t>(from),
                row.grids.begin() + static_cast<ptrdiff_t>(to), &t.grids[g - block.first_group]);
      std::fill(row.bits.begin() + static_cast<ptrdiff_t>(from),
                row.bits.begin() + static_cast<ptrdiff_t>(to), Group(g).bits);
    }
    for (size_t j = 0; j < row.cols; ++j) {
      row.g[j] = t.g[j * kTileRows + r];
      row.q[j] = t.q[j * kTileRows + r];
      row.keep[j] = t.keep[j * kTileRows + r];
    }
    bool changed = false;
    const auto apply = [&](const Exchange& exchange) {
      const float removed = row.q[exchange.out];
      const float* h_in = h.row(exchange.in);
      const float* h_out = h.row(exchange.out);
      for (size_t k = 0; k < row.cols; ++k) row.g[k] += removed * h_out[k] - exchange.value * h_in[k];
      row.q[exchange.out] = 0;
      row.q[exchange.in] = exchange.value;
      row.keep[exchange.out] = 0;
      row.keep[exchange.in] = 1;
      t.codes[exchange.out * kTileRows + r] = 0;
      t.codes[exchange.in * kTileRows + r] = exchange.code;
      t.loss[r] += exchange.loss;
      changed = true;
    };
    if (cell_.cols == 0) {
      for (int i = 0; i < kExchanges; ++i) {
        Exchange best;
        ConsiderPairs(row, h, 0, row.cols, &best);
        if (best.loss == 0) break;
        apply(best);
      }
    } else {
      for (size_t j = 0; j < row.cols;) {
        size_t from, to;
        const bool whole = WholeCell(block, j, &from, &to);
        if (whole) {
          Exchange best;
          ConsiderPairs(row, h, from, to, &best);
          if (best.loss < 0) apply(best);
        }
        j = to;
      }
    }
    if (!changed) return;
    for (size_t j = 0; j < row.cols; ++j) {
      t.g[j * kTileRows + r] = row.g[j];
      t.q[j * kTileRows + r] = row.q[j];
      t.keep[j * kTileRows + r] = row.keep[j];
    }
  }

  SolverState& state_;
  MatrixView<const float> h_;
  MatrixView<float> gradient_, steps_;
  const MaskKind cell_;
};

}  // namespace

double RefineAll(SolverState& state, ConstTensor h, int passes, ConstTensor residual, Tensor gradient,
                 Tensor steps) {
  MICA_CHECK(h.rows == state.cols);
  MICA_CHECK(h.cols == state.cols);
  for (const ConstTensor& matrix : {residual, ConstTensor(gradient), ConstTensor(steps)}) {
    MICA_CHECK(matrix.rows == state.cols);
    MICA_CHECK(matrix.cols == state.rows);
  }
  if (state.device().is_cuda()) return Cuda().RefineAll(state, h, passes, residual, gradient, steps);
  return Refinement(state, h, gradient, steps).Run(passes, residual);
}

}  // namespace mica
