// Logits of some tokens and one slice of the vocabulary at a time; a block of threads goes through those of a
// token.
#include <algorithm>
#include <cfloat>

#include "device/cuda_kernel.h"
#include "ops/cuda_ops.h"
#include "ops/norm/norm.h"
#include "ops/product/product_cuda.h"
#include "ops/tile/dispatch.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;
// Tokens whose logits of a slice are held at a time: 67 MB at 8192 ids.
constexpr size_t kChunkTokens = 2048;

__global__ void __launch_bounds__(kThreads) CapRows(float cap, View<float> logits) {
  float* row = logits.row(blockIdx.x);
  for (size_t i = threadIdx.x; i < logits.cols; i += kThreads) row[i] = cap * tanhf(row[i] / cap);
}

// Calls use(first token, logits [tokens, ids] FP32) chunk by chunk.
template <typename Use>
void ForLogits(const HeadInputs& in, const HeadSlice& slice, const Use& use) {
  const size_t most = std::min(kChunkTokens, in.x.rows);
  Array normed(most, in.x.cols, slice.rows.operands(), in.x.device);
  Array logits(most, slice.rows.outputs(), DType::kF32, in.x.device);
  for (size_t first = 0; first < in.x.rows; first += kChunkTokens) {
    const size_t tokens = std::min(kChunkTokens, in.x.rows - first);
    mica::RmsNorm(in.x.Rows(first, tokens), in.norm, in.epsilon, normed.view().Rows(0, tokens));
    const Tensor of_tokens = logits.view().Rows(0, tokens);
    Product(normed.view().Rows(0, tokens), slice.rows.dense(), 0, of_tokens);
    if (in.cap > 0) mica::CapLogits(in.cap, of_tokens);
    use(first, of_tokens);
  }
}

__global__ void __launch_bounds__(kThreads)
    ScoreRows(View<const float> logits, size_t first_id, const int32_t* targets, RunningSum* sums,
              float* target_logits) {
  const size_t t = blockIdx.x;
  if (targets[t] < 0) return;
  const float* row = logits.row(t);
  float largest = -FLT_MAX;
  for (size_t i = threadIdx.x; i < logits.cols; i += kThreads) largest = fmaxf(largest, row[i]);
  const RunningSum before = sums[t];
  const float max = fmaxf(before.max, BlockMax<kThreads>(largest));
  float sum = 0;
  for (size_t i = threadIdx.x; i < logits.cols; i += kThreads) sum += expf(row[i] - max);
  sum = BlockSum<kThreads>(sum);
  if (threadIdx.x != 0) return;
  sums[t].max = max;
  sums[t].sum = before.sum * expf(before.max - max) + sum;
  const size_t target = static_cast<size_t>(targets[t]);
  if (target >= first_id && target < first_id + logits.cols) target_logits[t] = row[target - first_id];
}

// Where the cumulative distribution passes the uniform number of a token.
struct Draw {
  const double* uniforms = nullptr;  // null: labels are the targets
  double* cumulative = nullptr;
  uint8_t* drawn = nullptr;
};

// The sum of the values of the threads before this one, and of all threads in `total`.
__device__ double SumBefore(double value, double& total) {
  __shared__ double of_thread[kThreads];
  __syncthreads();
  of_thread[threadIdx.x] = value;
  __syncthreads();
  double before = 0;
  total = 0;
  for (int i = 0; i < kThreads; ++i) {
    if (i == static_cast<int>(threadIdx.x)) before = total;
    total += of_thread[i];
  }
  return before;
}

// errors = (softmax - label), times what capped logits keep of the slope, 1 - (capped / cap)^2.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    ErrorRows(View<float> logits, size_t first_id, bool last, float cap, const int32_t* targets,
              const float* log_sums, Draw draw, View<T> errors) {
  const size_t t = blockIdx.x, ids = logits.cols;
  float* row = logits.row(t);
  T* out = errors.row(t);
  if (targets[t] < 0) {
    for (size_t i = threadIdx.x; i < ids; i += kThreads) out[i] = FromFloat<T>(0.0f);
    return;
  }
  for (size_t i = threadIdx.x; i < ids; i += kThreads) row[i] = expf(row[i] - log_sums[t]);
  __shared__ size_t label;
  if (threadIdx.x == 0) label = SIZE_MAX;
  __syncthreads();
  if (draw.uniforms == nullptr) {
    const size_t target = static_cast<size_t>(targets[t]);
    if (threadIdx.x == 0 && target >= first_id && target < first_id + ids) label = target - first_id;
  } else if (draw.drawn[t] == 0) {
    // Each thread has a run of ids; sums in double are exact enough to be taken in any order.
    const size_t each = (ids + kThreads - 1) / kThreads;
    const size_t begin = min(ids, threadIdx.x * each), end = min(ids, begin + each);
    double own = 0, total = 0;
    for (size_t i = begin; i < end; ++i) own += row[i];
    double sum = draw.cumulative[t] + SumBefore(own, total);
    const double uniform = draw.uniforms[t], at_end = draw.cumulative[t] + total;
    if (sum <= uniform) {
      for (size_t i = begin; i < end; ++i) {
        sum += row[i];
        if (sum > uniform) {
          atomicMin(reinterpret_cast<unsigned long long*>(&label), static_cast<unsigned long long>(i));
          break;
        }
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      if (label == SIZE_MAX && last) label = ids - 1;  // the probabilities sum to a little less than 1
      draw.cumulative[t] = at_end;
      draw.drawn[t] = label != SIZE_MAX;
    }
  }
  __syncthreads();
  for (size_t i = threadIdx.x; i < ids; i += kThreads) {
    float error = i == label ? row[i] - 1.0f : row[i];
    if (cap > 0) {  // the capped logit, from its probability, in units of the cap
      const float capped = (__logf(row[i]) + log_sums[t]) / cap;
      error *= row[i] > 0 ? 1.0f - capped * capped : 0.0f;
    }
    out[i] = FromFloat<T>(error);
  }
}

// The first of the largest values: the value above, the place below, so that the smaller place wins.
__device__ unsigned long long BlockFirstLargest(const float* row, size_t count) {
  unsigned long long best = 0;
  for (size_t i = threadIdx.x; i < count; i += kThreads) {
    const unsigned bits = __float_as_uint(row[i]);
    const unsigned order = bits & 0x80000000u ? ~bits : bits | 0x80000000u;  // rises with the value
    const unsigned long long key =
        (static_cast<unsigned long long>(order) << 32) | (0xFFFFFFFFu - static_cast<unsigned>(i));
    best = key > best ? key : best;
  }
  __shared__ unsigned long long of_thread[kThreads];
  __syncthreads();
  of_thread[threadIdx.x] = best;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half && of_thread[threadIdx.x + half] > of_thread[threadIdx.x])
      of_thread[threadIdx.x] = of_thread[threadIdx.x + half];
    __syncthreads();
  }
  return of_thread[0];
}

__device__ float KeyValue(unsigned long long key) {
  const unsigned order = static_cast<unsigned>(key >> 32);
  return __uint_as_float(order & 0x80000000u ? order & 0x7FFFFFFFu : ~order);
}

__device__ float LogSum(const float* row, size_t count, float max) {
  float sum = 0;
  for (size_t i = threadIdx.x; i < count; i += kThreads) sum += expf(row[i] - max);
  return max + logf(BlockSum<kThreads>(sum));
}

__global__ void __launch_bounds__(kThreads)
    DivergenceRows(View<const float> p, View<const float> q, float* kl, uint8_t* same_top) {
  const size_t t = blockIdx.x, n = p.cols;
  const float *of_p = p.row(t), *of_q = q.row(t);
  const unsigned long long top_p = BlockFirstLargest(of_p, n), top_q = BlockFirstLargest(of_q, n);
  const float p_sum = LogSum(of_p, n, KeyValue(top_p)), q_sum = LogSum(of_q, n, KeyValue(top_q));
  // sum_v p_v ((logit_p - logit_q) - (p_sum - q_sum)): the differences are small, so little cancels.
  float sum = 0;
  for (size_t i = threadIdx.x; i < n; i += kThreads) sum += expf(of_p[i] - p_sum) * (of_p[i] - of_q[i]);
  const float nats = BlockSum<kThreads>(sum) - (p_sum - q_sum);
  if (threadIdx.x != 0) return;
  kl[t] = nats < 0 ? 0 : nats;
  same_top[t] = static_cast<unsigned>(top_p) == static_cast<unsigned>(top_q) ? 1 : 0;
}

}  // namespace

void AddScores(const HeadInputs& in, const HeadSlice& slice, std::span<const int32_t> targets,
               HeadScores& scores) {
  const Device device = in.x.device;
  const Values<int32_t> wanted(device, targets);
  const Values<RunningSum> sums(device, std::span<const RunningSum>(scores.sums));
  const Values<float> target_logits(device, std::span<const float>(scores.target_logits));
  ForLogits(in, slice, [&](size_t first, Tensor logits) {
    Launch(device, ScoreRows, logits.rows, kThreads, 0, In<float>(logits), slice.first_id,
           wanted.data() + first, sums.data() + first, target_logits.data() + first);
  });
  sums.CopyTo(scores.sums);
  target_logits.CopyTo(scores.target_logits);
}

void AddHeadGradient(const HeadInputs& in, const HeadSlice& slice, const PreparedWeights& transposed,
                     bool last, const HeadScores& scores, HeadLabels& labels, Tensor gradient) {
  const Device device = in.x.device;
  const size_t tokens = in.x.rows, ids = slice.rows.outputs();
  std::vector<float> of_tokens(tokens);
  for (size_t t = 0; t < tokens; ++t) of_tokens[t] = scores.LogSum(t);
  const Values<int32_t> wanted(device, labels.targets);
  const Values<float> log_sums(device, std::span<const float>(of_tokens));
  const Values<double> uniforms(device, labels.uniforms.first(labels.sample ? tokens : 0));
  const Values<double> cumulative(device, std::span<const double>(labels.cumulative));
  const Values<uint8_t> drawn(device, std::span<const uint8_t>(labels.drawn));
  Array errors(std::min(kChunkTokens, tokens), ids, slice.rows.operands(), device);
  ForLogits(in, slice, [&](size_t first, Tensor logits) {
    const Tensor of_logits = errors.view().Rows(0, logits.rows);
    Draw draw;
    if (labels.sample) draw = {uniforms.data() + first, cumulative.data() + first, drawn.data() + first};
    DispatchOperand(slice.rows.operands(), [&](auto type) {
      using T = decltype(type);
      Launch(device, ErrorRows<OnDevice<T>>, logits.rows, kThreads, 0, Out<float>(logits), slice.first_id,
             last, in.cap, wanted.data() + first, log_sums.data() + first, draw, Out<T>(of_logits));
    });
    Product(of_logits, transposed.dense(), 1, gradient.Rows(first, logits.rows));
  });
  cumulative.CopyTo(labels.cumulative);
  drawn.CopyTo(labels.drawn);
}

void CapLogits(float cap, Tensor logits) {
  Launch(logits.device, CapRows, logits.rows, kThreads, 0, cap, Out<float>(logits));
}

void Divergence(ConstTensor p, Tensor q, std::span<float> kl, std::span<uint8_t> same_top) {
  const Values<float> nats(p.device, kl.size());
  const Values<uint8_t> same(p.device, same_top.size());
  Launch(p.device, DivergenceRows, p.rows, kThreads, 0, In<float>(p), In<float>(q), nats.data(), same.data());
  nats.CopyTo(kl);
  same.CopyTo(same_top);
}

}  // namespace mica::cuda
