// Refinement on a CUDA device: refine.cc, with what a row does in a block of columns done by eight lanes
// (ops/feedback/sweep_cuda.h).
//
// Where the processor applies what a block changes to the whole gradient at once, here the gradient of a
// block is brought up to date when its turn comes, as far as possible together with that of its neighbours:
// halves of halves, so that most of the work is in large products. A block's last change is kept until the
// next one: the columns before it take it in the next pass, those behind it in this one, and after the last
// pass nobody does.
#include <limits>
#include <vector>

#include "base/system.h"
#include "ops/cuda_ops.h"
#include "ops/feedback/sweep_cuda.h"
#include "ops/linalg/split_product_cuda.h"

namespace mica::cuda {
namespace {

// As on the processor (refine.cc).
constexpr int kExchanges = 2;
constexpr int kCandidates = 4;
constexpr double kWorthwhile = 0.02;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kRowsOfWarp = kWarp / kLanes;
constexpr int kOfLane = kCols / kWarp;  // columns of a lane, where a warp's rows are taken together

constexpr size_t kTogether = 2;  // blocks whose changes are not halved further

// What does not change from block to block. Matrices of a column per row of memory: [cols, rows].
struct Problem {
  View<const float> h;
  View<float> gradient;  // dense
  Parts changes;         // what blocks changed last
  uint16_t* codes;
  uint8_t *keep, *scales, *zeros;  // keep: null without a mask
  const ScaleGroup* groups;
  const uint32_t* group_of;  // [cols] by position
  double* losses;            // [rows] changes of the loss of each, added to
  size_t rows, coded;
  int cell;  // columns of a cell of an n:m mask, 0: none
};

struct BlockOf {
  size_t start;
  PartOf part;  // of its first column
  int cols;
  unsigned first_group, last_group;
  bool whole_groups, exchange;
};

// Shared memory of a block of threads; [kSweepRows, kRowValues] each but for the first two.
struct Shared {
  static constexpr int kOfRows = kSweepRows * kRowValues;
  static constexpr size_t kBytes = (Triangle::kValues + kCols + 3 * kOfRows) * sizeof(float) +
                                   kOfRows * (sizeof(uint16_t) + sizeof(uint8_t));

  Triangle h;
  float* reciprocal;  // [kCols] 1 / H_jj
  float* g;           // H (W - Q), as far as the block's columns have been changed
  float* q;           // values now
  float* scratch;     // code - zero of kept weights; keys of the search for exchanges; what was changed
  uint16_t* codes;
  uint8_t* keep;

  __device__ explicit Shared(float4* memory) {
    h.data = reinterpret_cast<float*>(memory);
    g = h.data + Triangle::kValues;
    q = g + kOfRows;
    scratch = q + kOfRows;
    reciprocal = scratch + kOfRows;
    codes = reinterpret_cast<uint16_t*>(reciprocal + kCols);
    keep = reinterpret_cast<uint8_t*>(codes + kOfRows);
  }
};

// Weight `in` kept with `code`, weight `out` pruned instead.
struct Exchange {
  float value = 0, loss = 0;
  uint32_t code = 0;
};

__device__ inline int Chosen(const int (&list)[kCandidates], int index) {
  static_assert(kCandidates == 4);
  return index < 2 ? (index == 0 ? list[0] : list[1]) : (index == 2 ? list[2] : list[3]);
}

// A row of a block: what its lanes do together.
class Row {
 public:
  __device__ Row(const Problem& problem, const BlockOf& block, const Shared& shared)
      : problem_(problem),
        block_(block),
        shared_(shared),
        lane_(static_cast<int>(threadIdx.x) % kLanes),
        row_(blockIdx.x * size_t{kSweepRows} + threadIdx.x / kLanes) {
    const int at = static_cast<int>(threadIdx.x) / kLanes * kRowValues;
    g_ = shared.g + at;
    q_ = shared.q + at;
    scratch_ = shared.scratch + at;
    codes_ = shared.codes + at;
    keep_ = shared.keep + at;
  }

  __device__ void Refine() {
    for (unsigned g = block_.first_group; g < block_.last_group; ++g) Decode(g, GridOf(g));
    // Values at the start of the pass, which each lane keeps where it will write the changes.
    for (int j = lane_; j < block_.cols; j += kLanes) {
      if (exists()) *Part(j) = q_[j];
    }
    if (block_.whole_groups) {
      for (unsigned g = block_.first_group; g < block_.last_group; ++g) {
        if (problem_.groups[g].scale_row >= 0) RefitScale(g);
      }
    }
    if (block_.exchange) MakeExchanges();
    for (unsigned g = block_.first_group; g < block_.last_group; ++g) Descend(g);
    for (int j = lane_; j < block_.cols; j += kLanes)
      scratch_[j] = exists() ? __fsub_rn(q_[j], *Part(j)) : 0.0f;
    if (lane_ == 0 && exists()) problem_.losses[row_] += loss_;
  }

 private:
  __device__ bool exists() const { return row_ < problem_.rows; }
  // The high part of what column j changes.
  __device__ float* Part(int j) const {
    return problem_.changes.high + (size_t{block_.part.at} + j) * problem_.rows + row_;
  }
  __device__ float H(int i, int j) const { return problem_.h.row(block_.start + i)[block_.start + j]; }
  __device__ float Diagonal(int j) const { return shared_.h.row(j)[j]; }

  // Columns of scale group g that lie in the block, from its start.
  __device__ int From(const ScaleGroup& group) const {
    return static_cast<int>(max(size_t{group.start}, block_.start) - block_.start);
  }
  __device__ int To(const ScaleGroup& group) const {
    return static_cast<int>(min(size_t{group.start} + group.count, block_.start + block_.cols) -
                            block_.start);
  }

  __device__ RowGrid GridOf(unsigned g) const {
    const int32_t scale_row = problem_.groups[g].scale_row;
    if (scale_row < 0 || !exists()) return {};
    const size_t at = static_cast<size_t>(scale_row) * problem_.rows + row_;
    return {problem_.scales[at], problem_.zeros[at]};
  }

  __device__ void Decode(unsigned g, const RowGrid& grid) const {
    const ScaleGroup group = problem_.groups[g];
    const float scale = ScaleOf(grid.scale);
    for (int j = From(group) + lane_; j < To(group); j += kLanes) {
      const float value = group.bits == 16
                              ? __half2float(__ushort_as_half(codes_[j]))
                              : __fmul_rn(static_cast<float>(static_cast<int>(codes_[j]) - grid.zero), scale);
      q_[j] = keep_[j] != 0 ? value : 0.0f;
    }
    __syncwarp();
  }

  // With n = code - zero held, the loss of scale s + d differs by -2 d n.g + d^2 n.Hn; d = n.g / n.Hn, as far
  // as stored scales allow. H n is found for all rows of a warp together, so that H is read once for them: a
  // lane has every 32nd column.
  __device__ void RefitScale(unsigned g) {
    const ScaleGroup group = problem_.groups[g];
    const int from = From(group), to = To(group), lane = static_cast<int>(threadIdx.x) % kWarp;
    RowGrid grid = GridOf(g);
    for (int j = from + lane_; j < to; j += kLanes)
      scratch_[j] = keep_[j] != 0 ? static_cast<float>(static_cast<int>(codes_[j]) - grid.zero) : 0.0f;
    __syncwarp();
    const int first = static_cast<int>(threadIdx.x) / kWarp * kRowsOfWarp * kRowValues;
    const float* const steps = shared_.scratch + first;
    float* const gradients = shared_.g + first;
    float product[kRowsOfWarp][kOfLane];
#pragma unroll
    for (int r = 0; r < kRowsOfWarp; ++r) {
#pragma unroll
      for (int i = 0; i < kOfLane; ++i) product[r][i] = 0;
    }
#pragma unroll 8  // loads under way: H comes from the second cache
    for (int k = from; k < to; ++k) {
      const float* h = problem_.h.row(block_.start + k) + block_.start;  // H is symmetric
      float of_h[kOfLane];
#pragma unroll
      for (int i = 0; i < kOfLane; ++i) {
        const int j = i * kWarp + lane;
        of_h[i] = j < block_.cols ? h[j] : 0.0f;
      }
#pragma unroll
      for (int r = 0; r < kRowsOfWarp; ++r) {
        const float n = steps[r * kRowValues + k];
#pragma unroll
        for (int i = 0; i < kOfLane; ++i) product[r][i] = __fmaf_rn(of_h[i], n, product[r][i]);
      }
    }
    const int own = static_cast<int>(threadIdx.x) % kWarp / kLanes;  // row
    float along = 0, curvature = 0;
#pragma unroll
    for (int r = 0; r < kRowsOfWarp; ++r) {
      float of_g = 0, of_h = 0;
#pragma unroll
      for (int i = 0; i < kOfLane; ++i) {
        const int j = i * kWarp + lane;
        if (j < from || j >= to) continue;
        const float n = steps[r * kRowValues + j];
        of_g = __fmaf_rn(n, gradients[r * kRowValues + j], of_g);
        of_h = __fmaf_rn(n, product[r][i], of_h);
      }
      of_g = WarpSum(of_g);
      of_h = WarpSum(of_h);
      along = own == r ? of_g : along;
      curvature = own == r ? of_h : curvature;
    }
    float change = 0;
    if (curvature > 0) {
      const float old = ScaleOf(grid.scale);
      const int refitted = ScaleCodeOf(__fadd_rn(old, __fdiv_rn(along, curvature)));
      const float wanted = __fsub_rn(ScaleOf(refitted), old);
      const float gain = __fmul_rn(wanted, __fsub_rn(__fmul_rn(wanted, curvature), 2 * along));
      if (gain < 0) {
        change = wanted;
        loss_ += gain;
        grid.scale = refitted;
        if (lane_ == 0 && exists())
          problem_.scales[static_cast<size_t>(group.scale_row) * problem_.rows + row_] =
              static_cast<uint8_t>(refitted);
      }
    }
    __syncwarp();
#pragma unroll
    for (int r = 0; r < kRowsOfWarp; ++r) {
      const float of_row = __shfl_sync(kAllLanes, change, r * kLanes);
      if (of_row == 0) continue;
#pragma unroll
      for (int i = 0; i < kOfLane; ++i) {
        const int j = i * kWarp + lane;
        if (j >= block_.cols) continue;
        float& value = gradients[r * kRowValues + j];
        value = __fsub_rn(value, __fmul_rn(of_row, product[r][i]));
      }
    }
    __syncwarp();
    // Values as they will be decoded, so that no rounding of scale times steps is lost.
    Decode(g, grid);
  }

  // The value nearest to w that column j can hold.
  __device__ float Nearest(int j, float w, uint32_t* code) const {
    const unsigned g = problem_.group_of[block_.start + j];
    const int bits = problem_.groups[g].bits;
    return bits == 16 ? OfHalf().Value(w, true, code) : OfGrid(GridOf(g), bits).Value(w, true, code);
  }

  // What keeping `in` in the place of `out` would change.
  __device__ Exchange Exchanging(int in, int out) const {
    const float removed = q_[out], h_in = Diagonal(in), h_out = Diagonal(out);
    const float g = __fadd_rn(g_[in], __fmul_rn(H(in, out), removed));
    Exchange exchange;
    exchange.value = Nearest(in, __fdiv_rn(g, h_in), &exchange.code);
    exchange.loss = __fadd_rn(__fmul_rn(removed, __fadd_rn(2 * g_[out], __fmul_rn(h_out, removed))),
                              __fmul_rn(exchange.value, __fsub_rn(__fmul_rn(h_in, exchange.value), 2 * g)));
    return exchange;
  }

  // The columns of [from, to) that are kept, or those that are not, with the least keys (in scratch), of
  // equal ones the first; -1 where there are no more.
  __device__ void Least(int from, int to, bool kept, int (&columns)[kCandidates]) const {
    Ranked own[kCandidates];  // of the lane's columns, in order
#pragma unroll
    for (int c = 0; c < kCandidates; ++c) own[c] = {kInfinity, kCols};
    for (int j = from + lane_; j < to; j += kLanes) {
      if ((keep_[j] != 0) != kept) continue;
      Ranked here{scratch_[j], j};
#pragma unroll
      for (int c = 0; c < kCandidates; ++c) {
        // Columns come in order, so that of equal keys the one that is there stays before.
        const bool before = here.key < own[c].key;
        const Ranked behind = before ? own[c] : here;
        own[c] = before ? here : own[c];
        here = behind;
      }
    }
#pragma unroll
    for (int c = 0; c < kCandidates; ++c) {
      const Ranked best = RowFirst(own[0]);
      columns[c] = best.index < kCols ? best.index : -1;
      if (best.index != own[0].index) continue;
#pragma unroll
      for (int i = 1; i < kCandidates; ++i) own[i - 1] = own[i];
      own[kCandidates - 1] = {kInfinity, kCols};
    }
  }

  // The exchange within columns [from, to) that lowers the loss most of those between the most promising
  // weights (pruned ones by what they would gain alone, kept ones by what they would cost), made if there is
  // one.
  __device__ void ExchangeWithin(int from, int to) {
    for (int j = from + lane_; j < to; j += kLanes) {
      const float g = g_[j], q = q_[j], h = Diagonal(j);
      scratch_[j] =
          keep_[j] != 0 ? __fmul_rn(q, __fadd_rn(2 * g, __fmul_rn(h, q))) : __fdiv_rn(__fmul_rn(-g, g), h);
    }
    __syncwarp();
    int in[kCandidates], out[kCandidates];
    Least(from, to, false, in);
    Least(from, to, true, out);
    Ranked best{0, kCandidates * kCandidates};
    for (int pair = lane_; pair < kCandidates * kCandidates; pair += kLanes) {
      const int i = Chosen(in, pair / kCandidates), o = Chosen(out, pair % kCandidates);
      if (i < 0 || o < 0) continue;
      const Ranked here{Exchanging(i, o).loss, pair};
      if (here.Before(best)) best = here;
    }
    best = RowFirst(best);
    __syncwarp();
    if (best.key < 0) {
      const int i = Chosen(in, best.index / kCandidates), o = Chosen(out, best.index % kCandidates);
      const Exchange exchange = Exchanging(i, o);
      const float removed = q_[o];
      __syncwarp(((1u << kLanes) - 1) << (threadIdx.x % kWarp / kLanes * kLanes));  // the row has read
      Apply(i, o, removed, exchange);
    }
    __syncwarp();
  }

  __device__ void Apply(int in, int out, float removed, const Exchange& exchange) {
    for (int k = lane_; k < block_.cols; k += kLanes) {
      g_[k] = __fadd_rn(g_[k], __fsub_rn(__fmul_rn(removed, H(out, k)), __fmul_rn(exchange.value, H(in, k))));
    }
    loss_ += exchange.loss;
    if (lane_ != 0) return;
    q_[out] = 0;
    q_[in] = exchange.value;
    keep_[out] = 0;
    keep_[in] = 1;
    codes_[out] = 0;
    codes_[in] = static_cast<uint16_t>(exchange.code);
  }

  __device__ void MakeExchanges() {
    if (problem_.cell == 0) {
      for (int i = 0; i < kExchanges; ++i) ExchangeWithin(0, block_.cols);
      return;
    }
    const size_t cell = problem_.cell;
    for (int j = 0; j < block_.cols;) {
      const size_t position = block_.start + j, start = position - position % cell;
      const size_t end = min(start + cell, problem_.coded);
      const int to = static_cast<int>(end - block_.start);
      // Cells that lie in the block as a whole.
      if (start >= block_.start && to <= block_.cols)
        ExchangeWithin(static_cast<int>(start - block_.start), to);
      j = to;
    }
  }

  // Each column to its best value with the others fixed, one after the other.
  __device__ void Descend(unsigned g) {
    const ScaleGroup group = problem_.groups[g];
    const int from = From(group), to = To(group);
    WithQuantiser(group.bits, GridOf(g), [&](const auto& quantiser) {
      for (int first = from; first < to; first += kStrip) {
        const int count = min(kStrip, to - first);
        const uint32_t kept = KeptOf(keep_, first, count, lane_);
        const float own = lane_ < count ? q_[first + lane_] : 0.0f;
        float own_value = 0;
        uint32_t own_code = 0;
        SweepStrip(shared_.h, first, count, block_.cols, lane_, g_, [&](int i, float gradient) {
          const int j = first + i;
          const float old = __shfl_sync(kAllLanes, own, i, kLanes);
          uint32_t code;
          const float value =
              quantiser.Value(__fmaf_rn(gradient, shared_.reciprocal[j], old), kept >> i & 1, &code);
          const float change = __fsub_rn(value, old);
          const float curvature = __fmul_rn(change, Diagonal(j));
          loss_ = __fmaf_rn(change, __fsub_rn(curvature, 2 * gradient), loss_);
          if (lane_ == i) {
            own_value = value;
            own_code = code;
          }
          return change;
        });
        if (lane_ < count) {
          q_[first + lane_] = own_value;
          codes_[first + lane_] = static_cast<uint16_t>(own_code);
        }
      }
    });
    __syncwarp();
  }

  const Problem& problem_;
  const BlockOf& block_;
  const Shared& shared_;
  const int lane_;
  const size_t row_;
  float *g_, *q_, *scratch_;
  uint16_t* codes_;
  uint8_t* keep_;
  float loss_ = 0;
};

__global__ void __launch_bounds__(kSweepThreads, 3) RefineRows(const Problem problem, const BlockOf block) {
  extern __shared__ float4 memory[];
  const Shared shared(memory);
  LoadTriangle(problem.h, block.start, block.cols, block.cols, shared.h);
  LoadColumns<float>(problem.gradient.data, problem.rows, block.start, block.cols, shared.g);
  LoadColumns<uint16_t>(problem.codes, problem.rows, block.start, block.cols, shared.codes);
  if (problem.keep != nullptr) {
    LoadColumns<uint8_t>(problem.keep, problem.rows, block.start, block.cols, shared.keep);
  } else {
    for (int i = threadIdx.x; i < Shared::kOfRows; i += kSweepThreads) shared.keep[i] = 1;
  }
  for (int j = threadIdx.x; j < block.cols; j += kSweepThreads)
    shared.reciprocal[j] = __frcp_rn(problem.h.row(block.start + j)[block.start + j]);
  __syncthreads();
  Row(problem, block, shared).Refine();
  __syncthreads();
  const size_t first = blockIdx.x * size_t{kSweepRows};
  for (int i = threadIdx.x; i < block.cols * kSweepRows; i += kSweepThreads) {
    const int j = i / kSweepRows, r = i % kSweepRows;
    if (first + r >= problem.rows) continue;
    const PartOf part{block.part.at + j, block.part.first + j, block.part.places};
    StoreParts(shared.scratch[r * kRowValues + j], problem.changes, part, problem.rows, first + r);
  }
  StoreColumns(shared.codes, problem.rows, block.start, block.cols, problem.codes);
  if (problem.keep != nullptr) StoreColumns(shared.keep, problem.rows, block.start, block.cols, problem.keep);
}

std::vector<uint32_t> GroupOf(const ColumnPlan& plan, size_t cols) {
  std::vector<uint32_t> group_of(cols);
  for (uint32_t g = 0; g < plan.groups.size(); ++g) {
    const ScaleGroup& group = plan.groups[g];
    for (size_t p = group.start; p < size_t{group.start} + group.count; ++p) group_of[p] = g;
  }
  return group_of;
}

// Blocks of the plan that have a code: those of width 0 come last, and nothing is changed in them.
size_t CodedBlocks(const ColumnPlan& plan) {
  size_t count = 0;
  while (count < plan.blocks.size() && plan.groups[plan.blocks[count].first_group].bits != 0) ++count;
  return count;
}

std::vector<size_t> Starts(const ColumnPlan& plan, size_t cols) {
  std::vector<size_t> starts;
  for (const ColumnBlock& block : plan.blocks) starts.push_back(block.start);
  starts.push_back(cols);
  return starts;
}

class Refinement {
 public:
  Refinement(SolverState& state, ConstTensor h, Tensor gradient)
      : state_(state),
        device_(state.device()),
        gradient_(gradient),
        coded_(CodedBlocks(state.plan)),
        groups_(device_, state.plan.groups),
        group_of_(device_, GroupOf(state.plan, state.cols)),
        losses_(device_, state.rows),
        product_(h, Starts(state.plan, state.cols), coded_, state.rows) {
    const ColumnPlan& plan = state.plan;
    MICA_CHECK(gradient.stride == state.rows);
    MICA_CHECK(plan.mask.cols <= static_cast<size_t>(kLanes));
    problem_ = {In<float>(h),
                Out<float>(gradient),
                product_.parts(),
                reinterpret_cast<uint16_t*>(state.codes.view().data),
                state.masked() ? reinterpret_cast<uint8_t*>(state.keep.view().data) : nullptr,
                reinterpret_cast<uint8_t*>(state.scales.view().data),
                reinterpret_cast<uint8_t*>(state.zeros.view().data),
                groups_.data(),
                group_of_.data(),
                losses_.data(),
                state.rows,
                plan.coded,
                static_cast<int>(plan.mask.cols)};
  }

  double Run(int passes, ConstTensor residual) {
    if (passes == 0 || coded_ == 0) return 0;
    product_.Take(residual);
    Multiply(1.0f, 0, coded_, 0, state_.plan.blocks.size(), 0.0f);
    double total = 0, first = 0;
    std::vector<double> of_rows(state_.rows);
    for (int pass = 0; pass < passes; ++pass) {
      losses_.FillZero();
      again_ = pass > 0;
      // Exchanges need a descent behind them to pay in full, so the last pass makes none.
      exchange_ = state_.masked() && pass + 1 < passes;
      RefineBlocks(0, coded_);
      losses_.CopyTo(of_rows);
      double gained = 0;
      for (const double part : of_rows) gained += part;
      total += gained;
      if (pass == 0) first = gained;
      if (gained > kWorthwhile * first) break;  // both are negative
    }
    return total;
  }

 private:
  // gradient of blocks [first, last) = keep times itself + factor H times the rows of blocks [from, to).
  void Multiply(float factor, size_t first, size_t last, size_t from, size_t to, float keep) {
    const size_t begin = product_.start(first);
    product_.Multiply(factor, first, last, from, to, keep,
                      gradient_.Rows(begin, product_.start(last) - begin));
  }
  // The gradient of blocks [first, last) takes what blocks [from, to) have changed last.
  void Subtract(size_t first, size_t last, size_t from, size_t to) {
    if (from < to) Multiply(-1.0f, first, last, from, to, 1.0f);
  }

  // Blocks [first, last), whose gradient has all changes of the others: of those before them in this pass,
  // of those behind them in the one before.
  void RefineBlocks(size_t first, size_t last) {
    if (last - first <= kTogether) {
      for (size_t b = first; b < last; ++b) {
        Subtract(b, b + 1, first, again_ ? last : b);
        RefineBlock(b);
      }
      return;
    }
    const size_t middle = (first + last) / 2;
    if (again_) Subtract(first, middle, middle, last);
    RefineBlocks(first, middle);
    Subtract(middle, last, first, middle);
    RefineBlocks(middle, last);
  }

  void RefineBlock(size_t b) const {
    ThrowIfInterrupted();
    const ColumnBlock& block = state_.plan.blocks[b];
    const BlockOf of_block{block.start,
                           product_.of_block(b),
                           static_cast<int>(block.end - block.start),
                           static_cast<unsigned>(block.first_group),
                           static_cast<unsigned>(block.last_group),
                           block.whole_groups,
                           exchange_};
    Launch(device_, RefineRows, Blocks(state_.rows, kSweepRows), kSweepThreads, Shared::kBytes, problem_,
           of_block);
  }

  SolverState& state_;
  const Device device_;
  const Tensor gradient_;
  const size_t coded_;  // blocks
  const Values<ScaleGroup> groups_;
  const Values<uint32_t> group_of_;
  const Values<double> losses_;
  SplitProduct product_;  // of H with the changes
  Problem problem_;
  bool again_ = false, exchange_ = false;  // of the pass
};

}  // namespace

double RefineAll(SolverState& state, ConstTensor h, int passes, ConstTensor residual, Tensor gradient,
                 Tensor) {
  if (state.rows == 0 || state.plan.blocks.empty()) return 0;
  return Refinement(state, h, gradient).Run(passes, residual);
}

}  // namespace mica::cuda
