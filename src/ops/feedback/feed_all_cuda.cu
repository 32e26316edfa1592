// The feedback on a CUDA device: the recursion of feed_all.cc, whose blocks of columns are solved by
// sweep_cuda.h's threads, all of a row's work in one go (grids, masks of cells, columns).
#include <limits>
#include <optional>
#include <vector>

#include "base/system.h"
#include "ops/cuda_ops.h"
#include "ops/feedback/block_order.h"
#include "ops/feedback/prune_cuda.h"
#include "ops/feedback/sweep_cuda.h"

namespace mica::cuda {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kShrinksEach = kGridShrinks / kLanes;  // of the first grids, tried by a lane
static_assert(kShrinksEach * kLanes == kGridShrinks);

// What does not change from block to block. Matrices of a column per row of memory: [cols, rows].
struct Problem {
  View<const float> u;
  View<float> remaining, errors;  // dense
  uint16_t* codes;
  uint8_t *keep, *scales, *zeros;  // keep: null without a mask
  const ScaleGroup* groups;
  const float* saliency;  // [cols]
  double* losses;         // [rows] of each, added to
  size_t rows, coded;
  int cell, cell_kept;  // of n:m, 0: none
  int search_rounds;
};

struct BlockOf {
  size_t start;
  int cols, halo;
  unsigned first_group, last_group;
  bool whole_groups;
};

// Shared memory of a block of threads.
struct Shared {
  static constexpr int kOfRows = kSweepRows * kRowValues;
  static constexpr size_t kBytes =
      (Triangle::kValues + 2 * kOfRows + 2 * kCols + kRowValues) * sizeof(float) + kOfRows;

  Triangle u;
  float *w, *trial;                // [kSweepRows, kRowValues]
  float *reciprocal, *importance;  // [kCols] 1 / U_jj and its square
  float* saliency;                 // [kRowValues]
  uint8_t* keep;                   // [kSweepRows, kRowValues]

  __device__ explicit Shared(float4* memory) {
    u.data = reinterpret_cast<float*>(memory);
    w = u.data + Triangle::kValues;
    trial = w + kOfRows;
    reciprocal = trial + kOfRows;
    importance = reciprocal + kCols;
    saliency = importance + kCols;
    keep = reinterpret_cast<uint8_t*>(saliency + kRowValues);
  }
};

// sum_j importance[j] (w[j] - quantised)^2 of one row on a grid, added to `sum`; keep may be null.
__device__ float GridError(const float* w, const uint8_t* keep, const float* importance, int from, int to,
                           const OfGrid& grid, float sum) {
  for (int j = from; j < to; ++j) {
    if (keep != nullptr && keep[j] == 0) continue;
    const float difference = __fsub_rn(w[j], __fmul_rn(grid.Steps(w[j]), grid.scale));
    sum = __fmaf_rn(__fmul_rn(difference, importance[j]), difference, sum);
  }
  return sum;
}

// The best of the grids whose errors the lanes of a row have found, lane l those of steps l, l + kLanes, ...
__device__ RowGrid BestShrunken(const float (&errors)[kShrinksEach], float low, float high, int lane,
                                int bits, float* error) {
  Ranked best{kInfinity, lane};
  for (int i = 0; i < kShrinksEach; ++i) {
    if (errors[i] < best.key) best = {errors[i], lane + i * kLanes};
  }
  best = RowFirst(best);
  *error = best.key;
  return ShrunkenGrid(low, high, best.index, bits);
}

// A row of a block: what its lanes do together.
class Row {
 public:
  __device__ Row(const Problem& problem, const BlockOf& block, const Shared& shared)
      : problem_(problem),
        block_(block),
        shared_(shared),
        lane_(static_cast<int>(threadIdx.x) % kLanes),
        in_block_(static_cast<int>(threadIdx.x) / kLanes),
        row_(blockIdx.x * size_t{kSweepRows} + in_block_) {
    w_ = shared.w + in_block_ * kRowValues;
    trial_ = shared.trial + in_block_ * kRowValues;
    keep_ = problem.keep != nullptr ? shared.keep + in_block_ * kRowValues : nullptr;
  }

  __device__ void Solve() {
    double loss = 0;
    for (unsigned g = block_.first_group; g < block_.last_group; ++g) {
      const ScaleGroup group = problem_.groups[g];
      const int from = static_cast<int>(max(size_t{group.start}, block_.start) - block_.start);
      const int to =
          static_cast<int>(min(size_t{group.start} + group.count, block_.start + block_.cols) - block_.start);
      RowGrid grid;
      if (group.scale_row >= 0) {
        const size_t at = static_cast<size_t>(group.scale_row) * problem_.rows + row_;
        if (block_.whole_groups) {
          grid = Fit(from, to, group.bits);
          if (lane_ == 0 && exists()) {
            problem_.scales[at] = static_cast<uint8_t>(grid.scale);
            problem_.zeros[at] = static_cast<uint8_t>(grid.zero);
          }
        } else if (exists()) {
          grid = {problem_.scales[at], problem_.zeros[at]};
        }
      }
      WithQuantiser(group.bits, grid, [&](const auto& quantiser) {
        loss += Advance<true>(quantiser, from, to, block_.cols + block_.halo, w_);
      });
    }
    if (lane_ == 0 && exists()) problem_.losses[row_] += loss;
  }

 private:
  __device__ bool exists() const { return row_ < problem_.rows; }

  // The n:m cell that starts at column `at` of the block, or what is left of one where the coded columns end.
  __device__ void SelectCell(int at, const float* w) const {
    const size_t left = problem_.coded - block_.start - at;
    const int cols = left < static_cast<size_t>(problem_.cell) ? static_cast<int>(left) : problem_.cell;
    const int pruned = cols * (problem_.cell - problem_.cell_kept) / problem_.cell;
    float score = 0;
    if (lane_ < cols) {
      const float value = w[at + lane_];
      score = __fmul_rn(__fmul_rn(value, value), shared_.saliency[at + lane_]);
    }
    int rank = 0;  // of equal scores the first counts as smaller
    for (int k = 0; k < cols; ++k) {
      const float other = __shfl_sync(kAllLanes, score, k, kLanes);
      rank += other < score || (other == score && k < lane_);
    }
    if (lane_ < cols) keep_[at + lane_] = rank >= pruned;
    __syncwarp();
  }

  // Whether a cell starts at column `at`.
  __device__ bool StartsCell(int at) const {
    const size_t position = block_.start + at;
    return problem_.cell > 0 && position < problem_.coded && position % problem_.cell == 0;
  }

  // Fixes columns [from, to) in w, [.., end) taking the errors; masks of cells are chosen as they are
  // reached. kFinal: errors and codes are stored. Returns the sum of squared errors.
  template <bool kFinal, typename Quantiser>
  __device__ float Advance(const Quantiser& quantiser, int from, int to, int end, float* w) const {
    float loss = 0;
    for (int at = from; at < to;) {
      int next = to;
      if (problem_.cell > 0 && block_.start + at < problem_.coded) {
        if (StartsCell(at)) SelectCell(at, w);
        next = min(to, at + problem_.cell - static_cast<int>((block_.start + at) % problem_.cell));
      }
      for (int first = at; first < next; first += kStrip) {
        const int count = min(kStrip, next - first);
        const uint32_t kept = KeptOf(keep_, first, count, lane_);
        float own_error = 0;
        uint32_t own_code = 0;
        SweepStrip(shared_.u, first, count, end, lane_, w, [&](int i, float value) {
          uint32_t code;
          const float quantised = quantiser.Value(value, kept >> i & 1, &code);
          const float error = __fmul_rn(__fsub_rn(value, quantised), shared_.reciprocal[first + i]);
          loss = __fmaf_rn(error, error, loss);
          if (kFinal && lane_ == i) {
            own_error = error;
            own_code = code;
          }
          return error;
        });
        if (kFinal && lane_ < count && exists()) {
          const size_t position = block_.start + first + lane_;
          problem_.errors.row(position)[row_] = own_error;
          problem_.codes[position * problem_.rows + row_] = static_cast<uint16_t>(own_code);
        }
      }
      at = next;
    }
    return loss;
  }

  // The grid of columns [from, to): first by rounding error weighted by 1 / U_jj^2, then by the loss that the
  // group's columns really leave when they are fixed one after the other on that grid.
  __device__ RowGrid Fit(int from, int to, int bits) const {
    for (int at = from; at < to; ++at) {  // as far as can be said before the columns are reached
      if (StartsCell(at)) SelectCell(at, w_);
    }
    float low = 0, high = 0;
    for (int j = from + lane_; j < to; j += kLanes) {
      const float value = keep_ == nullptr || keep_[j] != 0 ? w_[j] : 0.0f;
      low = fminf(low, value);
      high = fmaxf(high, value);
    }
    low = RowMin(low);
    high = RowMax(high);
    float errors[kShrinksEach], best;
#pragma unroll
    for (int i = 0; i < kShrinksEach; ++i) {
      const OfGrid tried(ShrunkenGrid(low, high, lane_ + i * kLanes, bits), bits);
      errors[i] = GridError(w_, keep_, shared_.importance, from, to, tried, 0);
    }
    RowGrid grid = BestShrunken(errors, low, high, lane_, bits, &best);
    if (problem_.search_rounds == 0) {
      Search(kGridRounds, bits, best, grid, [&](const RowGrid& candidate) {
        return GridError(w_, keep_, shared_.importance, from, to, OfGrid(candidate, bits), 0);
      });
      return grid;
    }
    const int end = min(to + max(problem_.cell - 1, 0), block_.cols + block_.halo);
    const auto loss_on = [&](const RowGrid& candidate) {
      for (int k = from + lane_; k < end; k += kLanes) trial_[k] = w_[k];
      __syncwarp();
      return Advance<false>(OfGrid(candidate, bits), from, to, end, trial_);
    };
    Search(problem_.search_rounds, bits, loss_on(grid), grid, loss_on);
    return grid;
  }

  // Moves the grid to where `error_of` is less, from `least`. All lanes of a warp try as long as one of its
  // rows has something to try; the others find again what they know.
  template <typename ErrorOf>
  __device__ static void Search(int rounds, int bits, float least, RowGrid& grid, const ErrorOf& error_of) {
    uint32_t known = 0;  // moves from this grid that lead to no less
    for (int round = 0; round < rounds; ++round) {
      bool moved = false;
      for (int move = 0; move < kGridMoves; ++move) {
        if (__all_sync(kAllLanes, known >> move & 1)) continue;
        const RowGrid candidate = Moved(grid, move, bits);
        const float error = error_of(candidate);
        if (error < least) {
          least = error;
          grid = candidate;
          moved = true;
          known = 1u << (move ^ 1);  // the way back
        } else {
          known |= 1u << move;
        }
      }
      if (!__any_sync(kAllLanes, moved)) return;
    }
  }

  const Problem& problem_;
  const BlockOf& block_;
  const Shared& shared_;
  const int lane_, in_block_;
  const size_t row_;
  float *w_, *trial_;
  uint8_t* keep_;
};

__global__ void __launch_bounds__(kSweepThreads, 3) SolveRows(const Problem problem, const BlockOf block) {
  extern __shared__ float4 memory[];
  const Shared shared(memory);
  const int end = block.cols + block.halo;
  LoadTriangle(problem.u, block.start, block.cols, end, shared.u);
  LoadColumns<float>(problem.remaining.data, problem.rows, block.start, end, shared.w);
  if (problem.keep != nullptr)
    LoadColumns<uint8_t>(problem.keep, problem.rows, block.start, end, shared.keep);
  for (int j = threadIdx.x; j < end; j += kSweepThreads)
    shared.saliency[j] = problem.saliency[block.start + j];
  for (int j = threadIdx.x; j < block.cols; j += kSweepThreads) {
    const float reciprocal = __frcp_rn(problem.u.row(block.start + j)[block.start + j]);
    shared.reciprocal[j] = reciprocal;
    shared.importance[j] = __fmul_rn(reciprocal, reciprocal);
  }
  __syncthreads();
  Row(problem, block, shared).Solve();
  __syncthreads();
  StoreColumns(shared.w + block.cols, problem.rows, block.start + block.cols, block.halo,
               problem.remaining.data);
  if (problem.cell > 0) StoreColumns(shared.keep, problem.rows, block.start, end, problem.keep);
}

// Grids of a scale group of several blocks, by weighted rounding error: kBlockCols columns at a time pass
// through shared memory, as often as grids are tried.
__global__ void __launch_bounds__(kSweepThreads)
    FitLargeGroupRows(const Problem problem, const ScaleGroup group) {
  extern __shared__ float4 memory[];
  float* const w = reinterpret_cast<float*>(memory);
  float* const importance = w + kSweepRows * kRowValues;
  const int lane = static_cast<int>(threadIdx.x) % kLanes, in_block = static_cast<int>(threadIdx.x) / kLanes;
  const size_t row = blockIdx.x * size_t{kSweepRows} + in_block;
  const float* const own = w + in_block * kRowValues;
  // use(count) for the columns that stand in shared memory.
  const auto for_columns = [&](const auto& use) {
    for (size_t start = group.start, end = start + group.count; start < end; start += kCols) {
      const int count = static_cast<int>(min(size_t{kCols}, end - start));
      __syncthreads();
      LoadColumns<float>(problem.remaining.data, problem.rows, start, count, w);
      for (int j = threadIdx.x; j < count; j += kSweepThreads) {
        const float u = problem.u.row(start + j)[start + j];
        importance[j] = __frcp_rn(__fmul_rn(u, u));
      }
      __syncthreads();
      use(count);
    }
  };
  float low = 0, high = 0;
  for_columns([&](int count) {
    for (int j = lane; j < count; j += kLanes) {
      low = fminf(low, own[j]);
      high = fmaxf(high, own[j]);
    }
  });
  low = RowMin(low);
  high = RowMax(high);
  float errors[kShrinksEach] = {}, least;
  for_columns([&](int count) {
#pragma unroll
    for (int i = 0; i < kShrinksEach; ++i) {
      const OfGrid tried(ShrunkenGrid(low, high, lane + i * kLanes, group.bits), group.bits);
      errors[i] = GridError(own, nullptr, importance, 0, count, tried, errors[i]);
    }
  });
  RowGrid grid = BestShrunken(errors, low, high, lane, group.bits, &least);
  for (int move = 0; move < kGridRounds * kGridMoves; ++move) {
    const RowGrid candidate = Moved(grid, move % kGridMoves, group.bits);
    const OfGrid tried(candidate, group.bits);
    float error = 0;
    for_columns([&](int count) { error = GridError(own, nullptr, importance, 0, count, tried, error); });
    if (!(error < least)) continue;
    least = error;
    grid = candidate;
  }
  if (lane != 0 || row >= problem.rows) return;
  const size_t at = static_cast<size_t>(group.scale_row) * problem.rows + row;
  problem.scales[at] = static_cast<uint8_t>(grid.scale);
  problem.zeros[at] = static_cast<uint8_t>(grid.zero);
}

class Feedback {
 public:
  Feedback(SolverState& state, ConstTensor u, const FeedbackSettings& settings, Tensor remaining,
           Tensor errors)
      : state_(state),
        u_(u),
        remaining_(remaining),
        errors_(errors),
        device_(state.device()),
        groups_(device_, state.plan.groups),
        saliency_(device_, settings.saliency),
        row_importance_(device_, settings.row_importance),
        losses_(device_, std::vector<double>(state.rows, 0.0)) {
    const MaskKind& mask = state.plan.mask;
    MICA_CHECK(mask.cols <= static_cast<size_t>(kLanes));
    MICA_CHECK(remaining.stride == state.rows);
    if (mask == MaskKind::kBitmap) {
      MICA_CHECK(settings.row_importance.empty() || settings.row_importance.size() == state.rows);
      has_importance_ = !settings.row_importance.empty();
      scores_.emplace(kBlockCols, state.rows, device_);
    }
    problem_ = {In<float>(u),
                Out<float>(remaining),
                Out<float>(errors),
                reinterpret_cast<uint16_t*>(state.codes.view().data),
                state.masked() ? reinterpret_cast<uint8_t*>(state.keep.view().data) : nullptr,
                reinterpret_cast<uint8_t*>(state.scales.view().data),
                reinterpret_cast<uint8_t*>(state.zeros.view().data),
                groups_.data(),
                saliency_.data(),
                losses_.data(),
                state.rows,
                state.plan.coded,
                static_cast<int>(mask.cols),
                static_cast<int>(mask.kept),
                settings.search_rounds};
  }

  double Run() {
    if (state_.rows == 0 || state_.plan.blocks.empty()) return 0;
    SolveBlocks(state_.plan, 0, state_.plan.blocks.size(), *this);
    std::vector<double> of_rows(state_.rows);
    losses_.CopyTo(of_rows);
    double loss = 0;
    for (const double part : of_rows) loss += part;
    return loss;
  }

  // What SolveBlocks calls.
  void FitLargeGroup(const ScaleGroup& group) const {
    Launch(device_, FitLargeGroupRows, OfRows(), kSweepThreads,
           (kSweepRows * kRowValues + kCols) * sizeof(float), problem_, group);
  }

  void Subtract(size_t start, size_t done, size_t from, size_t to) const {
    cuda::Gemm(true, false, -1.0f, u_.Rows(start, done - start).Cols(from, to - from),
               errors_.Rows(start, done - start), 1.0f, remaining_.Rows(from, to - from));
  }

  void SolveBlock(const ColumnBlock& block) {
    const size_t cols = block.end - block.start;
    if (scores_ && block.end <= state_.plan.coded) {
      const std::vector<uint64_t>& before = state_.plan.pruned_before;
      scores_->Prune(remaining_.Rows(block.start, cols), saliency_.data() + block.start,
                     has_importance_ ? row_importance_.data() : nullptr,
                     before[block.end] - before[block.start], problem_.keep + block.start * state_.rows);
    }
    const BlockOf of_block{block.start,
                           static_cast<int>(cols),
                           static_cast<int>(Halo(state_.plan, block.end)),
                           static_cast<unsigned>(block.first_group),
                           static_cast<unsigned>(block.last_group),
                           block.whole_groups};
    Launch(device_, SolveRows, OfRows(), kSweepThreads, Shared::kBytes, problem_, of_block);
  }

 private:
  unsigned OfRows() const { return Blocks(state_.rows, kSweepRows); }

  SolverState& state_;
  const ConstTensor u_;
  const Tensor remaining_, errors_;
  const Device device_;
  const Values<ScaleGroup> groups_;
  const Values<float> saliency_, row_importance_;
  const Values<double> losses_;
  bool has_importance_ = false;
  std::optional<SmallestScores> scores_;
  Problem problem_;
};

}  // namespace

double FeedAll(SolverState& state, ConstTensor u, const FeedbackSettings& settings, Tensor remaining,
               Tensor errors) {
  return Feedback(state, u, settings, remaining, errors).Run();
}

}  // namespace mica::cuda
