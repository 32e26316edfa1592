#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/threads.h"
#include "device/scratch.h"
#include "ops/head/head.h"
#include "ops/tile/kernels.h"

namespace mica {
namespace {

float LogSum(const float* logits, size_t n) {
  RunningSum sum;
  Kernels(Backend::kCpu).log_sum_step(logits, n, &sum);
  return sum.max + std::log(sum.sum);
}

// Overwrites q.
float RowDivergence(const float* p, float* q, size_t n) {
  const KernelTable& kernels = Kernels(Backend::kCpu);
  const float p_sum = LogSum(p, n), q_sum = LogSum(q, n);
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
  const MatrixView<const float> of_p = p.host<float>();
  const MatrixView<float> of_q = q.host<float>();
  ParallelFor(p.rows, [&](size_t t) {
    const auto top = [&](const float* logits) {
      return std::max_element(logits, logits + of_p.cols) - logits;
    };
    same_top[t] = top(of_p.row(t)) == top(of_q.row(t)) ? 1 : 0;
    kl[t] = RowDivergence(of_p.row(t), of_q.row(t), of_p.cols);
  });
}

}  // namespace mica
