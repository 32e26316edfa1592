// Matrices by row and by column meet in tiles of 32 x 32 values, which pass through shared memory so that
// both are read and written in runs.
#include <cmath>
#include <vector>

#include "device/cuda_kernel.h"
#include "ops/cuda_ops.h"
#include "ops/feedback/stored.h"
#include "ops/linalg/split_product_cuda.h"
#include "ops/transpose/transpose_cuda.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;

// What decodes a weight. Matrices [.., rows].
struct Stored {
  const uint16_t* codes;
  const uint8_t *keep, *scales, *zeros;  // keep: null without a mask
  const ScaleGroup* groups;
  const uint32_t* group_of;  // [cols] by stored position
  size_t rows, cols;

  // The value of stored position p, times `unit`.
  __device__ float Value(size_t p, size_t r, float unit) const {
    const ScaleGroup group = groups[group_of[p]];
    if (group.bits == 0 || (keep != nullptr && keep[p * rows + r] == 0)) return 0;
    const uint16_t code = codes[p * rows + r];
    if (group.scale_row < 0) return __fmul_rn(__half2float(__ushort_as_half(code)), unit);
    const size_t at = static_cast<size_t>(group.scale_row) * rows + r;
    const uint32_t bits = scales[at];
    const float scale =
        bits < 16 ? static_cast<float>(bits) * 0x1p-18f : __uint_as_float((bits << 19) + (112u << 23));
    return __fmul_rn(static_cast<float>(static_cast<int>(code) - zeros[at]), __fmul_rn(scale, unit));
  }
};

// The state on the device, with what belongs to its columns.
class StoredThere {
 public:
  explicit StoredThere(const SolverState& state)
      : state_(state),
        groups_(state.device(), state.plan.groups),
        group_of_(state.device(), GroupOf(state)) {}

  Stored view() const {
    return {reinterpret_cast<const uint16_t*>(state_.codes.view().data),
            state_.masked() ? reinterpret_cast<const uint8_t*>(state_.keep.view().data) : nullptr,
            reinterpret_cast<const uint8_t*>(state_.scales.view().data),
            reinterpret_cast<const uint8_t*>(state_.zeros.view().data),
            groups_.data(),
            group_of_.data(),
            state_.rows,
            state_.cols};
  }

 private:
  static std::vector<uint32_t> GroupOf(const SolverState& state) {
    std::vector<uint32_t> group_of(state.cols);
    for (uint32_t g = 0; g < state.plan.groups.size(); ++g) {
      const ScaleGroup& group = state.plan.groups[g];
      for (size_t p = group.start; p < size_t{group.start} + group.count; ++p) group_of[p] = g;
    }
    return group_of;
  }

  const SolverState& state_;
  const Values<ScaleGroup> groups_;
  const Values<uint32_t> group_of_;
};

// Original column -> stored position.
std::vector<uint32_t> Positions(const std::vector<uint32_t>& order) {
  std::vector<uint32_t> positions(order.size());
  for (uint32_t p = 0; p < order.size(); ++p) positions[order[p]] = p;
  return positions;
}

__global__ void __launch_bounds__(kThreads) FindLargest(View<const float> w, uint32_t* largest) {
  float most = 0;
  for (size_t r = blockIdx.x; r < w.rows; r += gridDim.x) {
    for (size_t c = threadIdx.x; c < w.cols; c += kThreads) most = fmaxf(most, fabsf(w.row(r)[c]));
  }
  most = WarpMax(most);
  // Floats that are not negative are ordered as their bits.
  if (threadIdx.x % kWarp == 0) atomicMax(largest, __float_as_uint(most));
}

__global__ void __launch_bounds__(kThreads)
    ScaleBoth(View<const float> m, const float* row, const float* col, View<float> out) {
  for (size_t r = blockIdx.x; r < m.rows; r += gridDim.x) {
    const float of_row = row != nullptr ? row[r] : 1.0f;
    for (size_t c = threadIdx.x; c < m.cols; c += kThreads)
      out.row(r)[c] = __fmul_rn(__fmul_rn(m.row(r)[c], col[c]), of_row);
  }
}

// A block of threads a row: sums of every 256th product, then over the threads in the order of a tree.
__global__ void __launch_bounds__(kThreads)
    MultiplyRows(View<const float> a, View<const float> b, double* products) {
  extern __shared__ double sums[];  // [kThreads]
  const float *x = a.row(blockIdx.x), *y = b.row(blockIdx.x);
  double sum = 0;
  for (size_t c = threadIdx.x; c < a.cols; c += kThreads) sum += static_cast<double>(x[c]) * y[c];
  sums[threadIdx.x] = sum;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) products[blockIdx.x] = sums[0];
}

// out[position of c, r] = (w[r, c], or 0 where `dead`) times inverse_unit less what is stored (unless
// `whole`).
__global__ void __launch_bounds__(kTileEdge* kTileLines)
    ResidualTiles(const Stored stored, View<const float> w, const uint32_t* positions, const uint8_t* dead,
                  bool whole, float inverse_unit, View<float> out) {
  ThroughTiles<float>(
      w.rows, w.cols, [&](size_t r, size_t c) { return w.row(r)[c]; },
      [&](size_t r, size_t c, float weight) {
        const size_t p = positions[c];
        const float value = dead[p] != 0 ? 0.0f : __fmul_rn(weight, inverse_unit);
        out.row(p)[r] = __fsub_rn(value, whole ? 0.0f : stored.Value(p, r, 1.0f));
      });
}

// out[r, c] = what is stored at the position of c.
__global__ void __launch_bounds__(kTileEdge* kTileLines)
    WeightTiles(const Stored stored, const uint32_t* positions, float unit, View<float> out) {
  ThroughTiles<float, true>(
      out.rows, out.cols, [&](size_t r, size_t c) { return stored.Value(positions[c], r, unit); },
      [&](size_t r, size_t c, float weight) { out.row(r)[c] = weight; });
}

// A stored column a turn of a block of threads.
__global__ void __launch_bounds__(kThreads) CountZeroWeights(const Stored stored, unsigned long long* zeros) {
  unsigned count = 0;
  for (size_t p = blockIdx.x; p < stored.cols; p += gridDim.x) {
    for (size_t r = threadIdx.x; r < stored.rows; r += kThreads) count += stored.Value(p, r, 1.0f) == 0.0f;
  }
  count = __reduce_add_sync(kAllLanes, count);
  if (threadIdx.x % kWarp == 0) atomicAdd(zeros, static_cast<unsigned long long>(count));
}

unsigned OfLines(size_t count) { return std::min(Blocks(count, 1), 4096u); }

template <typename T>
void TransposeOnDevice(const ConstTensor& in, const Tensor& out) {
  const View<const T> from{reinterpret_cast<const T*>(in.data), in.rows, in.cols, in.stride};
  const View<T> to{reinterpret_cast<T*>(out.data), out.rows, out.cols, out.stride};
  Launch(in.device, TransposeTiles<T>, TransposeBlocks(in.rows, in.cols), kTransposeThreads, 0, from, to);
}

}  // namespace

float LargestMagnitude(ConstTensor w) {
  if (w.empty()) return 0;
  const Values<float> largest(w.device, std::vector<float>(1, 0.0f));
  Launch(w.device, FindLargest, OfLines(w.rows), kThreads, 0, In<float>(w),
         reinterpret_cast<uint32_t*>(largest.data()));
  float most = 0;
  largest.CopyTo({&most, 1});
  return most;
}

void ScaleRowsAndColumns(ConstTensor m, const std::vector<float>& row, const std::vector<float>& col,
                         Tensor out) {
  if (out.empty()) return;
  const Values<float> of_row(out.device, row), of_col(out.device, col);
  Launch(out.device, ScaleBoth, OfLines(out.rows), kThreads, 0, In<float>(m),
         row.empty() ? nullptr : of_row.data(), of_col.data(), Out<float>(out));
}

std::vector<double> RowProducts(ConstTensor a, ConstTensor b) {
  std::vector<double> products(a.rows, 0.0);
  if (a.empty()) return products;
  const Values<double> there(a.device, a.rows);
  Launch(a.device, MultiplyRows, Blocks(a.rows, 1), kThreads, kThreads * sizeof(double), In<float>(a),
         In<float>(b), there.data());
  there.CopyTo(products);
  return products;
}

// As on the processor, in larger blocks.
double QuadraticLoss(ConstTensor h, ConstTensor d) {
  constexpr size_t kRowsAtOnce = 1024;
  if (d.empty()) return 0;
  std::vector<size_t> starts;
  for (size_t start = 0; start < d.rows; start += kRowsAtOnce) starts.push_back(start);
  const size_t blocks = starts.size();
  starts.push_back(d.rows);
  SplitProduct product(h, starts, blocks, d.cols);
  product.Take(d);
  Array sums(std::min(kRowsAtOnce, d.rows), d.cols, DType::kF32, d.device);
  double loss = 0;
  for (size_t b = 0; b < blocks; ++b) {
    const size_t count = starts[b + 1] - starts[b];
    const Tensor out = sums.view().Rows(0, count);
    product.Multiply(1.0f, b, b + 1, b, b + 1, 0.0f, out);
    if (b + 1 < blocks) product.Multiply(2.0f, b, b + 1, b + 1, blocks, 1.0f, out);
    for (const double part : cuda::RowProducts(d.Rows(starts[b], count), out)) loss += part;
  }
  return loss;
}

void Residual(const SolverState& state, ConstTensor w, const std::vector<uint32_t>& dead, bool whole,
              Tensor out) {
  if (out.empty()) return;
  const StoredThere stored(state);
  const Values<uint32_t> positions(out.device, Positions(state.plan.order));
  std::vector<uint8_t> is_dead(state.cols, 0);
  for (const uint32_t p : dead) is_dead[p] = 1;
  const Values<uint8_t> dead_there(out.device, is_dead);
  Launch(out.device, ResidualTiles, TransposeBlocks(w.rows, w.cols), kTransposeThreads, 0, stored.view(),
         In<float>(w), positions.data(), dead_there.data(), whole, std::ldexp(1.0f, -state.exponent),
         Out<float>(out));
}

void StoredWeights(const SolverState& state, Tensor out) {
  if (out.empty()) return;
  const StoredThere stored(state);
  const Values<uint32_t> positions(out.device, Positions(state.plan.order));
  Launch(out.device, WeightTiles, TransposeBlocks(out.rows, out.cols), kTransposeThreads, 0, stored.view(),
         positions.data(), std::ldexp(1.0f, state.exponent), Out<float>(out));
}

uint64_t CountZeros(const SolverState& state) {
  if (state.rows == 0 || state.cols == 0) return 0;
  const StoredThere stored(state);
  const Values<unsigned long long> zeros(state.device(), std::vector<unsigned long long>(1, 0));
  Launch(state.device(), CountZeroWeights, OfLines(state.cols), kThreads, 0, stored.view(), zeros.data());
  unsigned long long count = 0;
  zeros.CopyTo({&count, 1});
  return count;
}

void IntegersByRow(ConstTensor by_column, Tensor by_row) {
  if (by_row.empty()) return;
  Array there(by_row.rows, by_row.cols, by_row.dtype, by_column.device);
  if (DTypeBytes(by_row.dtype) == 2) {
    TransposeOnDevice<uint16_t>(by_column, there.view());
  } else {
    MICA_CHECK(DTypeBytes(by_row.dtype) == 1);
    TransposeOnDevice<uint8_t>(by_column, there.view());
  }
  if (by_row.stride != by_row.cols) return Copy(there.view(), by_row);
  // Hundreds of megabytes, and the first that anyone writes there.
  DownloadBytes(by_column.device, by_row.data, there.view().data,
                by_row.rows * by_row.cols * DTypeBytes(by_row.dtype));
}

}  // namespace mica::cuda
