// Means over rows and columns in turn, sums in FP32 in a fixed order.
#include <vector>

#include "device/array.h"
#include "device/cuda_kernel.h"
#include "ops/codes/entropy_model.h"
#include "ops/cuda_ops.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColThreads = 8;     // over rows, for kWarp columns
constexpr int kRowsOfPart = 1024;  // summed by one block
constexpr float kFloor = static_cast<float>(kLeastMeanSize);

// mean[r] = unit[r] times the mean of |w| weight over the row; weight of row r for the columns: unit over
// mean.
__global__ void __launch_bounds__(kThreads)
    RowMeans(View<const float> w, const float* unit, const float* col_weight, float* mean,
             float* row_weight) {
  const size_t r = blockIdx.x;
  float sum = 0;
  for (size_t c = threadIdx.x; c < w.cols; c += kThreads) sum = fmaf(fabsf(w.row(r)[c]), col_weight[c], sum);
  sum = BlockSum<kThreads>(sum);
  if (threadIdx.x > 0) return;
  mean[r] = fmaxf(unit[r] * sum / static_cast<float>(w.cols), kFloor);
  row_weight[r] = unit[r] / mean[r];
}

// parts [rows / kRowsOfPart, cols]
__global__ void __launch_bounds__(kWarp* kColThreads)
    SumColumns(View<const float> w, const float* row_weight, float* parts) {
  __shared__ float sums[kColThreads][kWarp];
  const size_t c = static_cast<size_t>(blockIdx.x) * kWarp + threadIdx.x;
  const size_t first = static_cast<size_t>(blockIdx.y) * kRowsOfPart, last = min(w.rows, first + kRowsOfPart);
  float sum = 0;
  for (size_t r = first + threadIdx.y; r < last && c < w.cols; r += kColThreads)
    sum = fmaf(fabsf(w.row(r)[c]), row_weight[r], sum);
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || c >= w.cols) return;
  for (int i = 1; i < kColThreads; ++i) sum += sums[i][threadIdx.x];
  parts[blockIdx.y * w.cols + c] = sum;
}

__global__ void __launch_bounds__(kThreads)
    ColMeans(View<const float> parts, size_t rows, const float* unit, float* mean, float* col_weight) {
  const size_t c = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (c >= parts.cols) return;
  float sum = 0;
  for (size_t i = 0; i < parts.rows; ++i) sum += parts.row(i)[c];
  mean[c] = fmaxf(unit[c] * sum / static_cast<float>(rows), kFloor);
  col_weight[c] = unit[c] / mean[c];
}

}  // namespace

void StartClasses(ConstTensor w, EntropyMatrix& matrix) {
  const Device device = w.device;
  std::vector<double> of_row, of_col;
  SizeUnits(matrix, of_row, of_col);
  const std::vector<float> row_unit(of_row.begin(), of_row.end()), col_unit(of_col.begin(), of_col.end());
  const size_t parts = Blocks(w.rows, kRowsOfPart);
  const auto f32 = [&](size_t rows, size_t cols) { return Array(rows, cols, DType::kF32, device); };
  const Array d_row_unit = CopyTo(device, row_unit), d_col_unit = CopyTo(device, col_unit);
  Array row_mean = f32(1, w.rows), row_weight = f32(1, w.rows), col_mean = f32(1, w.cols),
        col_weight = CopyTo(device, col_unit), sums = f32(parts, w.cols);
  const auto values = [](Array& array) { return Out<float>(array.view()).data; };
  const float *of_rows = In<float>(d_row_unit.view()).data, *of_cols = In<float>(d_col_unit.view()).data;
  for (int pass = 0; pass < kMeanSizePasses; ++pass) {
    Launch(device, RowMeans, Blocks(w.rows, 1), kThreads, 0, In<float>(w), of_rows, values(col_weight),
           values(row_mean), values(row_weight));
    Launch(device, SumColumns, dim3(Blocks(w.cols, kWarp), static_cast<unsigned>(parts)),
           dim3(kWarp, kColThreads), 0, In<float>(w), values(row_weight), values(sums));
    Launch(device, ColMeans, Blocks(w.cols, kThreads), kThreads, 0, In<float>(sums.view()), w.rows, of_cols,
           values(col_mean), values(col_weight));
  }
  const auto on_host = [](const Array& array) {
    std::vector<float> found(array.cols());
    Copy(array.view(), MatrixView<float>(found.data(), 1, found.size()));
    return std::vector<double>(found.begin(), found.end());
  };
  SetClassesOfWeights(on_host(row_mean), on_host(col_mean), matrix);
}

}  // namespace mica::cuda
