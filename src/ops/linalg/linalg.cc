#include "ops/linalg/linalg.h"

#include <cblas.h>
#include <lapacke.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "base/error.h"
#include "base/threads.h"
#include "device/array.h"
#include "ops/cuda_ops.h"
#include "ops/linalg/arrange.h"
#include "ops/linalg/blas_memory.h"

namespace mica {
namespace {

// Edge of the square tiles of the factorisations. 256 x 256 x K products reach the rate of large ones, three
// such tiles in FP32 (768 KiB) fit the L2 cache, and 13,824 columns still give 54 tile rows to share between
// threads.
constexpr size_t kTile = 256;
// Columns of a Gemm tile: wider than tall, as a small K is paid for by the reuse of b.
constexpr size_t kGemmCols = 512;

// OpenBLAS (OpenMP build) uses as many threads as OpenMP would. Tiles computed on the calling thread outside
// a parallel region (a single tile, a diagonal block) must take the same path as those inside one.
class OneBlasThread {
 public:
#ifdef _OPENMP
  OneBlasThread() : threads_(omp_get_max_threads()) {
    ReserveBlasBuffers();
    omp_set_num_threads(1);
  }
  ~OneBlasThread() { omp_set_num_threads(threads_); }

 private:
  int threads_;
#else
  OneBlasThread() { ReserveBlasBuffers(); }
#endif
};

size_t Tiles(size_t extent, size_t tile) { return (extent + tile - 1) / tile; }
size_t TileExtent(size_t index, size_t extent, size_t tile) { return std::min(tile, extent - index * tile); }

int Int(size_t value) {
  MICA_CHECK(value <= static_cast<size_t>(std::numeric_limits<int>::max()));
  return static_cast<int>(value);
}

CBLAS_TRANSPOSE Transposed(bool transpose) { return transpose ? CblasTrans : CblasNoTrans; }

void GemmTile(bool transpose_a, bool transpose_b, float alpha, MatrixView<const float> a,
              MatrixView<const float> b, float beta, MatrixView<float> c) {
  const size_t depth = transpose_a ? a.rows : a.cols;
  cblas_sgemm(CblasRowMajor, Transposed(transpose_a), Transposed(transpose_b), Int(c.rows), Int(c.cols),
              Int(depth), alpha, a.data, Int(a.stride), b.data, Int(b.stride), beta, c.data, Int(c.stride));
}

void GemmTile(bool transpose_a, bool transpose_b, double alpha, MatrixView<const double> a,
              MatrixView<const double> b, double beta, MatrixView<double> c) {
  const size_t depth = transpose_a ? a.rows : a.cols;
  cblas_dgemm(CblasRowMajor, Transposed(transpose_a), Transposed(transpose_b), Int(c.rows), Int(c.cols),
              Int(depth), alpha, a.data, Int(a.stride), b.data, Int(b.stride), beta, c.data, Int(c.stride));
}

// A row-major lower triangle is a column-major upper one, which spares LAPACKE its transposed copies.
bool FactorTile(MatrixView<float> a) {
  return LAPACKE_spotrf_work(LAPACK_COL_MAJOR, 'U', Int(a.rows), a.data, Int(a.stride)) == 0;
}
bool FactorTile(MatrixView<double> a) {
  return LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'U', Int(a.rows), a.data, Int(a.stride)) == 0;
}

// b <- b l^-T.
void SolveTransposed(MatrixView<const float> l, MatrixView<float> b) {
  cblas_strsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, Int(b.rows), Int(b.cols), 1,
              l.data, Int(l.stride), b.data, Int(b.stride));
}
void SolveTransposed(MatrixView<const double> l, MatrixView<double> b) {
  cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, Int(b.rows), Int(b.cols), 1,
              l.data, Int(l.stride), b.data, Int(b.stride));
}

template <typename T>
MatrixView<T> Block(MatrixView<T> a, size_t row, size_t rows, size_t col, size_t cols) {
  return a.Rows(row, rows).Cols(col, cols);
}

// Right-looking: factor the diagonal tile, solve the panel below it, take the panel's outer product from what
// is left.
template <typename T>
bool Cholesky(MatrixView<T> a) {
  MICA_CHECK(a.rows == a.cols);
  const OneBlasThread one_thread;
  const size_t n = a.rows;
  for (size_t start = 0; start < n; start += kTile) {
    const size_t width = std::min(kTile, n - start), rest = start + width;
    const MatrixView<T> diagonal = Block(a, start, width, start, width);
    if (!FactorTile(diagonal)) return false;
    for (size_t i = 0; i < width; ++i) {
      if (!std::isfinite(diagonal(i, i))) return false;  // NaN passes LAPACK's test for a positive pivot
      std::fill_n(a.row(start + i) + start + i + 1, n - start - i - 1, T{0});
    }
    const size_t tiles = Tiles(n - rest, kTile);
    ParallelFor(tiles, [&](size_t i) {
      SolveTransposed(diagonal, Block(a, rest + i * kTile, TileExtent(i, n - rest, kTile), start, width));
    });
    ParallelFor(tiles * (tiles + 1) / 2, [&](size_t index) {
      size_t i = static_cast<size_t>((std::sqrt(8.0 * static_cast<double>(index) + 1) - 1) / 2);
      while (i * (i + 1) / 2 > index) --i;
      while ((i + 1) * (i + 2) / 2 <= index) ++i;
      const size_t j = index - i * (i + 1) / 2;
      const size_t rows = TileExtent(i, n - rest, kTile), cols = TileExtent(j, n - rest, kTile);
      GemmTile(false, true, T{-1}, Block(a, rest + i * kTile, rows, start, width),
               Block(a, rest + j * kTile, cols, start, width), T{1},
               Block(a, rest + i * kTile, rows, rest + j * kTile, cols));
    });
  }
  return true;
}

}  // namespace

void Gemm(bool transpose_a, bool transpose_b, float alpha, ConstTensor of_a, ConstTensor of_b, float beta,
          Tensor of_c) {
  if (of_c.device.is_cuda()) return Cuda().Gemm(transpose_a, transpose_b, alpha, of_a, of_b, beta, of_c);
  const MatrixView<const float> a = of_a.host<float>(), b = of_b.host<float>();
  const MatrixView<float> c = of_c.host<float>();
  MICA_CHECK((transpose_a ? a.cols : a.rows) == c.rows);
  MICA_CHECK((transpose_b ? b.rows : b.cols) == c.cols);
  MICA_CHECK((transpose_a ? a.rows : a.cols) == (transpose_b ? b.cols : b.rows));
  if (c.rows == 0 || c.cols == 0) return;
  const OneBlasThread one_thread;
  const size_t col_tiles = Tiles(c.cols, kGemmCols);
  ParallelFor(Tiles(c.rows, kTile) * col_tiles, [&](size_t index) {
    const size_t i = index / col_tiles, j = index % col_tiles;
    const size_t rows = TileExtent(i, c.rows, kTile), cols = TileExtent(j, c.cols, kGemmCols);
    GemmTile(transpose_a, transpose_b, alpha, transpose_a ? a.Cols(i * kTile, rows) : a.Rows(i * kTile, rows),
             transpose_b ? b.Rows(j * kGemmCols, cols) : b.Cols(j * kGemmCols, cols), beta,
             Block(c, i * kTile, rows, j * kGemmCols, cols));
  });
}

void GemmAt(ProductPrecision precision, bool transpose_a, bool transpose_b, float alpha, ConstTensor a,
            ConstTensor b, float beta, Tensor c) {
  if (c.device.is_cuda()) {
    Cuda().GemmAt(precision, transpose_a, transpose_b, alpha, a, b, beta, c);
  } else {
    Gemm(transpose_a, transpose_b, alpha, a, b, beta, c);
  }
}

bool CholeskyLower(Tensor a) {
  return a.device.is_cuda() ? Cuda().CholeskyLower(a) : Cholesky(a.host<float>());
}
bool CholeskyLowerFp64(MatrixView<double> a) { return Cholesky(a); }

// From the last tile column to the first: the part below and right of the diagonal tile is inverted already,
// and [A 0; B C]^-1 = [A^-1 0; -C^-1 B A^-1  C^-1].
void InvertLowerTriangle(Tensor triangle) {
  if (triangle.device.is_cuda()) return Cuda().InvertLowerTriangle(triangle);
  const MatrixView<float> l = triangle.host<float>();
  MICA_CHECK(l.rows == l.cols);
  const OneBlasThread one_thread;
  const size_t n = l.rows, tile_count = Tiles(n, kTile);
  Matrix<float> panel(n, std::min(n, kTile));
  for (size_t t = tile_count; t-- > 0;) {
    const size_t start = t * kTile, width = TileExtent(t, n, kTile), rest = start + width;
    const MatrixView<float> diagonal = Block(l, start, width, start, width);
    const size_t tiles = Tiles(n - rest, kTile);
    ParallelFor(tiles, [&](size_t i) {
      const MatrixView<float> from = Block(l, rest + i * kTile, TileExtent(i, n - rest, kTile), start, width);
      const MatrixView<float> to = Block(panel.view(), i * kTile, from.rows, 0, width);
      for (size_t r = 0; r < from.rows; ++r) std::copy_n(from.row(r), width, to.row(r));
      cblas_strsm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans, CblasNonUnit, Int(to.rows), Int(width),
                  1, diagonal.data, Int(diagonal.stride), to.data, Int(to.stride));
    });
    MICA_CHECK(LAPACKE_strtri_work(LAPACK_COL_MAJOR, 'U', 'N', Int(width), diagonal.data,
                                   Int(diagonal.stride)) == 0);
    ParallelFor(tiles, [&](size_t index) {
      const size_t i = tiles - 1 - index;  // the longest sums first, so that the threads end together
      const size_t rows = TileExtent(i, n - rest, kTile), depth = i * kTile + rows;
      GemmTile(false, false, -1.0f, Block(l, rest + i * kTile, rows, rest, depth),
               Block(panel.view(), 0, depth, 0, width), 0.0f, Block(l, rest + i * kTile, rows, start, width));
    });
  }
}

namespace {

// On a CUDA device: columns that are factored at once, and of which triangles are made; larger ones are taken by
// halves, so that nearly all of the work is products for tensor cores.
constexpr size_t kBlock = 1024;

// Calls visit(first, count) for the blocks of n columns.
template <typename Visit>
void ForBlocks(size_t n, const Visit& visit) {
  for (size_t first = 0; first < n; first += kBlock) visit(first, std::min(kBlock, n - first));
}

void Multiply(bool transpose_b, float alpha, ConstTensor a, ConstTensor b, float beta, Tensor c) {
  GemmAt(ProductPrecision::k3xTf32, false, transpose_b, alpha, a, b, beta, c);
}

// The inverse of the lower factor of a symmetric matrix in place of its lower triangle; above it only blocks along the
// diagonal are zeroed, and nothing else is read. buffer: room for a quarter of a. False as CholeskyLower.
//
// With A = [A11 .; A21 A22] and X11 = L11^-1: L21 = A21 X11^T, A22 - L21 L21^T = L22 L22^T, X22 = L22^-1, and below X11
// stands -X22 L21 X11.
bool InverseOfFactor(const Tensor& a, Array& buffer) {
  const size_t n = a.rows;
  if (n <= kBlock) {
    if (!CholeskyLower(a)) return false;
    InvertLowerTriangle(a);
    return true;
  }
  const size_t half = (n / 2 + kBlock - 1) / kBlock * kBlock, rest = n - half;
  const Tensor first = a.Rows(0, half).Cols(0, half), below = a.Rows(half, rest).Cols(0, half),
               last = a.Rows(half, rest).Cols(half, rest);
  if (!InverseOfFactor(first, buffer)) return false;
  buffer.Resize(rest, half, DType::kF32, a.device);
  ForBlocks(half, [&](size_t col, size_t count) {
    const size_t depth = col + count;
    Multiply(true, 1, below.Cols(0, depth), first.Rows(col, count).Cols(0, depth), 0,
             buffer.view().Cols(col, count));
  });
  Copy(std::as_const(buffer).view(), below);
  ForBlocks(rest, [&](size_t col, size_t count) {
    Multiply(true, -1, below.Rows(col, rest - col), below.Rows(col, count), 1,
             last.Rows(col, rest - col).Cols(col, count));
  });
  if (!InverseOfFactor(last, buffer)) return false;
  buffer.Resize(rest, half, DType::kF32, a.device);
  ForBlocks(half, [&](size_t col, size_t count) {
    Multiply(false, 1, below.Cols(col, half - col), first.Rows(col, half - col).Cols(col, count), 0,
             buffer.view().Cols(col, count));
  });
  ForBlocks(rest, [&](size_t row, size_t count) {
    const size_t depth = row + count;
    Multiply(false, -1, last.Rows(row, count).Cols(0, depth), std::as_const(buffer).view().Rows(0, depth), 0,
             below.Rows(row, count));
  });
  return true;
}

}  // namespace

bool CholeskyOfInverseUpper(Tensor a) {
  Reverse(a);
  if (a.device.is_cuda()) {
    MICA_CHECK(a.rows == a.cols);
    Array buffer;
    if (!InverseOfFactor(a, buffer)) return false;
    ForBlocks(a.cols, [&](size_t first, size_t count) {
      const Tensor above = a.Rows(0, first).Cols(first, count);
      ScaleValues(0.0f, above, above);
    });
  } else {
    if (!CholeskyLower(a)) return false;
    InvertLowerTriangle(a);
  }
  Reverse(a);
  return true;
}

void AddProductBySlabs(ConstTensor a, ConstTensor b, size_t slab_rows, Tensor c) {
  MICA_CHECK(slab_rows > 0);
  if (c.device.is_cuda()) return Cuda().AddProductBySlabs(a, b, slab_rows, c);
  for (size_t row = 0; row < c.rows; row += slab_rows) {
    const size_t rows = std::min(slab_rows, c.rows - row);
    Gemm(false, false, 1.0f, a.Rows(row, rows), b, 1.0f, c.Rows(row, rows));
  }
}

void MultiplyByUpper(bool transpose, ConstTensor of_u, size_t slab_rows, Tensor of_x) {
  MICA_CHECK(of_u.rows == of_x.cols);
  MICA_CHECK(of_u.cols == of_x.cols);
  MICA_CHECK(slab_rows > 0);
  if (of_x.device.is_cuda()) return Cuda().MultiplyByUpper(transpose, of_u, slab_rows, of_x);
  const MatrixView<const float> u = of_u.host<float>();
  const MatrixView<float> x = of_x.host<float>();
  const size_t tile_rows = std::min<size_t>(64, slab_rows), tiles = Tiles(slab_rows, tile_rows);  // of a slab
  const OneBlasThread one_thread;
  ParallelFor(Tiles(x.rows, slab_rows) * tiles, [&](size_t i) {
    const size_t slab = i / tiles * slab_rows, first = slab + i % tiles * tile_rows;
    const size_t end = std::min({first + tile_rows, slab + slab_rows, x.rows});
    if (first >= end) return;
    cblas_strmm(CblasRowMajor, CblasRight, CblasUpper, Transposed(transpose), CblasNonUnit, Int(end - first),
                Int(x.cols), 1.0f, u.data, Int(u.stride), x.row(first), Int(x.stride));
  });
}

}  // namespace mica
