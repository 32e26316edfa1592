#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/attention/attention.h"
#include "ops/tile/dispatch.h"

namespace mica {
namespace {

size_t FirstSeen(const AttentionShape& shape, const AttentionInputs& in, size_t t) {
  const size_t first = t / shape.window * shape.window;  // of the window
  return in.sliding == 0 || t + 1 < first + in.sliding ? first : t + 1 - in.sliding;
}
// tanh(score / soft_cap), which the capped score is in units of the cap.
double Cap(const AttentionInputs& in, double score) { return std::tanh(score / in.soft_cap); }

template <typename T>
void Attend(const AttentionShape& shape, const AttentionInputs& in, MatrixView<T> out,
            MatrixView<float> log_sums) {
  const MatrixView<const T> q = in.q.host<T>(), k = in.k.host<T>(), v = in.v.host<T>();
  const auto [tokens, window, heads, kv_heads, head_dim] = shape;
  std::vector<double> weights(window), sums(head_dim);
  for (size_t head = 0; head < heads; ++head) {
    const size_t kv_head = head / (heads / kv_heads);
    for (size_t t = 0; t < tokens; ++t) {
      const size_t first = FirstSeen(shape, in, t);
      const T* query = q.row(head * tokens + t);
      double max = -std::numeric_limits<double>::infinity();
      for (size_t s = first; s <= t; ++s) {
        const T* key = k.row(kv_head * tokens + s);
        double score = 0.0;
        for (size_t i = 0; i < head_dim; ++i) score += double{Widen(query[i])} * Widen(key[i]);
        score *= in.factor;
        weights[s - first] = in.soft_cap > 0 ? in.soft_cap * Cap(in, score) : score;
        max = std::max(max, weights[s - first]);
      }
      double total = 0.0;
      std::fill(sums.begin(), sums.end(), 0.0);
      for (size_t s = first; s <= t; ++s) {
        const double weight = std::exp(weights[s - first] - max);
        total += weight;
        const T* value = v.row(kv_head * tokens + s);
        for (size_t i = 0; i < head_dim; ++i) sums[i] += weight * Widen(value[i]);
      }
      for (size_t i = 0; i < head_dim; ++i) {
        out(t, head * head_dim + i) = Narrow<T>(static_cast<float>(sums[i] / total));
      }
      if (log_sums.data != nullptr) log_sums(head, t) = static_cast<float>(max + std::log(total));
    }
  }
}

template <typename T>
void Differentiate(const AttentionShape& shape, const AttentionInputs& in, const AttentionFeedback& feedback,
                   const AttentionGradients& out) {
  const auto [tokens, window, heads, kv_heads, head_dim] = shape;
  const MatrixView<const T> q = in.q.host<T>(), k = in.k.host<T>(), v = in.v.host<T>(),
                            context = feedback.out.host<T>();
  const MatrixView<const float> log_sums = feedback.log_sums.host<float>(),
                                context_gradient = feedback.grad_out.host<float>();
  Matrix<double> grad_q(heads * tokens, head_dim, 0.0), grad_k(kv_heads * tokens, head_dim, 0.0),
      grad_v(kv_heads * tokens, head_dim, 0.0);
  for (size_t head = 0; head < heads; ++head) {
    const size_t kv_head = head / (heads / kv_heads);
    for (size_t t = 0; t < tokens; ++t) {
      const size_t row = head * tokens + t;
      const float* grad_out = context_gradient.row(t) + head * head_dim;
      double mean = 0.0;
      for (size_t i = 0; i < head_dim; ++i) {
        mean += double{grad_out[i]} * Widen(context(t, head * head_dim + i));
      }
      for (size_t s = FirstSeen(shape, in, t); s <= t; ++s) {
        const size_t key = kv_head * tokens + s;
        double score = 0.0, grad_p = 0.0;
        for (size_t i = 0; i < head_dim; ++i) {
          score += double{Widen(q(row, i))} * Widen(k(key, i));
          grad_p += double{Widen(Narrow<T>(grad_out[i]))} * Widen(v(key, i));
        }
        score *= in.factor;
        double slope = in.factor;  // of the score that softmax sees, by the product
        if (in.soft_cap > 0) {
          const double capped = Cap(in, score);
          score = in.soft_cap * capped;
          slope *= 1 - capped * capped;
        }
        const double p = std::exp(score - log_sums(head, t));
        const double grad_score = p * (grad_p - mean) * slope;
        for (size_t i = 0; i < head_dim; ++i) {
          grad_q(row, i) += grad_score * Widen(k(key, i));
          grad_k(key, i) += grad_score * Widen(q(row, i));
          grad_v(key, i) += p * Widen(Narrow<T>(grad_out[i]));
        }
      }
    }
  }
  const auto store = [](const Matrix<double>& sums, Tensor gradient) {
    for (size_t r = 0; r < sums.rows(); ++r) {
      for (size_t i = 0; i < sums.cols(); ++i) gradient.host<float>()(r, i) = static_cast<float>(sums(r, i));
    }
  };
  store(grad_q, out.q);
  store(grad_k, out.k);
  store(grad_v, out.v);
}

}  // namespace

void AttentionRef(const AttentionShape& shape, const AttentionInputs& in, Tensor out, Tensor log_sums) {
  DispatchOperand(in.q.dtype,
                  [&](auto type) { Attend(shape, in, out.host<decltype(type)>(), log_sums.host<float>()); });
}

void AttentionGradientRef(const AttentionShape& shape, const AttentionInputs& in,
                          const AttentionFeedback& feedback, const AttentionGradients& out) {
  DispatchOperand(in.q.dtype, [&](auto type) { Differentiate<decltype(type)>(shape, in, feedback, out); });
}

}  // namespace mica
