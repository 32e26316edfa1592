#include "compress/calibrate/drift.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "device/activations.h"
#include "ops/linalg/linalg.h"
#include "ops/tile/tile_product.h"

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

}  // namespace mica
