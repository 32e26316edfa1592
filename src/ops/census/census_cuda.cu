// Bound by memory: a block of threads a row, or a lane a column and a warp every eighth row of a slice;
// partial sums of slices are added in their order. FP64 where the processor has it: two to four operations a
// value.
#include <algorithm>
#include <vector>

#include "device/cuda_kernel.h"
#include "ops/census/census.h"
#include "ops/cuda_ops.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kSliceRows = 256;       // that one block sums: 32 a thread
constexpr int kHistogramRows = 1024;  // that one block counts: few additions to counts that all blocks share
constexpr int kAtOnce = 8;            // values a thread waits for together

// ---- by row ----

// The sum over a block of threads, in thread 0; a fixed order.
__device__ double SumOfBlock(double value) {
  __shared__ double of_warp[kWarps];
  for (int lane = kWarp / 2; lane > 0; lane /= 2) value += __shfl_xor_sync(kAllLanes, value, lane);
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = value;
  __syncthreads();
  double sum = 0;
  for (int w = 0; w < kWarps; ++w) sum += of_warp[w];
  return sum;
}

__global__ void __launch_bounds__(kThreads) SumRowSquares(View<const float> x, float* squares) {
  const float* row = x.row(blockIdx.x);
  double sum = 0;
#pragma unroll 4
  for (size_t c = threadIdx.x; c < x.cols; c += kThreads) {
    const double value = row[c];
    sum += value * value;
  }
  sum = SumOfBlock(sum);
  if (threadIdx.x == 0) squares[blockIdx.x] = static_cast<float>(sum);
}

// energy[r] = max(mean_c (x_rc factors_c)^2, least), inverse its inverse.
__global__ void __launch_bounds__(kThreads)
    MeasureRows(View<const float> x, const double* factors, double least, double* energy, double* inverse) {
  const float* row = x.row(blockIdx.x);
  double sum = 0;
#pragma unroll 4
  for (size_t c = threadIdx.x; c < x.cols; c += kThreads) {
    const double value = row[c] * factors[c];
    sum += value * value;
  }
  sum = SumOfBlock(sum) / static_cast<double>(x.cols);
  if (threadIdx.x > 0) return;
  if (sum < least) sum = least;  // NaN stays
  energy[blockIdx.x] = sum;
  inverse[blockIdx.x] = 1 / sum;
}

// ---- by column ----

struct Square {
  __device__ double operator()(size_t, size_t, float value) const { return double{value} * value; }
};

struct WeightedSquare {
  const double* weights;  // [rows]
  __device__ double operator()(size_t r, size_t, float value) const { return weights[r] * value * value; }
};

struct RelativeEnergy {
  const double *factors, *inverse;  // [cols], [rows]
  __device__ double operator()(size_t r, size_t c, float value) const {
    const double scaled = value * factors[c];
    return scaled * scaled * inverse[r];
  }
};

// In FP32, as on the processor, where a score beyond its range is infinite.
struct Score {
  const float* importance;  // [rows]
  __device__ double operator()(size_t r, size_t, float value) const {
    return __fmul_rn(__fmul_rn(importance[r], value), value);
  }
};

// partial[slice, c] = sum of term(r, c, x_rc) over the slice's rows. Slices by blockIdx.y.
template <typename Term>
__global__ void __launch_bounds__(kThreads) SumColumns(View<const float> x, Term term, double* partial) {
  __shared__ double sums[kWarps][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const size_t c = blockIdx.x * size_t{kWarp} + lane, first = blockIdx.y * size_t{kSliceRows};
  const size_t end = min(first + kSliceRows, x.rows);
  double sum = 0;
  if (c < x.cols) {
#pragma unroll 8
    for (size_t r = first + warp; r < end; r += kWarps) sum += term(r, c, x.row(r)[c]);
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || c >= x.cols) return;
  for (int w = 1; w < kWarps; ++w) sum += sums[w][lane];
  partial[blockIdx.y * x.cols + c] = sum;
}

constexpr int kAddThreads = 64;  // few columns, many slices: as many blocks as there can be

// sums[c] (from 0, or added to) the partial sums of column c. partial: [slices, cols].
__global__ void __launch_bounds__(kAddThreads)
    AddSlices(const double* partial, size_t slices, size_t cols, bool add, double* sums) {
  const size_t c = blockIdx.x * size_t{kAddThreads} + threadIdx.x;
  if (c >= cols) return;
  double sum = 0;
#pragma unroll 8
  for (size_t s = 0; s < slices; ++s) sum += partial[s * cols + c];
  sums[c] = add ? sums[c] + sum : sum;
}

template <typename Term>
void AddOverRows(ConstTensor x, Term term, bool add, double* sums) {
  const unsigned slices = Blocks(x.rows, kSliceRows);
  const Values<double> partial(x.device, slices * x.cols);
  Launch(x.device, SumColumns<Term>, dim3(Blocks(x.cols, kWarp), slices), kThreads, 0, In<float>(x), term,
         partial.data());
  Launch(x.device, AddSlices, Blocks(x.cols, kAddThreads), kAddThreads, 0, partial.data(), slices, x.cols,
         add, sums);
}

// ---- medians ----

// A block selects the medians of kMedianCols columns, bits of the magnitudes from the top: it counts the
// values that begin as the median does by what comes next. The first digit is the exponent and two bits more;
// what begins with it is, but for strange columns, so little that it fits into shared memory, and memory is
// read twice. Otherwise once a digit.
constexpr int kMedianCols = 16;  // half a cache line: two sectors
constexpr int kMedianThreads = 1024;
constexpr int kMedianParts = kMedianThreads / kMedianCols;  // threads of a column
constexpr int kFirstBits = 10, kNextBits = 7, kDigits = 4;
static_assert(kFirstBits + (kDigits - 1) * kNextBits == 31);
// Shared memory, in words: counts of the first digit, or counts of another one and the values listed; then
// sums over parts of the bins. 96 KB, which every device has that the format is read on.
constexpr int kMedianWords = 96 * 1024 / 4;
constexpr int kPartWords = kMedianParts * kMedianCols;
constexpr int kNextWords = kMedianCols << kNextBits;
constexpr unsigned kListed = (kMedianWords - kPartWords - kNextWords) / kMedianCols;  // values a column
static_assert((kMedianCols << kFirstBits) + kPartWords <= kMedianWords);
constexpr unsigned kNothing = 0xFFFFFFFFu;  // begins no magnitude

__global__ void __launch_bounds__(kMedianThreads) SelectMedians(View<const float> x, float* medians) {
  extern __shared__ unsigned words[];
  unsigned *const counts = words, *const list = words + kNextWords,
                  *const sums = words + kMedianWords - kPartWords;
  // Of each column: the median's first bits, its place among the values that begin so, how many there are,
  // how many are listed.
  __shared__ unsigned begin[kMedianCols], place[kMedianCols], alike[kMedianCols], listed[kMedianCols];
  const int col = threadIdx.x % kMedianCols, part = threadIdx.x / kMedianCols;
  const size_t c = blockIdx.x * size_t{kMedianCols} + col;
  const size_t rows = c < x.cols ? x.rows : 0;
  bool to_list = false, from_list = false;
  int shift = 31;
  for (int digit = 0; digit < kDigits; ++digit) {
    const int bits = digit == 0 ? kFirstBits : kNextBits;
    const unsigned mask = (1u << bits) - 1;
    const int above = shift;
    shift -= bits;
    for (int i = threadIdx.x; i < kMedianCols << bits; i += kMedianThreads) counts[i] = 0;
    if (part == 0) listed[col] = from_list ? listed[col] : 0;
    __syncthreads();
    const unsigned known = digit == 0 ? 0 : begin[col];
    const auto count = [&](unsigned size) {
      if (size == 0 || size >> above != known) return;
      atomicAdd(&counts[(size >> shift & mask) * kMedianCols + col], 1u);
      if (to_list) list[atomicAdd(&listed[col], 1u) * kMedianCols + col] = size;
    };
    if (from_list) {
      for (unsigned i = part; i < listed[col]; i += kMedianParts) count(list[i * kMedianCols + col]);
    } else {
      for (size_t first = part; first < rows; first += kAtOnce * kMedianParts) {
        unsigned sizes[kAtOnce];
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          const size_t r = first + i * kMedianParts;
          sizes[i] = r < rows ? __float_as_uint(x.row(r)[c]) & 0x7FFFFFFFu : 0;  // zeros do not count
        }
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) count(sizes[i]);
      }
    }
    __syncthreads();
    const int each = (1 << bits) / kMedianParts;
    unsigned sum = 0;
    for (int i = 0; i < each; ++i) sum += counts[(part * each + i) * kMedianCols + col];
    sums[part * kMedianCols + col] = sum;
    __syncthreads();
    if (part == 0) {
      if (digit == 0) {
        unsigned all = 0;
        for (int p = 0; p < kMedianParts; ++p) all += sums[p * kMedianCols + col];
        begin[col] = all > 0 ? 0 : kNothing;
        place[col] = all / 2;
        alike[col] = 0;
      }
      if (begin[col] != kNothing) {
        unsigned left = place[col];
        int p = 0;
        while (left >= sums[p * kMedianCols + col]) left -= sums[p++ * kMedianCols + col];
        int bin = p * each;
        while (left >= counts[bin * kMedianCols + col]) left -= counts[bin++ * kMedianCols + col];
        begin[col] = begin[col] << bits | static_cast<unsigned>(bin);
        place[col] = left;
        alike[col] = counts[bin * kMedianCols + col];
      }
    }
    __syncthreads();
    from_list = from_list || to_list;
    to_list = !from_list && __syncthreads_and(alike[col] <= kListed);
  }
  if (part == 0 && c < x.cols) medians[c] = begin[col] == kNothing ? 0.0f : __uint_as_float(begin[col]);
}

// ---- histograms ----

// The bin of a ratio. Values up to four roundings below an edge go above it, since the means they were
// divided by are sums: on the processor the addition of kFirstScoreOctave rounds as coarsely.
__device__ unsigned ScoreBin(double ratio) {
  static_assert(kScoreBinsPerOctave == 4);
  if (!(ratio > 0)) return 0;
  const auto bits = static_cast<unsigned long long>(__double_as_longlong(ratio)) + 4;
  const unsigned long long mantissa = bits & 0xFFFFFFFFFFFFFull;
  const int octave = static_cast<int>(bits >> 52) - 1023;
  // 2^(1/4), 2^(1/2), 2^(3/4) without their leading ones.
  const int quarter =
      (mantissa >= 0x306FE0A31B715ull) + (mantissa >= 0x6A09E667F3BCDull) + (mantissa >= 0xAE89F995AD3ADull);
  const int bin = kScoreBinsPerOctave * (octave - kFirstScoreOctave) + quarter;
  return static_cast<unsigned>(min(max(bin, 0), static_cast<int>(kScoreBins) - 1));
}

// counts[bin] += how many scores over the mean of their column fall there. sums: [cols] of scores.
__global__ void __launch_bounds__(kThreads)
    CountScores(View<const float> x, Score score, const double* sums, unsigned long long* counts) {
  __shared__ unsigned of_warp[kWarps][kScoreBins];
  for (int i = threadIdx.x; i < kWarps * static_cast<int>(kScoreBins); i += kThreads) (&of_warp[0][0])[i] = 0;
  __syncthreads();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const size_t c = blockIdx.x * size_t{kWarp} + lane, first = blockIdx.y * size_t{kHistogramRows};
  const size_t end = min(first + kHistogramRows, x.rows);
  if (c < x.cols) {
    const double mean = sums[c] / static_cast<double>(x.rows), inverse = 1 / mean;
    for (size_t begin = first + warp; begin < end; begin += kAtOnce * kWarps) {
      double scores[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const size_t r = begin + i * kWarps;
        scores[i] = r < end ? score(r, c, x.row(r)[c]) : 0;
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (begin + i * kWarps >= end) break;
        // score / mean, once corrected, so that what is divided exactly stays so.
        const double guess = scores[i] * inverse;
        const double ratio = fma(fma(-guess, mean, scores[i]), inverse, guess);
        atomicAdd(&of_warp[warp][ScoreBin(ratio)], 1u);
      }
    }
  }
  __syncthreads();
  for (int bin = threadIdx.x; bin < static_cast<int>(kScoreBins); bin += kThreads) {
    unsigned count = 0;
    for (int w = 0; w < kWarps; ++w) count += of_warp[w][bin];
    if (count > 0) atomicAdd(&counts[bin], static_cast<unsigned long long>(count));
  }
}

}  // namespace

void AddColumnSquares(ConstTensor x, std::span<const double> row_weights, Tensor sums) {
  MICA_CHECK(sums.dtype == DType::kF64);
  double* const there = reinterpret_cast<double*>(sums.data);
  if (row_weights.empty()) {
    AddOverRows(x, Square{}, true, there);
  } else {
    const Values<double> weights(x.device, row_weights);
    AddOverRows(x, WeightedSquare{weights.data()}, true, there);
  }
}

void RowSquares(ConstTensor x, Tensor squares) {
  Launch(x.device, SumRowSquares, Blocks(x.rows, 1), kThreads, 0, In<float>(x), Out<float>(squares).data);
}

ScaledEnergies MeasureScaled(ConstTensor x, std::span<const double> col_factors, double least) {
  const Values<double> factors(x.device, col_factors), energy(x.device, x.rows), inverse(x.device, x.rows),
      of_cols(x.device, x.cols);
  Launch(x.device, MeasureRows, Blocks(x.rows, 1), kThreads, 0, In<float>(x), factors.data(), least,
         energy.data(), inverse.data());
  AddOverRows(x, RelativeEnergy{factors.data(), inverse.data()}, false, of_cols.data());
  ScaledEnergies energies{std::vector<double>(x.rows), std::vector<double>(x.cols)};
  energy.CopyTo(energies.row);
  of_cols.CopyTo(energies.col);
  return energies;
}

std::vector<float> ColumnMedians(ConstTensor x) {
  const Values<float> there(x.device, x.cols);
  Launch(x.device, SelectMedians, Blocks(x.cols, kMedianCols), kMedianThreads,
         kMedianWords * sizeof(unsigned), In<float>(x), there.data());
  std::vector<float> medians(x.cols);
  there.CopyTo(medians);
  return medians;
}

std::vector<uint64_t> ScoreHistogram(ConstTensor x, std::span<const float> importance) {
  const Values<float> of_rows(x.device, importance);
  const Values<double> sums(x.device, x.cols);
  const Values<unsigned long long> there(x.device, kScoreBins);
  FillBytes(x.device, there.data(), 0, kScoreBins * sizeof(unsigned long long));
  const Score score{of_rows.data()};
  AddOverRows(x, score, false, sums.data());
  Launch(x.device, CountScores, dim3(Blocks(x.cols, kWarp), Blocks(x.rows, kHistogramRows)), kThreads, 0,
         In<float>(x), score, sums.data(), there.data());
  std::vector<unsigned long long> counts(kScoreBins);
  there.CopyTo(counts);
  return {counts.begin(), counts.end()};
}

}  // namespace mica::cuda
