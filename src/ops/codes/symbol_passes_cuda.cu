// Counts in integers, so that the order of their sums is free; bits in FP64 in a fixed order.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "device/cuda_kernel.h"
#include "ops/codes/quantiser_bits_cuda.h"
#include "ops/codes/symbol_passes.h"
#include "ops/cuda_ops.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
// A key has the quantiser of a weight in its highest bit and |n| in the others.
constexpr unsigned kMostOfKey = 0x7FFF;
static_assert(kMaxInteger <= static_cast<int>(kMostOfKey));

// The integers of a matrix and the quantisers that they belong to.
struct Symbols {
  View<const int16_t> n;
  View<const uint32_t> quantisers;
  __device__ unsigned Key(size_t r, size_t c) const {
    const unsigned magnitude = static_cast<unsigned>(abs(static_cast<int>(__ldg(n.row(r) + c))));
    const unsigned quantiser = __ldg(quantisers.row(r) + c / kWarp) >> (c % kWarp) & 1;
    return quantiser << 15 | min(magnitude, kMostOfKey);
  }
};

constexpr int kSymbols = kMaxMagnitude + 2;  // of a class
constexpr int kCounters = 2 * kEntropyClasses * kSymbols;
constexpr int kCountedRows = 128, kColsOfThread = 4, kCountedCols = kColsOfThread * kThreads;  // of a block
static_assert(sizeof(EntropyCounts::Row) == kSymbols * sizeof(uint64_t));

// RawBits on the device.
__device__ int RawBitsOf(int entropy_class) { return max(0, (entropy_class - kLastPlainClass + 3) >> 2); }

// counts [2, kEntropyClasses, kSymbols] += those of a block of the matrix.
__global__ void __launch_bounds__(kThreads)
    CountSymbols(Symbols symbols, const int16_t* row_class, const int16_t* col_class, int first_class,
                 int last_class, unsigned long long* counts) {
  __shared__ unsigned of_block[kCounters];
  for (int i = static_cast<int>(threadIdx.x); i < kCounters; i += kThreads) of_block[i] = 0;
  __syncthreads();
  const size_t first = static_cast<size_t>(blockIdx.x) * kCountedRows,
               last = min(symbols.n.rows, first + kCountedRows);
  const size_t cols = symbols.n.cols;
  const size_t col = static_cast<size_t>(blockIdx.y) * kCountedCols + threadIdx.x;
  int of_col[kColsOfThread];
#pragma unroll
  for (int i = 0; i < kColsOfThread; ++i)
    of_col[i] = col + i * kThreads < cols ? col_class[col + i * kThreads] : 0;
  for (size_t r = first; r < last; ++r) {
    const int of_row = row_class[r];
    unsigned key[kColsOfThread];
#pragma unroll
    for (int i = 0; i < kColsOfThread; ++i)
      key[i] = col + i * kThreads < cols ? symbols.Key(r, col + i * kThreads) : 0u;
#pragma unroll
    for (int i = 0; i < kColsOfThread; ++i) {
      if (col + i * kThreads >= cols) continue;
      const int k = max(first_class, min(last_class, of_row + of_col[i]));
      const int magnitude = static_cast<int>(key[i] & kMostOfKey);
      const int symbol = magnitude == 0 ? 0 : ((magnitude - 1) >> RawBitsOf(k)) + 1;
      const int table = static_cast<int>(key[i] >> 15) * kEntropyClasses + k;
      atomicAdd(&of_block[table * kSymbols + min(symbol, kSymbols - 1)], 1u);
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kCounters; i += kThreads) {
    if (of_block[i] > 0) atomicAdd(&counts[i], static_cast<unsigned long long>(of_block[i]));
  }
}

// What integers cost: [quantiser][magnitude][class], classes from first - 2 kClassReach to last + 2
// kClassReach side by side, so that the candidates of a weight are neighbours and all weights of small
// magnitude read the same few lines.
struct Rates {
  const float* bits;
  int first, last;  // classes of the tables
  int classes;      // last - first + 1 + 4 * kClassReach
};

__device__ void AddBits(const Rates& rates, unsigned key, int entropy_class,
                        double (&sums)[kClassCandidates]) {
  // Classes further out cost as much as the first or last one, and so do all of their candidates.
  const int lowest =
      max(0, min(rates.last - rates.first + 2 * kClassReach, entropy_class - rates.first + kClassReach));
  const int magnitude = min(static_cast<int>(key & kMostOfKey), EntropyRates::kMagnitudes - 1);
  const int table = static_cast<int>(key >> 15) * EntropyRates::kMagnitudes + magnitude;
  const float* bits = rates.bits + table * rates.classes + lowest;
#pragma unroll
  for (int i = 0; i < kClassCandidates; ++i) sums[i] += static_cast<double>(__ldg(bits + i));
}

// bits [kClassCandidates, rows]; a warp a row.
__global__ void __launch_bounds__(kThreads)
    SumRows(Symbols symbols, const int16_t* row_class, const int16_t* col_class, Rates rates, double* bits) {
  const size_t r = static_cast<size_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (r >= symbols.n.rows) return;
  const int of_row = row_class[r];
  double sums[kClassCandidates] = {};
#pragma unroll 4
  for (size_t c = threadIdx.x % kWarp; c < symbols.n.cols; c += kWarp)
    AddBits(rates, symbols.Key(r, c), of_row + __ldg(col_class + c), sums);
#pragma unroll
  for (int i = 0; i < kClassCandidates; ++i) {
    for (int lane = kWarp / 2; lane > 0; lane /= 2) sums[i] += __shfl_xor_sync(kAllLanes, sums[i], lane);
    if (threadIdx.x % kWarp == 0) bits[i * symbols.n.rows + r] = sums[i];
  }
}

constexpr size_t kSummedRows = 128;  // by one thread

// parts [rows / kSummedRows, kClassCandidates, cols]
__global__ void __launch_bounds__(kThreads) SumColumns(Symbols symbols, const int16_t* row_class,
                                                       const int16_t* col_class, Rates rates, double* parts) {
  const size_t c = static_cast<size_t>(blockIdx.y) * kThreads + threadIdx.x;
  if (c >= symbols.n.cols) return;
  const size_t first = blockIdx.x * kSummedRows, last = min(symbols.n.rows, first + kSummedRows);
  const int of_col = col_class[c];
  double sums[kClassCandidates] = {};
#pragma unroll 4
  for (size_t r = first; r < last; ++r)
    AddBits(rates, symbols.Key(r, c), of_col + __ldg(row_class + r), sums);
#pragma unroll
  for (int i = 0; i < kClassCandidates; ++i)
    parts[(blockIdx.x * static_cast<size_t>(kClassCandidates) + i) * symbols.n.cols + c] = sums[i];
}

// sums[i] of parts [count, values].
__global__ void __launch_bounds__(kThreads)
    AddParts(const double* parts, size_t count, size_t values, double* sums) {
  const size_t i = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= values) return;
  double sum = 0;
  for (size_t part = 0; part < count; ++part) sum += parts[part * values + i];
  sums[i] = sum;
}

class CudaPasses final : public SymbolPasses {
 public:
  CudaPasses(const EntropyFrame& matrix, ConstTensor n)
      : matrix_(matrix),
        device_(n.device),
        bits_(QuantiserBits(matrix, n)),
        symbols_{IntegersOn(n), BitsOf(bits_)} {}

  EntropyCounts Count(int first_class, int last_class) const override {
    MICA_CHECK(first_class >= 0);
    MICA_CHECK(last_class < kEntropyClasses);
    const Classes classes(*this);
    const Values<unsigned long long> found(device_, kCounters);
    FillBytes(device_, found.data(), 0, kCounters * sizeof(unsigned long long));
    Launch(device_, CountSymbols, dim3(Blocks(rows(), kCountedRows), Blocks(cols(), kCountedCols)), kThreads,
           0, symbols_, classes.of_row.data(), classes.of_col.data(), first_class, last_class, found.data());
    std::vector<unsigned long long> on_host(kCounters);
    found.CopyTo(on_host);
    EntropyCounts counts;
    auto from = on_host.begin();
    for (std::vector<EntropyCounts::Row>& of_quantiser : counts.rows) {
      for (EntropyCounts::Row& row : of_quantiser) {
        std::copy_n(from, row.size(), row.begin());
        from += kSymbols;
      }
    }
    return counts;
  }

  Matrix<double> RowBits(const EntropyRates& rates) const override {
    const Classes classes(*this);
    const DeviceRates on_device(device_, rates);
    const Values<double> bits(device_, kClassCandidates * rows());
    Launch(device_, SumRows, Blocks(rows(), kWarps), kThreads, 0, symbols_, classes.of_row.data(),
           classes.of_col.data(), on_device.view(), bits.data());
    return OnHost(bits, rows());
  }

  Matrix<double> ColumnBits(const EntropyRates& rates) const override {
    const Classes classes(*this);
    const DeviceRates on_device(device_, rates);
    const unsigned count = Blocks(rows(), kSummedRows);
    const size_t values = kClassCandidates * cols();
    const Values<double> parts(device_, count * values), bits(device_, values);
    Launch(device_, SumColumns, dim3(count, Blocks(cols(), kThreads)), kThreads, 0, symbols_,
           classes.of_row.data(), classes.of_col.data(), on_device.view(), parts.data());
    Launch(device_, AddParts, Blocks(values, kThreads), kThreads, 0, parts.data(), count, values,
           bits.data());
    return OnHost(bits, cols());
  }

 private:
  // The present ones.
  struct Classes {
    explicit Classes(const CudaPasses& passes)
        : of_row(passes.device_, std::span<const int16_t>(passes.matrix_.row_class)),
          of_col(passes.device_, std::span<const int16_t>(passes.matrix_.col_class)) {}
    const Values<int16_t> of_row, of_col;
  };

  class DeviceRates {
   public:
    DeviceRates(Device device, const EntropyRates& rates)
        : first_(rates.first_class()),
          last_(rates.last_class()),
          bits_(device, std::span<const float>(Arranged(rates))) {}
    Rates view() const { return {bits_.data(), first_, last_, last_ - first_ + 1 + 4 * kClassReach}; }

   private:
    static std::vector<float> Arranged(const EntropyRates& rates) {
      const int first = rates.first_class() - 2 * kClassReach, last = rates.last_class() + 2 * kClassReach;
      const size_t classes = static_cast<size_t>(last - first + 1);
      constexpr size_t kMagnitudes = EntropyRates::kMagnitudes;
      std::vector<float> bits(2 * kMagnitudes * classes);
      for (int quantiser = 0; quantiser < 2; ++quantiser) {
        for (int k = first; k <= last; ++k) {
          const float* from = rates.Bits(quantiser, k);
          float* to = bits.data() + static_cast<size_t>(quantiser) * kMagnitudes * classes +
                      static_cast<size_t>(k - first);
          for (size_t m = 0; m < kMagnitudes; ++m) to[m * classes] = from[m];
        }
      }
      return bits;
    }

    int first_, last_;
    Values<float> bits_;
  };

  static Matrix<double> OnHost(const Values<double>& bits, size_t count) {
    Matrix<double> found(kClassCandidates, count);
    bits.CopyTo(std::span<double>(found.data(), found.size()));
    return found;
  }

  size_t rows() const { return symbols_.n.rows; }
  size_t cols() const { return symbols_.n.cols; }

  const EntropyFrame& matrix_;
  const Device device_;
  const Array bits_;
  const Symbols symbols_;
};

}  // namespace

std::unique_ptr<SymbolPasses> NewSymbolPasses(const EntropyFrame& matrix, ConstTensor n) {
  return std::make_unique<CudaPasses>(matrix, n);
}

}  // namespace mica::cuda
