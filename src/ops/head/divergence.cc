#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/threads.h"
#include "device/scratch.h"
#include "ops/cuda_ops.h"
#include "ops/head/head.h"
#include "ops/tile/kernels.h"

namespace mica {
namespace {

// Logits of one token, their largest and the log of the sum of their exponentials.
struct Row {
  Row(const float* values, size_t count) : logits(values), n(count) {
    RunningSum sum;
    Kernels(Backend::kCpu).log_sum_step(logits, n, &sum);
    max = sum.max;
    log_sum = sum.max + std::log(sum.sum);
  }
  // Where the first of the largest is; n where one is not a number.
  size_t Top() const { return static_cast<size_t>(std::find(logits, logits + n, max) - logits); }

  const float* logits;
  size_t n;
  float max, log_sum;
};

// q: the logits of of_q, overwritten.
float RowDivergence(const Row& of_p, const Row& of_q, float* q) {
  const KernelTable& kernels = Kernels(Backend::kCpu);
  const float* p = of_p.logits;
  const float p_sum = of_p.log_sum, q_sum = of_q.log_sum;
  const size_t n = of_p.n;
  float* probabilities = Scratch<float, 32>(n);
  kernels.exp(p, n, 1.0f, p_sum, probabilities);
  // sum_v p_v ((logit_p - logit_q) - (p_sum - q_sum)): the differences are small, so little cancels.
  kernels.scale(-1.0f, n, q);
  kernels.add(p, n, q);
  return std::max(0.0f, kernels.dot(probabilities, q, n) - (p_sum - q_sum));
}

}  // namespace

void Divergence(ConstTensor p, Tensor q, std::span<float> kl, std::span<uint8_t> same_top) {
  MICA_CHECK(p.rows == q.rows);
  MICA_CHECK(p.cols == q.cols);
  MICA_CHECK(kl.size() == p.rows);
  MICA_CHECK(same_top.size() == p.rows);
  if (p.device.is_cuda()) return Cuda().Divergence(p, q, kl, same_top);
  const MatrixView<const float> of_p = p.host<float>();
  const MatrixView<float> of_q = q.host<float>();
  ParallelFor(p.rows, [&](size_t t) {
    const Row from(of_p.row(t), of_p.cols), to(of_q.row(t), of_q.cols);
    same_top[t] = from.Top() == to.Top() ? 1 : 0;
    kl[t] = RowDivergence(from, to, of_q.row(t));
  });
}

}  // namespace mica
