#include "compress/drift.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "kernels/linalg.h"
#include "kernels/product.h"

namespace mica {
namespace {

constexpr size_t kDifferenceCols = 128;  // rows of D that one thread computes at a time

template <typename T>
T Rounded(float value) {
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else {
    return ToBF16(value);
  }
}
inline float Widened(float value) { return value; }
inline float Widened(BF16 value) { return ToFloat(value); }

template <typename T>
void AddTokens(MatrixView<const T> original, MatrixView<const T> moved, MatrixView<const T> x,
               MatrixView<float> sum) {
  const size_t tokens = x.rows, cols = x.cols;
  Matrix<T> dense(tokens, cols);  // x without gaps between rows, as the product wants it
  ParallelFor((tokens + 255) / 256, [&](size_t block) {
    for (size_t t = block * 256; t < std::min(tokens, block * 256 + 256); ++t)
      std::copy_n(x.row(t), cols, dense.row(t));
  });
  MICA_CHECK(sum.stride == cols);
  ParallelFor((sum.rows + kDifferenceCols - 1) / kDifferenceCols, [&](size_t tile) {
    const size_t first = tile * kDifferenceCols, count = std::min(kDifferenceCols, sum.rows - first);
    Matrix<T> difference(tokens, count);
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t c = 0; c < count; ++c) {
        difference(t, c) = Rounded<T>(Widened(original(t, first + c)) - Widened(moved(t, first + c)));
      }
    }
    TileProductTransposedA(difference.data(), dense.data(), count, cols, tokens, true, sum.row(first));
  });
}

}  // namespace

Drift::Drift(size_t rows, size_t cols) : sum_(rows, cols, 0.0f) {}

void Drift::Add(const ActivationView& original, const ActivationView& moved, const ActivationView& x) {
  MICA_CHECK(original.tokens() == x.tokens() && moved.tokens() == x.tokens() && x.cols() == sum_.cols());
  MICA_CHECK(original.cols() == sum_.rows() && moved.cols() == sum_.rows());
  if (x.tokens() == 0) return;
  if (x.fp32.data != nullptr) {
    AddTokens<float>(original.fp32, moved.fp32, x.fp32, sum_);
  } else {
    AddTokens<BF16>(original.bf16, moved.bf16, x.bf16, sum_);
  }
  tokens_ += x.tokens();
}

Matrix<float> Drift::Mean() const {
  MICA_CHECK(tokens_ > 0);
  Matrix<float> mean(sum_.rows(), sum_.cols());
  const float factor = 1.0f / static_cast<float>(tokens_);
  for (size_t i = 0; i < mean.size(); ++i) mean.data()[i] = factor * sum_.data()[i];
  return mean;
}

Matrix<float> CompensateDrift(MatrixView<const float> w, const InputMoments& moments, double strength,
                              double damping) {
  const MatrixView<const float> h = moments.h;
  const size_t n = h.rows;
  double trace = 0;
  for (size_t j = 0; j < n; ++j) trace += h(j, j);
  Matrix<float> inverse(n, n);
  for (int attempt = 0;; ++attempt) {
    for (size_t i = 0; i < n; ++i) std::copy_n(h.row(i), n, inverse.row(i));
    const float added = static_cast<float>(damping * trace / static_cast<double>(n));
    for (size_t j = 0; j < n; ++j)
      inverse(j, j) +=
          h(j, j) > 0 ? added : static_cast<float>(trace > 0 ? trace / static_cast<double>(n) : 1.0);
    if (InvertPositiveDefinite(inverse)) break;
    if (attempt == 20)
      Fail(
          "second moments of {} input channels are not positive definite at any damping; calibrate on other "
          "text",
          n);
    damping = std::max(2 * damping, 1e-4);
  }
  Matrix<float> moved(w.rows, n);
  if (moments.residual.data != nullptr) {
    for (size_t r = 0; r < w.rows; ++r) std::copy_n(moments.residual.row(r), n, moved.row(r));
  } else {
    moved.Fill(0.0f);
  }
  Gemm(false, false, 1.0f, w, moments.drift, 1.0f, moved);
  Matrix<float> result(w.rows, n);
  for (size_t r = 0; r < w.rows; ++r) std::copy_n(w.row(r), n, result.row(r));
  Gemm(false, false, static_cast<float>(strength), moved, inverse, 1.0f, result);
  return result;
}

}  // namespace mica
