// Refinement on a CUDA device: refine.cc, with what a row does in a block of columns done by eight lanes
// (ops/feedback/sweep_cuda.h), and what each block changes applied to the gradient by one product.
#include <limits>
#include <vector>

#include "base/system.h"
#include "ops/cuda_ops.h"
#include "ops/feedback/sweep_cuda.h"

namespace mica::cuda {
namespace {

// As on the processor (refine.cc).
constexpr int kExchanges = 2;
constexpr int kCandidates = 4;
constexpr double kWorthwhile = 0.02;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kEach = kCols / kLanes;  // columns of a row that belong to a lane

// What does not change from block to block. Matrices of a column per row of memory: [cols, rows].
struct Problem {
  View<const float> h;
  View<float> gradient, steps;  // dense
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
  int cols;
  unsigned first_group, last_group;
  bool whole_groups, exchange;
};

// Shared memory of a block of threads; [kSweepRows, kRowValues] each but for the first two.
struct Shared {
  static constexpr int kOfRows = kSweepRows * kRowValues;
  static constexpr size_t kBytes = (Triangle::kValues + kCols + 4 * kOfRows) * sizeof(float) +
                                   kOfRows * (sizeof(uint16_t) + sizeof(uint8_t));

  Triangle h;
  float* reciprocal;  // [kCols] 1 / H_jj
  float* g;           // H (W - Q), as far as the block's columns have been changed
  float *q, *before;  // values now and at the start of the pass
  float* scratch;     // code - zero of kept weights; keys of the search for exchanges
  uint16_t* codes;
  uint8_t* keep;

  __device__ explicit Shared(float4* memory) {
    h.data = reinterpret_cast<float*>(memory);
    g = h.data + Triangle::kValues;
    q = g + kOfRows;
    before = q + kOfRows;
    scratch = before + kOfRows;
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
    before_ = shared.before + at;
    scratch_ = shared.scratch + at;
    codes_ = shared.codes + at;
    keep_ = shared.keep + at;
  }

  __device__ void Refine() {
    for (unsigned g = block_.first_group; g < block_.last_group; ++g) Decode(g, GridOf(g));
    for (int j = lane_; j < block_.cols; j += kLanes) before_[j] = q_[j];
    __syncwarp();
    if (block_.whole_groups) {
      for (unsigned g = block_.first_group; g < block_.last_group; ++g) {
        if (problem_.groups[g].scale_row >= 0) RefitScale(g);
      }
    }
    if (block_.exchange) MakeExchanges();
    for (unsigned g = block_.first_group; g < block_.last_group; ++g) Descend(g);
    for (int j = lane_; j < block_.cols; j += kLanes) before_[j] = __fsub_rn(q_[j], before_[j]);
    if (lane_ == 0 && exists()) problem_.losses[row_] += loss_;
  }

 private:
  __device__ bool exists() const { return row_ < problem_.rows; }
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
  // as stored scales allow.
  __device__ void RefitScale(unsigned g) {
    const ScaleGroup group = problem_.groups[g];
    const int from = From(group), to = To(group);
    RowGrid grid = GridOf(g);
    for (int j = from + lane_; j < to; j += kLanes)
      scratch_[j] = keep_[j] != 0 ? static_cast<float>(static_cast<int>(codes_[j]) - grid.zero) : 0.0f;
    __syncwarp();
    float product[kEach];  // of H n, in columns lane, lane + kLanes, ...
#pragma unroll
    for (int i = 0; i < kEach; ++i) product[i] = 0;
    for (int k = from; k < to; ++k) {
      const float n = scratch_[k];
      const float* h = problem_.h.row(block_.start + k) + block_.start;  // H is symmetric
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const int j = i * kLanes + lane_;
        if (j < block_.cols) product[i] = __fmaf_rn(h[j], n, product[i]);
      }
    }
    float along = 0, curvature = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int j = i * kLanes + lane_;
      if (j < from || j >= to) continue;
      along = __fmaf_rn(scratch_[j], g_[j], along);
      curvature = __fmaf_rn(scratch_[j], product[i], curvature);
    }
    along = RowSum(along);
    curvature = RowSum(curvature);
    if (curvature > 0) {
      const float old = ScaleOf(grid.scale);
      const int refitted = ScaleCodeOf(__fadd_rn(old, __fdiv_rn(along, curvature)));
      const float change = __fsub_rn(ScaleOf(refitted), old);
      const float gain = __fmul_rn(change, __fsub_rn(__fmul_rn(change, curvature), 2 * along));
      if (gain < 0) {
        loss_ += gain;
        grid.scale = refitted;
        if (lane_ == 0 && exists())
          problem_.scales[static_cast<size_t>(group.scale_row) * problem_.rows + row_] =
              static_cast<uint8_t>(refitted);
#pragma unroll
        for (int i = 0; i < kEach; ++i) {
          const int j = i * kLanes + lane_;
          if (j < block_.cols) g_[j] = __fsub_rn(g_[j], __fmul_rn(change, product[i]));
        }
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

  // The columns of [from, to) that are kept, or those that are not, with the least keys (in scratch); -1
  // where there are no more.
  __device__ void Least(int from, int to, bool kept, int (&columns)[kCandidates]) const {
    Ranked last{-kInfinity, -1};
#pragma unroll
    for (int c = 0; c < kCandidates; ++c) {
      Ranked best{kInfinity, kCols};
      for (int j = from + lane_; j < to; j += kLanes) {
        const Ranked here{scratch_[j], j};
        if ((keep_[j] != 0) == kept && last.Before(here) && here.Before(best)) best = here;
      }
      last = RowFirst(best);
      columns[c] = last.index < kCols ? last.index : -1;
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
  float *g_, *q_, *before_, *scratch_;
  uint16_t* codes_;
  uint8_t* keep_;
  float loss_ = 0;
};

__global__ void __launch_bounds__(kSweepThreads, 2) RefineRows(const Problem problem, const BlockOf block) {
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
  StoreColumns(shared.before, problem.rows, block.start, block.cols, problem.steps.data);
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

}  // namespace

double RefineAll(SolverState& state, ConstTensor h, int passes, ConstTensor residual, Tensor gradient,
                 Tensor steps) {
  const ColumnPlan& plan = state.plan;
  const Device device = state.device();
  MICA_CHECK(gradient.stride == state.rows);
  MICA_CHECK(steps.stride == state.rows);
  MICA_CHECK(plan.mask.cols <= static_cast<size_t>(kLanes));
  if (state.rows == 0 || plan.blocks.empty()) return 0;
  const Values<ScaleGroup> groups(device, plan.groups);
  const Values<uint32_t> group_of(device, GroupOf(plan, state.cols));
  std::vector<double> of_rows(state.rows);
  Array losses(1, state.rows, DType::kF64, device);
  const Tensor of_rows_there = losses.view();
  const Tensor of_rows_here(reinterpret_cast<std::byte*>(of_rows.data()), 1, state.rows, state.rows,
                            DType::kF64, Device::Cpu());
  const Problem problem{In<float>(h),
                        Out<float>(gradient),
                        Out<float>(steps),
                        reinterpret_cast<uint16_t*>(state.codes.view().data),
                        state.masked() ? reinterpret_cast<uint8_t*>(state.keep.view().data) : nullptr,
                        reinterpret_cast<uint8_t*>(state.scales.view().data),
                        reinterpret_cast<uint8_t*>(state.zeros.view().data),
                        groups.data(),
                        group_of.data(),
                        reinterpret_cast<double*>(of_rows_there.data),
                        state.rows,
                        plan.coded,
                        static_cast<int>(plan.mask.cols)};
  cuda::Gemm(false, false, 1.0f, h, residual, 0.0f, gradient);
  double total = 0, first = 0;
  for (int pass = 0; pass < passes; ++pass) {
    FillZero(of_rows_there);
    for (const ColumnBlock& block : plan.blocks) {
      ThrowIfInterrupted();
      if (plan.groups[block.first_group].bits == 0) continue;
      const size_t cols = block.end - block.start;
      // Exchanges need a descent behind them to pay in full, so the last pass makes none.
      const BlockOf of_block{block.start,
                             static_cast<int>(cols),
                             static_cast<unsigned>(block.first_group),
                             static_cast<unsigned>(block.last_group),
                             block.whole_groups,
                             state.masked() && pass + 1 < passes};
      Launch(device, RefineRows, Blocks(state.rows, kSweepRows), kSweepThreads, Shared::kBytes, problem,
             of_block);
      cuda::Gemm(false, false, -1.0f, h.Cols(block.start, cols), steps.Rows(block.start, cols), 1.0f,
                 gradient);
    }
    Copy(of_rows_there, of_rows_here);
    double gained = 0;
    for (const double part : of_rows) gained += part;
    total += gained;
    if (pass == 0) first = gained;
    if (gained > kWorthwhile * first) break;  // both are negative
  }
  return total;
}

}  // namespace mica::cuda
