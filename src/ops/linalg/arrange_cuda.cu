// Bound by memory: a block of threads a row, but where it says otherwise.
#include <algorithm>

#include "device/cuda_kernel.h"
#include "ops/cuda_ops.h"
#include "ops/linalg/arrange.h"
#include "ops/tile/dispatch.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;

// Blocks for the rows of a matrix: one each, as many as a launch takes.
dim3 OfRows(size_t rows) { return {Blocks(std::min<size_t>(rows, 1u << 30), 1)}; }

__global__ void __launch_bounds__(kThreads) ReverseRows(View<float> a) {
  const size_t r = blockIdx.x, other = a.rows - 1 - r;
  // The middle row is turned alone: its first half meets the second.
  const size_t count = r == other ? a.cols / 2 : a.cols;
  for (size_t c = threadIdx.x; c < count; c += kThreads) {
    const float upper = a.row(r)[c], lower = a.row(other)[a.cols - 1 - c];
    a.row(r)[c] = lower;
    a.row(other)[a.cols - 1 - c] = upper;
  }
}

__global__ void __launch_bounds__(kThreads)
    ArrangeRows(View<const float> h, const uint32_t* order, const float* scale, double share, float at_zero,
                View<float> out) {
  const size_t i = blockIdx.x;
  const float* from = h.row(order[i]);
  const float of_row = scale[i];
  for (size_t j = threadIdx.x; j < out.cols; j += kThreads) {
    const float of_col = scale[j];
    float value = 0;
    if (of_row != 0 && of_col != 0) {
      value = from[order[j]] * of_row * of_col;
      if (i == j) value = static_cast<float>(value * (1 + share));
    } else if (i == j) {
      value = at_zero;
    }
    out.row(i)[j] = value;
  }
}

__global__ void __launch_bounds__(kThreads)
    PermuteRows(View<const float> x, const uint32_t* order, View<float> out) {
  const float* from = x.row(blockIdx.x);
  for (size_t p = threadIdx.x; p < out.cols; p += kThreads) out.row(blockIdx.x)[p] = from[order[p]];
}

__global__ void __launch_bounds__(kThreads) ScaleUpperRows(const float* factors, View<float> u) {
  const size_t i = blockIdx.x;
  for (size_t j = i + threadIdx.x; j < u.cols; j += kThreads) u.row(i)[j] *= factors[j];
}

__global__ void __launch_bounds__(kThreads) ScaleRows(float factor, View<const float> in, View<float> out) {
  for (size_t c = threadIdx.x; c < out.cols; c += kThreads)
    out.row(blockIdx.x)[c] = factor * in.row(blockIdx.x)[c];
}

__global__ void __launch_bounds__(kThreads)
    ScaleAndAddRows(View<const float> base, float factor, View<float> x) {
  for (size_t c = threadIdx.x; c < x.cols; c += kThreads)
    x.row(blockIdx.x)[c] = base.row(blockIdx.x)[c] + factor * x.row(blockIdx.x)[c];
}

// A thread a value.
__global__ void __launch_bounds__(kThreads) CopyDiagonal(View<const float> a, float* out) {
  const size_t i = blockIdx.x * size_t{kThreads} + threadIdx.x;
  if (i < a.rows) out[i] = a.row(i)[i];
}

constexpr int kSquareRows = 256;  // rows that one block of threads sums
constexpr int kSquareWarps = 8;   // each takes every eighth of them

// partial[slice, c] = the squares of column c in the slice's rows. A lane a column, slices by blockIdx.y.
__global__ void __launch_bounds__(kSquareWarps* kWarp) SumSquares(View<const float> u, double* partial) {
  __shared__ double sums[kSquareWarps][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const size_t c = blockIdx.x * size_t{kWarp} + lane, first = blockIdx.y * size_t{kSquareRows};
  const size_t end = min(first + kSquareRows, u.rows);
  double sum = 0;
  if (c < u.cols) {
    for (size_t r = first + warp; r < end; r += kSquareWarps) {
      if (r > c) break;  // zeros, which nobody has to read
      const double value = u.row(r)[c];
      sum += value * value;
    }
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || c >= u.cols) return;
  for (int w = 1; w < kSquareWarps; ++w) sum += sums[w][lane];
  partial[blockIdx.y * u.cols + c] = sum;
}

// Bits of the exponent of a type, all of which are set in what is not finite.
template <typename T>
constexpr unsigned kExponentBits = std::is_same_v<T, float>  ? 0x7F800000u
                                   : std::is_same_v<T, BF16> ? 0x7F80u
                                                             : 0x7C00u;

// first = the least index of a value that is not finite.
template <typename Bits>
__global__ void __launch_bounds__(kThreads)
    FindNotFinite(View<const Bits> x, unsigned exponent, unsigned long long* first) {
  const size_t r = blockIdx.x;
  for (size_t c = threadIdx.x; c < x.cols; c += kThreads) {
    if ((x.row(r)[c] & exponent) != exponent) continue;
    atomicMin(first, static_cast<unsigned long long>(r * x.cols + c));
    return;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    CopyRows(View<const T> table, const int32_t* ids, View<T> out) {
  const T* from = table.row(static_cast<size_t>(ids[blockIdx.x]));
  for (size_t c = threadIdx.x; c < table.cols; c += kThreads) out.row(blockIdx.x)[c] = from[c];
}

}  // namespace

void Reverse(Tensor a) {
  if (a.empty()) return;
  Launch(a.device, ReverseRows, OfRows((a.rows + 1) / 2), kThreads, 0, Out<float>(a));
}

void ArrangeSymmetric(ConstTensor h, const std::vector<uint32_t>& order, const std::vector<float>& scale,
                      double share, float at_zero, Tensor out) {
  if (out.empty()) return;
  const Values<uint32_t> positions(out.device, order);
  const Values<float> scales(out.device, scale);
  Launch(out.device, ArrangeRows, OfRows(out.rows), kThreads, 0, In<float>(h), positions.data(),
         scales.data(), share, at_zero, Out<float>(out));
}

void GatherColumns(ConstTensor x, const std::vector<uint32_t>& order, Tensor out) {
  if (out.empty()) return;
  const Values<uint32_t> positions(out.device, order);
  Launch(out.device, PermuteRows, OfRows(out.rows), kThreads, 0, In<float>(x), positions.data(),
         Out<float>(out));
}

void ScaleUpperColumns(const std::vector<float>& factors, Tensor u) {
  if (u.empty()) return;
  const Values<float> there(u.device, factors);
  Launch(u.device, ScaleUpperRows, OfRows(u.rows), kThreads, 0, there.data(), Out<float>(u));
}

void ScaleValues(float factor, ConstTensor in, Tensor out) {
  if (out.empty()) return;
  Launch(out.device, ScaleRows, OfRows(out.rows), kThreads, 0, factor, In<float>(in), Out<float>(out));
}

void ScaleAndAdd(ConstTensor base, float factor, Tensor x) {
  if (x.empty()) return;
  Launch(x.device, ScaleAndAddRows, OfRows(x.rows), kThreads, 0, In<float>(base), factor, Out<float>(x));
}

std::vector<float> DiagonalOf(ConstTensor a) {
  std::vector<float> diagonal(a.rows);
  if (a.empty()) return diagonal;
  Array there(1, a.rows, DType::kF32, a.device);
  Launch(a.device, CopyDiagonal, Blocks(a.rows, kThreads), kThreads, 0, In<float>(a),
         Out<float>(there.view()).data);
  Copy(there.view(), MatrixView<float>(diagonal.data(), 1, diagonal.size()));
  return diagonal;
}

std::vector<double> UpperColumnSquares(ConstTensor u) {
  std::vector<double> sums(u.cols, 0.0);
  if (u.empty()) return sums;
  const size_t slices = (u.rows + kSquareRows - 1) / kSquareRows;
  Array partial(slices, u.cols, DType::kF64, u.device);
  Launch(u.device, SumSquares, dim3(Blocks(u.cols, kWarp), static_cast<unsigned>(slices)),
         kSquareWarps * kWarp, 0, In<float>(u), reinterpret_cast<double*>(partial.view().data));
  // A few megabytes: added here, slice by slice.
  const Array here = CopyTo(Device::Cpu(), partial.view());
  const double* values = reinterpret_cast<const double*>(here.view().data);
  for (size_t s = 0; s < slices; ++s) {
    for (size_t c = 0; c < u.cols; ++c) sums[c] += values[s * u.cols + c];
  }
  return sums;
}

uint64_t FirstNotFiniteOn(ConstTensor values) {
  unsigned long long first = uint64_t{values.rows} * values.cols;
  if (values.empty()) return first;
  const Values<unsigned long long> there(values.device, std::span<const unsigned long long>(&first, 1));
  DispatchFloat(values.dtype, [&](auto type) {
    using T = decltype(type);
    using Bits = std::conditional_t<std::is_same_v<T, float>, uint32_t, uint16_t>;
    const View<const Bits> bits{reinterpret_cast<const Bits*>(values.data), values.rows, values.cols,
                                values.stride};
    Launch(values.device, FindNotFinite<Bits>, OfRows(values.rows), kThreads, 0, bits, kExponentBits<T>,
           there.data());
  });
  there.CopyTo({&first, 1});
  return first;
}

void GatherRows(ConstTensor table, std::span<const int32_t> ids, Tensor out) {
  const Values<int32_t> of_rows(out.device, ids);
  if (DTypeBytes(out.dtype) == sizeof(uint16_t)) {
    const View<const uint16_t> from{reinterpret_cast<const uint16_t*>(table.data), table.rows, table.cols, table.stride};
    const View<uint16_t> to{reinterpret_cast<uint16_t*>(out.data), out.rows, out.cols, out.stride};
    return Launch(out.device, CopyRows<uint16_t>, OfRows(out.rows), kThreads, 0, from, of_rows.data(), to);
  }
  Launch(out.device, CopyRows<float>, OfRows(out.rows), kThreads, 0, In<float>(table), of_rows.data(),
         Out<float>(out));
}

}  // namespace mica::cuda
