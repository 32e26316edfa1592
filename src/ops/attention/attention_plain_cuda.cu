// Attention and its gradient for any type and size, in FP32 without tensor cores: tiles of 64 queries and 64
// keys, 256 threads of 4 x 4 values each. Sums over keys and queries lie in the results themselves, where a
// value belongs to one thread; so the channels of a head may be any number.
#include "ops/attention/attention_cuda.h"
#include "ops/tile/dispatch.h"

namespace mica::cuda {
namespace {

constexpr int kSide = 64, kThreads = 256;
constexpr int kDepth = 32;  // of what is multiplied at a time

// Thread (y, x) of 16 x 16 has rows y + 16 i and columns x + 16 j of a tile.
using Square = float[4][4];
__device__ inline int TileRow(int i) { return static_cast<int>(threadIdx.x) / 16 + 16 * i; }
__device__ inline int TileColumn(int j) { return static_cast<int>(threadIdx.x) % 16 + 16 * j; }

struct Shared {
  float a[kSide][kDepth + 1], b[kSide][kDepth + 1];
  float tile[kSide][kSide];  // [query][key]
};

// Fills to[r][k] = value(r, k), 0 from `depth` on; neighbouring threads take neighbouring r or k, as they lie
// in memory.
template <bool kRowsNextToEachOther, typename Value>
__device__ inline void Fill(float (&to)[kSide][kDepth + 1], int first, int depth, const Value& value) {
  for (int i = static_cast<int>(threadIdx.x); i < kSide * kDepth; i += kThreads) {
    const int r = kRowsNextToEachOther ? i % kSide : i / kDepth,
              k = kRowsNextToEachOther ? i / kSide : i % kDepth;
    to[r][k] = first + k < depth ? value(r, first + k) : 0.0f;
  }
}

// c[r, s] = sum_k a(r, k) b(s, k) over k < depth. All threads call it; what they wrote to shared memory
// before may be read by a and b, and what a and b read may be overwritten after.
template <bool kRowsOfA, bool kRowsOfB, typename A, typename B>
__device__ __forceinline__ void Multiply(Shared& shared, int depth, const A& a, const B& b, Square& c) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) c[i][j] = 0.0f;
  }
  for (int first = 0; first < depth; first += kDepth) {
    __syncthreads();
    Fill<kRowsOfA>(shared.a, first, depth, a);
    Fill<kRowsOfB>(shared.b, first, depth, b);
    __syncthreads();
#pragma unroll 4
    for (int k = 0; k < kDepth; ++k) {
      float x[4], y[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) x[i] = shared.a[TileRow(i)][k];
#pragma unroll
      for (int j = 0; j < 4; ++j) y[j] = shared.b[TileColumn(j)][k];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) c[i][j] += x[i] * y[j];
      }
    }
  }
}

// Rows of one head in one window, zero where there is none.
template <typename T>
struct HeadRows {
  const T* data;
  int rows;
  size_t stride;
  __device__ float operator()(int row, int column) const {
    return row < rows ? ToFloat(data[static_cast<size_t>(row) * stride + column]) : 0.0f;
  }
};

// One head of one window.
struct Head {
  __device__ Head(const AttentionProblem& p, int head_, int window_index)
      : head(head_),
        kv_head(head_ / (p.heads / p.kv_heads)),
        window_start(static_cast<size_t>(window_index) * p.window),
        row(head_ * p.tokens + window_start),
        kv_row(kv_head * p.tokens + window_start) {}
  int head, kv_head;
  size_t window_start, row, kv_row;  // the first token and its rows
};

template <typename T>
__device__ inline HeadRows<T> RowsAt(const AttentionProblem& p, const T* data, size_t row) {
  return {data + row * p.head_dim, p.window, static_cast<size_t>(p.head_dim)};
}

__device__ inline float Score(const AttentionProblem& p, float product) {
  const float score = p.factor * product;
  return p.soft_cap > 0 ? p.soft_cap * tanhf(score / p.soft_cap) : score;
}

// A block of threads is a head of a window (x) and a block of queries (y). sums, like out: FP32, may be out.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    AttendPlain(AttentionProblem problem, const T* q_data, const T* k_data, const T* v_data, View<float> sums,
                View<T> out, float* log_sums) {
  __shared__ Shared shared;
  const Head at(problem, static_cast<int>(blockIdx.x) % problem.heads,
                static_cast<int>(blockIdx.x) / problem.heads);
  const int first_query = static_cast<int>(blockIdx.y) * kSide, head_dim = problem.head_dim;
  const auto q = RowsAt(problem, q_data, at.row), k = RowsAt(problem, k_data, at.kv_row),
             v = RowsAt(problem, v_data, at.kv_row);
  float largest[4], total[4];  // totals are of this thread's columns
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    largest[i] = -INFINITY;
    total[i] = 0.0f;
  }
  const int begin = problem.FirstKey(first_query) / kSide * kSide,
            end = min(problem.window, first_query + kSide);
  Square c;
  for (int first_key = begin; first_key < end; first_key += kSide) {
    Multiply<false, false>(
        shared, head_dim, [&](int r, int i) { return q(first_query + r, i); },
        [&](int s, int i) { return k(first_key + s, i); }, c);
    float rescale[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float most = largest[i];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        c[i][j] = problem.Sees(first_query + TileRow(i), first_key + TileColumn(j)) ? Score(problem, c[i][j])
                                                                                    : -INFINITY;
        most = fmaxf(most, c[i][j]);
      }
      for (int other = 8; other > 0; other /= 2) most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, other));
      const float shift = most == -INFINITY ? 0.0f : most;
      rescale[i] = expf(largest[i] - shift);
      largest[i] = most;
      total[i] *= rescale[i];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float p = expf(c[i][j] - shift);
        total[i] += p;
        shared.tile[TileRow(i)][TileColumn(j)] = ToFloat(FromFloat<T>(p));
      }
    }
    for (int first = 0; first < head_dim; first += kSide) {
      Multiply<false, true>(
          shared, kSide, [&](int r, int s) { return shared.tile[r][s]; },
          [&](int i, int s) { return first + i < head_dim ? v(first_key + s, first + i) : 0.0f; }, c);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int query = first_query + TileRow(i);
        if (query >= problem.window) continue;
        float* to = sums.row(at.window_start + query) + static_cast<size_t>(at.head) * head_dim + first;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int column = TileColumn(j);
          if (first + column >= head_dim) continue;
          to[column] = first_key == begin ? c[i][j] : to[column] * rescale[i] + c[i][j];
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float sum = total[i];
    for (int other = 8; other > 0; other /= 2) sum += __shfl_xor_sync(kAllLanes, sum, other);
    const int query = first_query + TileRow(i);
    if (query >= problem.window) continue;
    const size_t token = at.window_start + query;
    if (log_sums != nullptr && TileColumn(0) == 0)
      log_sums[at.head * problem.tokens + token] = largest[i] + logf(sum);
    // The columns that this thread has summed.
    const size_t column = static_cast<size_t>(at.head) * head_dim;
    for (int c = TileColumn(0); c < head_dim; c += 16)
      out.row(token)[column + c] = FromFloat<T>(sums.row(token)[column + c] / sum);
  }
}

// What the kernels of the gradient work on.
template <typename T>
struct GradientOperands {
  const T *q, *k, *v;
  const AttentionRow* rows;
  View<const float> grad_out;
};

// Probabilities p and gradients of scores (before they are rounded) of a tile of queries and keys.
template <typename T>
__device__ __forceinline__ void GradientOfScores(Shared& shared, const AttentionProblem& problem,
                                                 const GradientOperands<T>& in, const Head& at,
                                                 int first_query, int first_key, Square& p, Square& grad) {
  const auto q = RowsAt(problem, in.q, at.row), k = RowsAt(problem, in.k, at.kv_row),
             v = RowsAt(problem, in.v, at.kv_row);
  const HeadRows<float> felt = {
      in.grad_out.row(at.window_start) + static_cast<size_t>(at.head) * problem.head_dim, problem.window,
      in.grad_out.stride};
  Multiply<false, false>(
      shared, problem.head_dim, [&](int r, int i) { return q(first_query + r, i); },
      [&](int s, int i) { return k(first_key + s, i); }, p);
  Multiply<false, false>(
      shared, problem.head_dim, [&](int r, int i) { return ToFloat(FromFloat<T>(felt(first_query + r, i))); },
      [&](int s, int i) { return v(first_key + s, i); }, grad);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int query = first_query + TileRow(i);
    AttentionRow row = {};
    if (query < problem.window) row = in.rows[at.row + query];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (query >= problem.window || !problem.Sees(query, first_key + TileColumn(j))) {
        p[i][j] = grad[i][j] = 0.0f;
        continue;
      }
      const float score = Score(problem, p[i][j]);
      p[i][j] = exp2f(score * kLog2E - row.log2_sum);
      grad[i][j] = p[i][j] * (grad[i][j] - row.mean) * problem.factor;
      if (problem.soft_cap > 0) grad[i][j] *= 1.0f - score / problem.soft_cap * (score / problem.soft_cap);
    }
  }
}

// tile[query][key] = values, rounded.
template <typename T>
__device__ __forceinline__ void StoreTile(Shared& shared, const Square& values) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) shared.tile[TileRow(i)][TileColumn(j)] = ToFloat(FromFloat<T>(values[i][j]));
  }
}

// A tile of sums, columns `first` to first + 63 of rows `row` on, of which there are `rows`.
__device__ __forceinline__ void AddSquare(const Square& c, float* to, int rows, int first, int head_dim,
                                          bool begin) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (TileRow(i) >= rows) continue;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int column = first + TileColumn(j);
      if (column >= head_dim) continue;
      float& sum = to[static_cast<size_t>(TileRow(i)) * head_dim + column];
      sum = begin ? c[i][j] : sum + c[i][j];
    }
  }
}

// A block of threads is a key/value head of a window (x) and a block of keys (y).
template <typename T>
__global__ void __launch_bounds__(kThreads)
    KeyGradientsPlain(AttentionProblem problem, GradientOperands<T> in, float* grad_k, float* grad_v) {
  __shared__ Shared shared;
  const int kv_head = static_cast<int>(blockIdx.x) % problem.kv_heads,
            window_index = static_cast<int>(blockIdx.x) / problem.kv_heads;
  const int first_key = static_cast<int>(blockIdx.y) * kSide, head_dim = problem.head_dim,
            window = problem.window;
  const int group = problem.heads / problem.kv_heads;
  const int last_query = problem.LastQuery(min(window, first_key + kSide) - 1);
  bool begin = true;
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    const Head at(problem, head, window_index);
    const auto q = RowsAt(problem, in.q, at.row);
    const HeadRows<float> felt = {in.grad_out.row(at.window_start) + static_cast<size_t>(head) * head_dim,
                                  window, in.grad_out.stride};
    const size_t place = (at.kv_row + first_key) * head_dim;
    for (int first_query = first_key; first_query <= last_query; first_query += kSide) {
      Square p, grad, c;
      GradientOfScores(shared, problem, in, at, first_query, first_key, p, grad);
      StoreTile<T>(shared, p);
      for (int first = 0; first < head_dim; first += kSide) {
        Multiply<true, true>(
            shared, kSide, [&](int s, int r) { return shared.tile[r][s]; },
            [&](int i, int r) {
              return first + i < head_dim ? ToFloat(FromFloat<T>(felt(first_query + r, first + i))) : 0.0f;
            },
            c);
        AddSquare(c, grad_v + place, window - first_key, first, head_dim, begin);
      }
      StoreTile<T>(shared, grad);
      for (int first = 0; first < head_dim; first += kSide) {
        Multiply<true, true>(
            shared, kSide, [&](int s, int r) { return shared.tile[r][s]; },
            [&](int i, int r) { return first + i < head_dim ? q(first_query + r, first + i) : 0.0f; }, c);
        AddSquare(c, grad_k + place, window - first_key, first, head_dim, begin);
      }
      begin = false;
    }
  }
}

// A block of threads is a head of a window (x) and a block of queries (y).
template <typename T>
__global__ void __launch_bounds__(kThreads)
    QueryGradientsPlain(AttentionProblem problem, GradientOperands<T> in, float* grad_q) {
  __shared__ Shared shared;
  const Head at(problem, static_cast<int>(blockIdx.x) % problem.heads,
                static_cast<int>(blockIdx.x) / problem.heads);
  const int first_query = static_cast<int>(blockIdx.y) * kSide, head_dim = problem.head_dim;
  const auto k = RowsAt(problem, in.k, at.kv_row);
  const int begin = problem.FirstKey(first_query) / kSide * kSide,
            end = min(problem.window, first_query + kSide);
  for (int first_key = begin; first_key < end; first_key += kSide) {
    Square p, grad, c;
    GradientOfScores(shared, problem, in, at, first_query, first_key, p, grad);
    StoreTile<T>(shared, grad);
    for (int first = 0; first < head_dim; first += kSide) {
      Multiply<false, true>(
          shared, kSide, [&](int r, int s) { return shared.tile[r][s]; },
          [&](int i, int s) { return first + i < head_dim ? k(first_key + s, first + i) : 0.0f; }, c);
      AddSquare(c, grad_q + (at.row + first_query) * head_dim, problem.window - first_query, first, head_dim,
                first_key == begin);
    }
  }
}

dim3 PlainBlocks(const AttentionShape& shape, size_t heads) {
  return dim3(static_cast<unsigned>(heads * (shape.tokens / shape.window)), Blocks(shape.window, kSide));
}

}  // namespace

void PlainAttention(const AttentionShape& shape, const AttentionInputs& in, Tensor out, Tensor log_sums) {
  DispatchOperand(in.q.dtype, [&](auto type) {
    using T = decltype(type);
    Array wide;
    Tensor sums = out;
    if (out.dtype != DType::kF32) {
      wide.Resize(out.rows, out.cols, DType::kF32, out.device);
      sums = wide.view();
    }
    Launch(in.q.device, AttendPlain<OnDevice<T>>, PlainBlocks(shape, shape.heads), kThreads, 0,
           AttentionProblem(shape, in), In<T>(in.q).data, In<T>(in.k).data, In<T>(in.v).data,
           Out<float>(sums), Out<T>(out), log_sums.empty() ? nullptr : Out<float>(log_sums).data);
  });
}

void PlainAttentionGradient(const AttentionShape& shape, const AttentionInputs& in, const AttentionRow* rows,
                            ConstTensor grad_out, const AttentionGradients& out) {
  DispatchOperand(in.q.dtype, [&](auto type) {
    using T = decltype(type);
    const AttentionProblem problem(shape, in);
    const GradientOperands<OnDevice<T>> operands = {In<T>(in.q).data, In<T>(in.k).data, In<T>(in.v).data,
                                                    rows, In<float>(grad_out)};
    Launch(in.q.device, KeyGradientsPlain<OnDevice<T>>, PlainBlocks(shape, shape.kv_heads), kThreads, 0,
           problem, operands, Out<float>(out.k).data, Out<float>(out.v).data);
    Launch(in.q.device, QueryGradientsPlain<OnDevice<T>>, PlainBlocks(shape, shape.heads), kThreads, 0,
           problem, operands, Out<float>(out.q).data);
  });
}

}  // namespace mica::cuda
