// Bound by memory but for the logarithms, which FP64 units of a data-centre GPU do in the same time.
#include <algorithm>
#include <numeric>
#include <vector>

#include "device/cuda_kernel.h"
#include "ops/census/pairs.h"
#include "ops/cuda_ops.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kEdge = 32, kLines = kThreads / kEdge;  // of a tile of pairs; rows of it at a time
constexpr int kRowsAtOnce = 4;                        // for which a block reads x once

// Blocks for the rows of a matrix: one each, as many as a launch takes.
unsigned OfRows(size_t rows) { return Blocks(std::min<size_t>(rows, 1u << 30), 1); }

// A block of kEdge x kLines threads a tile of pairs (i, j), j <= i, which it reads before it writes them and
// their mirror images: out may be h.
__global__ void __launch_bounds__(kThreads)
    InformPairs(View<const float> h, const double* mean, const double* inverse_deviation, View<float> out) {
  __shared__ float tile[kEdge][kEdge + 1];
  if (blockIdx.x > blockIdx.y) return;
  const size_t n = h.rows, first_i = blockIdx.y * size_t{kEdge}, first_j = blockIdx.x * size_t{kEdge};
  for (int line = threadIdx.y; line < kEdge; line += kLines) {
    const size_t i = first_i + line, j = first_j + threadIdx.x;
    float value = 0;
    if (i < n && j < i) {
      const double covariance = h.row(i)[j] - mean[i] * mean[j];
      double rho = fabs(covariance * inverse_deviation[i] * inverse_deviation[j]);
      if (rho > 1.0 - kCorrelationMargin) rho = 1.0 - kCorrelationMargin;
      value = static_cast<float>(-0.5 * log((1.0 - rho) * (1.0 + rho)));
    }
    tile[line][threadIdx.x] = value;
  }
  __syncthreads();
  for (int line = threadIdx.y; line < kEdge; line += kLines) {
    const size_t i = first_i + line, j = first_j + threadIdx.x;
    if (i < n && j <= i) out.row(i)[j] = tile[line][threadIdx.x];
    // The same tile, mirrored: row j and column i.
    const size_t row = first_j + line, col = first_i + threadIdx.x;
    if (col < n && row < col) out.row(row)[col] = tile[threadIdx.x][line];
  }
}

__global__ void __launch_bounds__(kThreads) NormaliseRows(View<float> information) {
  for (size_t r = blockIdx.x; r < information.rows; r += gridDim.x) {
    float* row = information.row(r);
#pragma unroll 4
    for (size_t c = threadIdx.x; c < information.cols; c += kThreads)
      row[c] = static_cast<float>(sqrt(-expm1(-2.0 * fmaxf(0.0f, row[c]))));
  }
}

// A block kRowsAtOnce rows of a. x, y: [n].
__global__ void __launch_bounds__(kThreads)
    MultiplyRows(View<const float> a, const double* __restrict__ x, double* __restrict__ y) {
  __shared__ double of_warp[kRowsAtOnce][kWarps];
  const size_t first = blockIdx.x * size_t{kRowsAtOnce};
  const float* rows[kRowsAtOnce];
  double sums[kRowsAtOnce] = {};
  // Beyond the last row, it again.
  for (int i = 0; i < kRowsAtOnce; ++i) rows[i] = a.row(min(first + i, a.rows - 1));
#pragma unroll 4
  for (size_t c = threadIdx.x; c < a.cols; c += kThreads) {
    const double value = x[c];
#pragma unroll
    for (int i = 0; i < kRowsAtOnce; ++i) sums[i] = fma(static_cast<double>(rows[i][c]), value, sums[i]);
  }
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
  for (int i = 0; i < kRowsAtOnce; ++i) {
    for (int other = kWarp / 2; other > 0; other /= 2) sums[i] += __shfl_xor_sync(kAllLanes, sums[i], other);
    if (lane == 0) of_warp[i][warp] = sums[i];
  }
  __syncthreads();
  const size_t r = first + threadIdx.x;
  if (threadIdx.x >= kRowsAtOnce || r >= a.rows) return;
  double sum = 0;
  for (int w = 0; w < kWarps; ++w) sum += of_warp[threadIdx.x][w];
  y[r] = sum - static_cast<double>(a.row(r)[r]) * x[r];
}

// distances[s, g]: a block a row of the list, a warp a group at a time. order: channels by group, those of
// group g at [starts[g], starts[g + 1]).
__global__ void __launch_bounds__(kThreads)
    SumByGroup(View<const float> a, const uint32_t* rows, const uint32_t* order, const uint32_t* starts,
               uint32_t groups, double* distances) {
  const float* row = a.row(rows[blockIdx.x]);
  const uint32_t lane = threadIdx.x % kWarp;
  for (uint32_t g = threadIdx.x / kWarp; g < groups; g += kWarps) {
    const uint32_t end = starts[g + 1];
    double sum = 0;
#pragma unroll 4
    for (uint32_t p = starts[g] + lane; p < end; p += kWarp) sum += 1.0 - row[order[p]];
    for (int other = kWarp / 2; other > 0; other /= 2) sum += __shfl_xor_sync(kAllLanes, sum, other);
    if (lane == 0) distances[size_t{blockIdx.x} * groups + g] = sum;
  }
}

}  // namespace

void GaussianInformation(ConstTensor second_moment, const std::vector<double>& mean, Tensor out) {
  const Values<double> means(out.device, mean);
  const Values<double> inverse_deviation(out.device, InverseDeviations(second_moment, mean));
  const unsigned tiles = Blocks(out.rows, kEdge);
  Launch(out.device, InformPairs, dim3(tiles, tiles), dim3(kEdge, kLines), 0, In<float>(second_moment),
         means.data(), inverse_deviation.data(), Out<float>(out));
}

void NormaliseInformation(Tensor information) {
  Launch(information.device, NormaliseRows, OfRows(information.rows), kThreads, 0, Out<float>(information));
}

void MultiplyOffDiagonal(ConstTensor a, std::span<const double> x, std::span<double> y) {
  const Values<double> from(a.device, x), to(a.device, y.size());
  Launch(a.device, MultiplyRows, Blocks(a.rows, kRowsAtOnce), kThreads, 0, In<float>(a), from.data(),
         to.data());
  to.CopyTo(y);
}

Matrix<double> GroupDistances(ConstTensor a, const std::vector<uint32_t>& rows,
                              const std::vector<uint32_t>& group, size_t groups) {
  std::vector<uint32_t> starts(groups + 1, 0), order(group.size());
  for (const uint32_t g : group) ++starts[g + 1];
  std::partial_sum(starts.begin(), starts.end(), starts.begin());
  std::vector<uint32_t> next(starts.begin(), starts.end() - 1);
  for (size_t j = 0; j < group.size(); ++j) order[next[group[j]]++] = static_cast<uint32_t>(j);
  const Values<uint32_t> scored(a.device, rows), ordered(a.device, order), begins(a.device, starts);
  const Values<double> there(a.device, rows.size() * groups);
  Launch(a.device, SumByGroup, Blocks(rows.size(), 1), kThreads, 0, In<float>(a), scored.data(),
         ordered.data(), begins.data(), static_cast<uint32_t>(groups), there.data());
  Matrix<double> distances(rows.size(), groups);
  there.CopyTo({distances.data(), distances.size()});
  return distances;
}

}  // namespace mica::cuda
