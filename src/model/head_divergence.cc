#include "model/head_divergence.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/threads.h"
#include "device/scratch.h"
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
  kernels.exp_f32(p, n, 1.0f, p_sum, probabilities);
  // sum_v p_v ((logit_p - logit_q) - (p_sum - q_sum)): the differences are small, so little cancels.
  kernels.scale(-1.0f, n, q);
  kernels.add(p, n, q);
  return std::max(0.0f, kernels.dot(probabilities, q, n) - (p_sum - q_sum));
}

}  // namespace

void OutputDivergence(const OutputHead& reference, MatrixView<const float> reference_x,
                      const OutputHead& model, MatrixView<const float> x, std::span<float> kl,
                      std::span<uint8_t> same_top) {
  const size_t vocab = model.vocab();
  MICA_CHECK(reference.vocab() == vocab && reference_x.rows == x.rows);
  MICA_CHECK(kl.size() == x.rows && same_top.size() == x.rows);
  const size_t batch = std::clamp<size_t>(kDivergenceBytes / 2 / (vocab * sizeof(float)), 1, x.rows);
  Matrix<float> p(batch, vocab), q(batch, vocab);
  for (size_t first = 0; first < x.rows; first += batch) {
    const size_t tokens = std::min(batch, x.rows - first);
    reference.Logits(reference_x.Rows(first, tokens), p.view().Rows(0, tokens));
    model.Logits(x.Rows(first, tokens), q.view().Rows(0, tokens));
    ParallelFor(tokens, [&](size_t t) {
      const auto top = [vocab](const float* logits) {
        return std::max_element(logits, logits + vocab) - logits;
      };
      same_top[first + t] = top(p.row(t)) == top(q.row(t)) ? 1 : 0;
      kl[first + t] = RowDivergence(p.row(t), q.row(t), vocab);
    });
  }
}

}  // namespace mica
