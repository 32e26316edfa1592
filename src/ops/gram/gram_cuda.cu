// Sums of products of columns: small ones tile by tile (gram_tiles_cuda.h).
//
// Of many columns a portion's sums fill memory many times over, and cuBLAS is three times as fast: there
// tensor cores sum whole portions (which loses some 4e-6 of a sum of squares), kPendingPortions of them are
// added in FP32, and those in FP64.
#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "device/cuda_kernel.h"
#include "ops/cuda_ops.h"
#include "ops/gram/gram.h"
#include "ops/gram/gram_tiles_cuda.h"
#include "ops/linalg/matrix_product_cuda.h"
#include "ops/tile/dispatch.h"

namespace mica::cuda {
namespace {

using namespace gram;

constexpr size_t kPackTokens = 4 * kPortion;  // tokens that are packed at a time
constexpr size_t kManyCols = 1024;            // from here on cuBLAS multiplies
constexpr size_t kPanel = 20 * kTile;         // about so many rows of the sums a product
constexpr size_t kPendingPortions = 16;
constexpr uint32_t kLargestBits = (127u + 59u) << 23;  // of 2^59, as for the processor
constexpr uint32_t kInfinityBits = 0x7F800000u;

// out[t, k * block_stride + c] = column c of block k of x, times sqrt(weights[t]) where there are weights; 0
// beyond the block. A thread a value; rows by blockIdx.y.
template <typename From, typename To>
__global__ void __launch_bounds__(kThreads)
    PackColumns(View<const From> x, const float* weights, Layout layout, size_t block_stride, View<To> out) {
  const size_t c = blockIdx.x * size_t{kThreads} + threadIdx.x;
  if (c >= out.cols) return;
  const size_t block = c / block_stride, in_block = c % block_stride, from = block * layout.block + in_block;
  const bool valid = in_block < layout.block && from < x.cols;
  for (size_t t = blockIdx.y; t < out.rows; t += gridDim.y) {
    float value = valid ? ToFloat(x.row(t)[from]) : 0.0f;
    if (weights != nullptr) value *= sqrtf(weights[t]);
    out.row(t)[c] = FromFloat<To>(value);
  }
}

constexpr int kSlice = 64;      // tokens that one block of threads looks at
constexpr int kSliceWarps = 8;  // each takes kSlice / kSliceWarps of them
constexpr uint32_t kNone = 0xFFFFFFFFu;

// What is found of values that cannot be summed: [1] the first addition that had any, [cols] values that are
// not finite, [cols] bits of the largest finite magnitude beyond the limit.
struct Findings {
  uint32_t* first;
  uint32_t* not_finite;
  uint32_t* largest;
};

// partial[slice, c] = sum of weights[t] x[t, c] over the slice's tokens. A lane a column, slices by
// blockIdx.y.
template <typename T>
__global__ void __launch_bounds__(kSliceWarps* kWarp)
    SumSlices(View<const T> x, const float* weights, uint32_t addition, double* partial, Findings findings) {
  __shared__ double sums[kSliceWarps][kWarp];
  __shared__ uint32_t bad[kSliceWarps][kWarp], top[kSliceWarps][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const size_t c = blockIdx.x * size_t{kWarp} + lane;
  const size_t first = blockIdx.y * size_t{kSlice} + warp * (kSlice / kSliceWarps);
  double sum = 0;
  uint32_t not_finite = 0, largest = 0;
  if (c < x.cols) {
#pragma unroll
    for (int i = 0; i < kSlice / kSliceWarps; ++i) {
      const size_t t = first + i;
      if (t >= x.rows) continue;
      const float value = ToFloat(x.row(t)[c]), weight = weights == nullptr ? 1.0f : weights[t];
      sum += value * weight;
      const float scaled = weights == nullptr ? value : value * sqrtf(weight);
      const uint32_t bits = __float_as_uint(scaled) & 0x7FFFFFFFu;
      if (bits >= kInfinityBits) {
        ++not_finite;
      } else {
        largest = max(largest, bits);
      }
    }
  }
  sums[warp][lane] = sum;
  bad[warp][lane] = not_finite;
  top[warp][lane] = largest;
  __syncthreads();
  if (warp > 0 || c >= x.cols) return;
  for (int w = 1; w < kSliceWarps; ++w) {
    sum += sums[w][lane];
    not_finite += bad[w][lane];
    largest = max(largest, top[w][lane]);
  }
  partial[blockIdx.y * x.cols + c] = sum;
  if (not_finite == 0 && largest <= kLargestBits) return;
  // Whole numbers: their order does not matter. What an earlier addition has left stays.
  if (*reinterpret_cast<volatile uint32_t*>(findings.first) < addition) return;
  atomicMin(findings.first, addition);
  if (not_finite > 0) atomicAdd(findings.not_finite + c, not_finite);
  if (largest > kLargestBits) atomicMax(findings.largest + c, largest);
}

__global__ void __launch_bounds__(kThreads)
    AddSlices(const double* partial, size_t slices, size_t cols, double* column_sums) {
  const size_t c = blockIdx.x * size_t{kThreads} + threadIdx.x;
  if (c >= cols) return;
  double sum = column_sums[c];
  for (size_t s = 0; s < slices; ++s) sum += partial[s * cols + c];
  column_sums[c] = sum;
}

constexpr int kCopyPitch = kTile + 1;  // keeps columns of the tile in different banks

// One tile of sums, where it belongs and mirrored.
__global__ void __launch_bounds__(kThreads)
    CopyTiles(const double* sums, Layout layout, double factor, View<float> out) {
  extern __shared__ float values[];  // [kTile][kCopyPitch]
  const uint32_t block = blockIdx.x / static_cast<uint32_t>(layout.tiles());
  const Place place = InTriangle(blockIdx.x % static_cast<uint32_t>(layout.tiles()));
  const size_t begin = block * layout.block, first_row = size_t{place.row} * kTile,
               first_col = size_t{place.col} * kTile;
  const size_t width = min(layout.block, layout.cols - begin);
  const double* tile =
      sums + (block * layout.tiles() + size_t{place.row} * (place.row + 1) / 2 + place.col) * (kTile * kTile);
  // A short last block is followed by zeros, its missing tiles are zero.
  for (uint32_t pair = threadIdx.x; pair < kTile * kTile / 2; pair += kThreads) {
    const uint32_t thread = pair % kThreads, m = pair / kThreads / 8, n = pair / kThreads / 2 % 4,
                   half = pair / kThreads % 2;
    const double2 value = reinterpret_cast<const double2*>(tile)[pair];
    float* to = values + RowOf(thread, m, half * 2) * kCopyPitch + ColOf(thread, n, 0);
    to[0] = static_cast<float>(factor * value.x);
    to[1] = static_cast<float>(factor * value.y);
  }
  __syncthreads();
  const bool diagonal = place.row == place.col;
  for (uint32_t index = threadIdx.x; index < kTile * kTile; index += kThreads) {
    const uint32_t r = index / kTile, c = index % kTile;
    // Above the diagonal of a diagonal tile lies the same sum in another order: only what is below counts.
    const float below = diagonal && c > r ? values[c * kCopyPitch + r] : values[r * kCopyPitch + c];
    if (first_row + r < width && first_col + c < layout.block)
      out.row(begin + first_row + r)[first_col + c] = first_col + c < width ? below : 0.0f;
    if (diagonal) continue;
    if (first_col + r < width && first_row + c < layout.block)
      out.row(begin + first_col + r)[first_row + c] =
          first_row + c < width ? values[c * kCopyPitch + r] : 0.0f;
  }
}

// The tile of FP64 sums += its values of `pending`, [cols, cols].
__global__ void __launch_bounds__(kThreads) AddPending(View<const float> pending, double* sums) {
  const Place place = InTriangle(blockIdx.x);
  double* tile = sums + size_t{blockIdx.x} * (kTile * kTile);
  for (uint32_t index = threadIdx.x; index < kTile * kTile; index += kThreads) {
    const uint32_t r = index / kTile, c = index % kTile;
    const size_t row = size_t{place.row} * kTile + r, col = size_t{place.col} * kTile + c;
    if (row < pending.rows && col < pending.cols) tile[OffsetOf(r, c)] += pending.row(row)[col];
  }
}

// out[c] = the sum of the square of channel c.
__global__ void __launch_bounds__(kThreads) CopyDiagonal(const double* sums, Layout layout, double* out) {
  const size_t c = blockIdx.x * size_t{kThreads} + threadIdx.x;
  if (c >= layout.cols) return;
  const size_t block = c / layout.block, in_block = c % layout.block, row = in_block / kTile;
  const auto place = static_cast<uint32_t>(in_block % kTile);
  out[c] =
      sums[(block * layout.tiles() + row * (row + 1) / 2 + row) * (kTile * kTile) + OffsetOf(place, place)];
}

double* Doubles(Array& array) { return reinterpret_cast<double*>(array.view().data); }

std::vector<double> ToHost(const Array& array) {
  std::vector<double> values(array.rows() * array.cols());
  Copy(array.view(), Tensor(reinterpret_cast<std::byte*>(values.data()), array.rows(), array.cols(),
                            array.cols(), DType::kF64, Device::Cpu()));
  return values;
}

class CudaGram : public DeviceGram {
 public:
  CudaGram(size_t cols, size_t block, Device device)
      : device_(device), layout_{cols, block, static_cast<uint32_t>((block + kTile - 1) / kTile)} {
    MICA_CHECK(cols > 0);
    MICA_CHECK(block > 0);
    sums_ = Array(layout_.blocks() * layout_.tiles(), kTile * kTile, DType::kF64, device);
    column_sums_ = Array(1, cols, DType::kF64, device);
    findings_ = Array(1, 1 + 2 * cols, DType::kU32, device);
    FillZero(sums_.view());
    FillZero(column_sums_.view());
    FillZero(findings_.view());
    const uint32_t none = kNone;
    const std::byte* bytes = reinterpret_cast<const std::byte*>(&none);
    Copy(ConstTensor(bytes, 1, 1, 1, DType::kU32, Device::Cpu()), findings_.view().Cols(0, 1));
  }

  void Add(ConstTensor x, std::span<const float> weights) override {
    MICA_CHECK(x.cols == layout_.cols);
    if (x.rows == 0) return;
    Array weights_there;
    const float* of_tokens = nullptr;
    if (!weights.empty()) {
      weights_there = CopyTo(device_, MatrixView<const float>(weights.data(), 1, weights.size()));
      of_tokens = reinterpret_cast<const float*>(weights_there.view().data);
    }
    DispatchOperand(x.dtype, [&](auto type) {
      using T = decltype(type);
      const View<const OnDevice<T>> values = cuda::In<T>(x);
      AddColumns<OnDevice<T>>(values, of_tokens);
      if (x.dtype == DType::kBF16 && of_tokens == nullptr && layout_.blocks() == 1 && x.cols >= kManyCols)
        return MultiplyWhole(x);
      const size_t each = 16 / sizeof(T);
      if (of_tokens == nullptr && Wide(values) && (layout_.blocks() == 1 || layout_.block % each == 0)) {
        Multiply(Operand<OnDevice<T>>{values.data, values.stride, values.cols, layout_.block, values.rows});
        return;
      }
      for (size_t first = 0; first < x.rows; first += kPackTokens) {
        View<const OnDevice<T>> part = values;
        part.data += first * values.stride;
        part.rows = std::min(kPackTokens, x.rows - first);
        const float* of_part = of_tokens == nullptr ? nullptr : of_tokens + first;
        if (of_part == nullptr) {
          PackAndMultiply<T, T>(part, of_part);
        } else {
          PackAndMultiply<T, float>(part, of_part);
        }
      }
    });
  }

  void CopyScaled(double factor, Tensor out) const override {
    MICA_CHECK(out.rows == layout_.cols);
    MICA_CHECK(out.cols == layout_.block);
    Settle();
    Launch(device_, CopyTiles, Blocks(layout_.blocks() * layout_.tiles(), 1), kThreads,
           sizeof(float) * kTile * kCopyPitch, Doubles(sums_), layout_, factor, cuda::Out<float>(out));
  }

  void TakeScaled(double factor, Tensor out) override {
    CopyScaled(factor, out);
    sums_ = Array();
    pending_ = Array();
  }

  double Sum(size_t i, size_t j) const override {
    if (i < j) std::swap(i, j);
    const size_t block = i / layout_.block;
    MICA_CHECK(j / layout_.block == block);
    i %= layout_.block;
    j %= layout_.block;
    const size_t row = i / kTile;
    const size_t tile = block * layout_.tiles() + row * (row + 1) / 2 + j / kTile;
    double sum = 0;
    Settle();
    Copy(sums_.view().Rows(tile, 1).Cols(
             OffsetOf(static_cast<uint32_t>(i % kTile), static_cast<uint32_t>(j % kTile)), 1),
         Tensor(reinterpret_cast<std::byte*>(&sum), 1, 1, 1, DType::kF64, Device::Cpu()));
    return sum;
  }

  std::vector<double> ColumnSums() const override { return ToHost(column_sums_); }

  std::vector<double> Diagonal() const override {
    Array diagonal(1, layout_.cols, DType::kF64, device_);
    Settle();
    Launch(device_, CopyDiagonal, Blocks(layout_.cols, kThreads), kThreads, 0, Doubles(sums_), layout_,
           Doubles(diagonal));
    return ToHost(diagonal);
  }

  Bad Found() const override {
    std::vector<uint32_t> found(findings_.cols());
    const auto read = [&](size_t first, size_t count) {
      Copy(findings_.view().Cols(first, count), Tensor(reinterpret_cast<std::byte*>(found.data() + first), 1,
                                                       count, count, DType::kU32, Device::Cpu()));
    };
    read(0, 1);
    if (found[0] == kNone) return {};
    read(1, 2 * layout_.cols);
    const auto middle = found.begin() + 1 + static_cast<std::ptrdiff_t>(layout_.cols);
    return {tokens_.at(found[0]), {found.begin() + 1, middle}, {middle, found.end()}};
  }

 private:
  // The sums of columns, and values that cannot be summed.
  template <typename T>
  void AddColumns(const View<const T>& x, const float* weights) {
    const size_t slices = (x.rows + kSlice - 1) / kSlice;
    constexpr size_t kMost = 32768;  // slices of one launch
    uint32_t* findings = reinterpret_cast<uint32_t*>(findings_.view().data);
    for (size_t first = 0; first < slices; first += kMost) {
      const size_t count = std::min(kMost, slices - first), token = first * kSlice;
      View<const T> part = x;
      part.data += token * x.stride;
      part.rows = std::min(count * kSlice, x.rows - token);
      Array partial(count, x.cols, DType::kF64, device_);
      Launch(device_, SumSlices<T>, dim3(Blocks(x.cols, kWarp), static_cast<unsigned>(count)),
             kSliceWarps * kWarp, 0, part, weights == nullptr ? nullptr : weights + token,
             static_cast<uint32_t>(tokens_.size()), Doubles(partial),
             Findings{findings, findings + 1, findings + 1 + x.cols});
      Launch(device_, AddSlices, Blocks(x.cols, kThreads), kThreads, 0, Doubles(partial), count, x.cols,
             Doubles(column_sums_));
    }
    tokens_.push_back(x.rows);
  }

  template <typename From, typename To>
  void PackAndMultiply(const View<const OnDevice<From>>& x, const float* weights) {
    const size_t block_stride = size_t{layout_.edge} * kTile, width = layout_.blocks() * block_stride;
    Array packed(x.rows, width, kDTypeOf<To>, device_);
    const View<OnDevice<To>> out = cuda::Out<To>(packed.view());
    const dim3 blocks(Blocks(width, kThreads), static_cast<unsigned>(std::min<size_t>(x.rows, 4096)));
    Launch(device_, PackColumns<OnDevice<From>, OnDevice<To>>, blocks, kThreads, 0, x, weights, layout_,
           block_stride, out);
    Multiply(Operand<OnDevice<To>>{out.data, out.stride, out.cols, block_stride, x.rows});
  }

  template <typename T>
  void Multiply(const Operand<T>& x) {
    Launch(device_, AddTiles<T>, Blocks(layout_.blocks() * layout_.tiles(), 1), kThreads, Panels<T>::kBytes,
           x, layout_, Doubles(sums_));
  }

  // The same of one block of BF16 by cuBLAS.
  void MultiplyWhole(ConstTensor x) {
    const size_t cols = layout_.cols, panels = (cols + kPanel - 1) / kPanel;
    const size_t panel = ((cols + panels - 1) / panels + kTile - 1) / kTile * kTile;
    if (pending_.empty()) pending_ = Array(cols, cols, DType::kF32, device_);
    for (size_t first = 0; first < x.rows; first += kPortion) {
      const ConstTensor part = x.Rows(first, std::min<size_t>(kPortion, x.rows - first));
      for (size_t row = 0; row < cols; row += panel) {
        const size_t rows = std::min(panel, cols - row), width = row + rows;
        ProductOfColumns(part.Cols(row, rows), part.Cols(0, width), pending_portions_ == 0 ? 0.0f : 1.0f,
                         pending_.view().Rows(row, rows).Cols(0, width));
      }
      if (++pending_portions_ == kPendingPortions) Settle();
    }
  }

  void Settle() const {
    if (pending_portions_ == 0) return;
    Launch(device_, AddPending, Blocks(layout_.tiles(), 1), kThreads, 0,
           cuda::In<float>(std::as_const(pending_).view()), Doubles(sums_));
    pending_portions_ = 0;
  }

  Device device_;
  Layout layout_;
  // What is summed: sums_ and, where pending_portions_ > 0, the triangle of pending_, [cols, cols] FP32.
  mutable Array sums_;  // [blocks * tiles of a block, kTile * kTile] FP64, a tile as OffsetOf says
  Array pending_;
  mutable size_t pending_portions_ = 0;
  Array column_sums_;           // [1, cols] FP64
  Array findings_;              // as Findings has it
  std::vector<size_t> tokens_;  // of each addition
};

}  // namespace

std::unique_ptr<DeviceGram> NewDeviceGram(size_t cols, size_t block, Device device) {
  return std::make_unique<CudaGram>(cols, block, device);
}

}  // namespace mica::cuda
