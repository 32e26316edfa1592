// Attention as products of whole windows: the scores of some heads of one window at a time.
#include <algorithm>

#include "device/cuda_kernel.h"
#include "ops/cuda_ops.h"
#include "ops/linalg/cuda_handles.h"
#include "ops/tile/dispatch.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;
constexpr size_t kScoreBytes = size_t{1} << 30;  // of the scores that are held at a time

// A stack of matrices, rows x cols each: `stride` values from row to row, `step` from one matrix to the next.
struct Stack {
  const void* data;
  cudaDataType_t type;
  size_t stride, step;
};

// c[b] = beta c[b] + alpha op(a[b]) op(b[b]) row-major, [m, n].
void Batched(Device device, size_t batch, bool ta, bool tb, size_t m, size_t n, size_t k, float alpha, Stack a,
             Stack b, float beta, Stack c) {
  const auto size = [](size_t x) { return static_cast<int64_t>(x); };
  CheckCublas(cublasGemmStridedBatchedEx_64(
                  Cublas(device), tb ? CUBLAS_OP_T : CUBLAS_OP_N, ta ? CUBLAS_OP_T : CUBLAS_OP_N, size(n), size(m),
                  size(k), &alpha, b.data, b.type, size(b.stride), size(b.step), a.data, a.type, size(a.stride),
                  size(a.step), &beta, const_cast<void*>(c.data), c.type, size(c.stride), size(c.step), size(batch),
                  CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
              "a product of attention");
}

// scores [heads, window, window] (before the factor) -> probabilities of the same shape; zero behind the diagonal.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    SoftmaxRows(const float* scores, size_t window, float factor, T* out, float* log_sums, size_t log_step) {
  const size_t t = blockIdx.x, head = blockIdx.y, row = (head * window + t) * window;
  float largest = -INFINITY;
  for (size_t s = threadIdx.x; s <= t; s += kThreads) largest = fmaxf(largest, factor * scores[row + s]);
  largest = BlockMax<kThreads>(largest);
  float sum = 0;
  for (size_t s = threadIdx.x; s <= t; s += kThreads) sum += expf(factor * scores[row + s] - largest);
  sum = BlockSum<kThreads>(sum);
  const float inverse = 1.0f / sum;
  for (size_t s = threadIdx.x; s < window; s += kThreads)
    out[row + s] = FromFloat<T>(s <= t ? expf(factor * scores[row + s] - largest) * inverse : 0.0f);
  if (log_sums != nullptr && threadIdx.x == 0) log_sums[head * log_step + t] = largest + logf(sum);
}

// Probabilities again, and the gradients of the scores from those of the probabilities.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    GradientRows(const float* scores, const float* grad_p, size_t window, float factor, const float* log_sums,
                 const float* deltas, size_t step, T* p_out, T* grad_out) {
  const size_t t = blockIdx.x, head = blockIdx.y, row = (head * window + t) * window;
  const float log_sum = log_sums[head * step + t], delta = deltas[head * step + t];
  for (size_t s = threadIdx.x; s < window; s += kThreads) {
    const float p = s <= t ? expf(factor * scores[row + s] - log_sum) : 0.0f;
    p_out[row + s] = FromFloat<T>(p);
    grad_out[row + s] = FromFloat<T>(s <= t ? p * (grad_p[row + s] - delta) * factor : 0.0f);
  }
}

// deltas[h, t] = sum_i grad_out out over the channels of head h.
template <typename T>
__global__ void __launch_bounds__(kWarp)
    DeltaRows(View<const T> out, View<const float> felt, size_t head_dim, float* deltas) {
  const size_t t = blockIdx.x, h = blockIdx.y;
  float sum = 0;
  for (size_t i = threadIdx.x; i < head_dim; i += kWarp)
    sum += ToFloat(out.row(t)[h * head_dim + i]) * felt.row(t)[h * head_dim + i];
  sum = WarpSum(sum);
  if (threadIdx.x == 0) deltas[h * out.rows + t] = sum;
}

// Calls use(first token, first query head, key/value head, query heads): heads that are computed together have
// their own keys, or share one key/value head.
template <typename Use>
void ForHeads(const AttentionShape& shape, const Use& use) {
  const size_t group = shape.heads / shape.kv_heads;
  const size_t most = std::max<size_t>(1, kScoreBytes / (shape.window * shape.window * sizeof(float)));
  for (size_t first = 0; first < shape.tokens; first += shape.window) {
    if (group == 1) {
      for (size_t h = 0; h < shape.heads; h += most) use(first, h, h, std::min(most, shape.heads - h));
    } else {
      for (size_t kv = 0; kv < shape.kv_heads; ++kv)
        for (size_t h = 0; h < group; h += most) use(first, kv * group + h, kv, std::min(most, group - h));
    }
  }
}

template <typename T>
struct Operands {
  static constexpr cudaDataType_t kType = std::is_same_v<T, float> ? CUDA_R_32F : CUDA_R_16BF;
  const AttentionShape& shape;
  // Rows of window `first` of a head and the heads that follow.
  Stack Of(const ConstTensor& x, size_t head, size_t first, bool shared) const {
    const size_t dim = shape.head_dim;
    return {reinterpret_cast<const OnDevice<T>*>(x.data) + (head * shape.tokens + first) * dim, kType, dim,
            shared ? 0 : shape.tokens * dim};
  }
};

template <typename T>
void Forward(const AttentionShape& shape, const AttentionInputs& in, Tensor out, Tensor log_sums) {
  using D = OnDevice<T>;
  const Device device = in.q.device;
  const Operands<T> operands{shape};
  const size_t window = shape.window, dim = shape.head_dim, square = window * window;
  const bool shared = shape.heads != shape.kv_heads;
  const size_t most = std::min(shape.heads, std::max<size_t>(1, kScoreBytes / (square * sizeof(float))));
  Array scores(most * window, window, DType::kF32, device), p(most * window, window, in.q.dtype, device);
  ForHeads(shape, [&](size_t first, size_t head, size_t kv, size_t count) {
    const Stack s{scores.view().data, CUDA_R_32F, window, square}, of_p{p.view().data, operands.kType, window, square};
    Batched(device, count, false, true, window, window, dim, 1, operands.Of(in.q, head, first, false),
            operands.Of(in.k, kv, first, shared), 0, s);
    float* logs = log_sums.empty() ? nullptr : Out<float>(log_sums).data + head * shape.tokens + first;
    Launch(device, SoftmaxRows<D>, dim3(static_cast<unsigned>(window), static_cast<unsigned>(count)), kThreads, 0,
           Out<float>(scores.view()).data, window, in.factor, Out<T>(p.view()).data, logs, shape.tokens);
    const Stack to{Out<T>(out).row_of(first) + head * dim, operands.kType, out.stride, dim};
    Batched(device, count, false, false, window, dim, window, 1, of_p, operands.Of(in.v, kv, first, shared), 0, to);
  });
}

template <typename T>
void Backward(const AttentionShape& shape, const AttentionInputs& in, const AttentionFeedback& feedback,
              const AttentionGradients& out) {
  using D = OnDevice<T>;
  const Device device = in.q.device;
  const Operands<T> operands{shape};
  const size_t window = shape.window, dim = shape.head_dim, square = window * window, group = shape.heads / shape.kv_heads;
  const bool shared = group > 1;
  const size_t most = std::min(shape.heads, std::max<size_t>(1, kScoreBytes / (square * sizeof(float))));
  Array scores(most * window, window, DType::kF32, device), grad_p(most * window, window, DType::kF32, device),
      p(most * window, window, in.q.dtype, device), grad_s(most * window, window, in.q.dtype, device),
      deltas(shape.heads, shape.tokens, DType::kF32, device),
      felt(shape.tokens, shape.heads * dim, in.q.dtype, device);
  mica::Convert(feedback.grad_out, felt.view());
  Launch(device, DeltaRows<D>, dim3(static_cast<unsigned>(shape.tokens), static_cast<unsigned>(shape.heads)), kWarp, 0,
         In<T>(feedback.out), In<float>(feedback.grad_out), dim, Out<float>(deltas.view()).data);
  const auto of_gradient = [&](const Tensor& x, size_t head, size_t first) {
    return Stack{Out<float>(x).data + (head * shape.tokens + first) * dim, CUDA_R_32F, dim, shape.tokens * dim};
  };
  ForHeads(shape, [&](size_t first, size_t head, size_t kv, size_t count) {
    const Stack s{scores.view().data, CUDA_R_32F, window, square}, gp{grad_p.view().data, CUDA_R_32F, window, square},
        of_p{p.view().data, operands.kType, window, square}, gs{grad_s.view().data, operands.kType, window, square};
    const Stack of_felt{Out<T>(felt.view()).row_of(first) + head * dim, operands.kType, felt.cols(), dim};
    const Stack q = operands.Of(in.q, head, first, false), k = operands.Of(in.k, kv, first, shared),
                v = operands.Of(in.v, kv, first, shared);
    Batched(device, count, false, true, window, window, dim, 1, q, k, 0, s);
    Batched(device, count, false, true, window, window, dim, 1, of_felt, v, 0, gp);
    const size_t place = head * shape.tokens + first;
    Launch(device, GradientRows<D>, dim3(static_cast<unsigned>(window), static_cast<unsigned>(count)), kThreads, 0,
           Out<float>(scores.view()).data, Out<float>(grad_p.view()).data, window, in.factor,
           In<float>(feedback.log_sums).data + place, Out<float>(deltas.view()).data + place, shape.tokens,
           Out<T>(p.view()).data, Out<T>(grad_s.view()).data);
    Batched(device, count, false, false, window, dim, window, 1, gs, k, 0, of_gradient(out.q, head, first));
    if (!shared) {
      Batched(device, count, true, false, window, dim, window, 1, gs, q, 0, of_gradient(out.k, kv, first));
      Batched(device, count, true, false, window, dim, window, 1, of_p, of_felt, 0, of_gradient(out.v, kv, first));
      return;
    }
    for (size_t i = 0; i < count; ++i) {  // heads that share keys add up in their order
      const float beta = head + i == kv * group ? 0.0f : 1.0f;
      const auto at = [&](Stack x) {
        x.data = static_cast<const char*>(x.data) + i * x.step * (x.type == CUDA_R_32F ? 4 : 2);
        return x;
      };
      Batched(device, 1, true, false, window, dim, window, 1, at(gs), at(q), beta, of_gradient(out.k, kv, first));
      Batched(device, 1, true, false, window, dim, window, 1, at(of_p), at(of_felt), beta, of_gradient(out.v, kv, first));
    }
  });
}

}  // namespace

void Attention(const AttentionShape& shape, const AttentionInputs& in, Tensor out, Tensor log_sums) {
  DispatchOperand(in.q.dtype, [&](auto type) { Forward<decltype(type)>(shape, in, out, log_sums); });
}

void AttentionGradient(const AttentionShape& shape, const AttentionInputs& in, const AttentionFeedback& feedback,
                       const AttentionGradients& out) {
  DispatchOperand(in.q.dtype, [&](auto type) { Backward<decltype(type)>(shape, in, feedback, out); });
}

}  // namespace mica::cuda
