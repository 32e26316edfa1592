#include <algorithm>

#include "device/array.h"
#include "device/cuda_kernel.h"
#include "ops/cuda_ops.h"
#include "ops/linalg/linalg.h"
#include "ops/linalg/matrix_product_cuda.h"
#include "ops/linalg/split_product_cuda.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;
constexpr size_t kPanel = 2048;  // values that tensor cores sum from one end to the other, and columns that a
                                 // triangle gives at a time

// The parts of x; of its upper triangle alone when asked. A block of threads a row.
__global__ void __launch_bounds__(kThreads)
    SplitValues(View<const float> x, bool upper, View<float> high, View<__nv_bfloat16> rounded,
                View<__nv_bfloat16> low) {
  const size_t r = blockIdx.x;
  for (size_t c = threadIdx.x; c < x.cols; c += kThreads) {
    const Halves halves(upper && c < r ? 0.0f : x.row(r)[c]);
    high.row(r)[c] = halves.high;
    rounded.row(r)[c] = __float2bfloat16_rn(halves.high);
    low.row(r)[c] = halves.low;
  }
}

// A matrix as the sum of its parts: the high one, also rounded to the eight bits that are enough beside a low
// one.
class PartedMatrix {
 public:
  PartedMatrix(size_t rows, size_t cols, Device device)
      : high_(rows, cols, DType::kF32, device),
        rounded_(rows, cols, DType::kBF16, device),
        low_(rows, cols, DType::kBF16, device) {}

  // Takes x, of as many rows and columns or fewer.
  void Take(ConstTensor x, bool upper = false) {
    rows_ = x.rows, cols_ = x.cols;
    if (x.empty()) return;
    const auto of = [&](Array& part) { return part.view().Rows(0, rows_).Cols(0, cols_); };
    Launch(x.device, SplitValues, Blocks(rows_, 1), kThreads, 0, In<float>(x), upper, Out<float>(of(high_)),
           Out<BF16>(of(rounded_)), Out<BF16>(of(low_)));
  }
  ConstTensor high() const { return Of(high_); }
  ConstTensor rounded() const { return Of(rounded_); }
  ConstTensor low() const { return Of(low_); }

 private:
  ConstTensor Of(const Array& part) const { return part.view().Rows(0, rows_).Cols(0, cols_); }

  Array high_, rounded_, low_;
  size_t rows_ = 0, cols_ = 0;
};

// out [rows of x, ..] = keep times itself + x[:, first to first + depth] op(b), at most kPanel deep; slab by
// slab. With keep 0, out is written without being read.
void MultiplyParts(const PartedMatrix& x, size_t first, size_t depth, bool transpose_b, const PartedMatrix& b,
                   size_t slab_rows, float keep, Tensor out) {
  MICA_CHECK(depth <= kPanel);
  for (size_t row = 0; row < out.rows; row += slab_rows) {
    const size_t rows = std::min(slab_rows, out.rows - row);
    const Tensor to = out.Rows(row, rows);
    const auto part = [&](const ConstTensor& of_x) { return of_x.Rows(row, rows).Cols(first, depth); };
    // The small ones first.
    TensorCoreProduct(transpose_b, part(x.low()), b.rounded(), keep, to);
    TensorCoreProduct(transpose_b, part(x.rounded()), b.low(), 1, to);
    TensorCoreProduct(transpose_b, part(x.high()), b.high(), 1, to);
  }
}

}  // namespace

void AddProductBySlabs(ConstTensor a, ConstTensor b, size_t slab_rows, Tensor c) {
  if (c.empty() || a.cols == 0) return;
  const size_t deepest = std::min(a.cols, kPanel);
  PartedMatrix of_a(a.rows, deepest, c.device), of_b(deepest, b.cols, c.device);
  for (size_t first = 0; first < a.cols; first += kPanel) {
    const size_t depth = std::min(kPanel, a.cols - first);
    of_a.Take(a.Cols(first, depth));
    of_b.Take(b.Rows(first, depth));
    MultiplyParts(of_a, 0, depth, false, of_b, slab_rows, 1, c);
  }
}

void MultiplyByUpper(bool transpose, ConstTensor u, size_t slab_rows, Tensor x) {
  if (x.empty()) return;
  const size_t n = x.cols, panels = (n + kPanel - 1) / kPanel, widest = std::min(n, kPanel);
  const auto first = [](size_t panel) { return panel * kPanel; };
  const auto width = [&](size_t panel) { return std::min(kPanel, n - panel * kPanel); };
  PartedMatrix of_x(x.rows, n, x.device), block(widest, widest, x.device);
  Array product(x.rows, widest, DType::kF32, x.device);
  of_x.Take(x);
  for (size_t j = 0; j < panels; ++j) {
    const Tensor out = product.view().Cols(0, width(j));
    float keep = 0;
    for (size_t k = transpose ? j : 0; k < (transpose ? panels : j + 1); ++k) {
      const size_t above = transpose ? j : k, beside = transpose ? k : j;
      block.Take(u.Rows(first(above), width(above)).Cols(first(beside), width(beside)), above == beside);
      MultiplyParts(of_x, first(k), width(k), transpose, block, slab_rows, keep, out);
      keep = 1;
    }
    Copy(out, x.Cols(first(j), width(j)));
  }
}

}  // namespace mica::cuda
