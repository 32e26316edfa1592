// Radix selection on the bit patterns of scores, which order non-negative floats: three histograms of 11, 11
// and 10 bits, counted in integers.
#include "device/cuda_kernel.h"
#include "ops/feedback/prune_cuda.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBins = 2048;
constexpr int kShifts[] = {21, 10, 0};
constexpr uint32_t kMasks[] = {2047, 2047, 1023};
constexpr size_t kRowsAtOnce = 2048;  // of a column, by a block of threads

struct Threshold {
  uint32_t bits;       // found so far
  uint32_t remaining;  // rank among the scores with these bits; at last, how many of those equal to it go
  uint32_t all;        // whether these are all with these bits
};

// The score of each value, written to scores, and the histogram of its first bits.
struct FirstPass {
  View<const float> w;
  const float *saliency, *row_importance;  // the latter may be null
};

// Adds scores with the bits found so far to the histogram of the next ones. A column a blockIdx.y.
template <bool kFirst>
__global__ void __launch_bounds__(kThreads)
    CountScores(const FirstPass from, View<float> scores, int shift, uint32_t mask, int known,
                const Threshold* found, uint32_t* bins) {
  extern __shared__ uint32_t counts[];
  for (int i = threadIdx.x; i < kBins; i += kThreads) counts[i] = 0;
  __syncthreads();
  const size_t j = blockIdx.y;
  float* score = scores.row(j);
  const size_t first = blockIdx.x * kRowsAtOnce, end = min(first + kRowsAtOnce, scores.cols);
  const uint32_t prefix = kFirst ? 0 : found->bits >> known;
  for (size_t r = first + threadIdx.x; r < end; r += kThreads) {
    if (kFirst) {
      const float value = from.w.row(j)[r];
      float of_value = __fmul_rn(__fmul_rn(value, value), from.saliency[j]);
      if (from.row_importance != nullptr) of_value = __fmul_rn(of_value, from.row_importance[r]);
      score[r] = of_value;
    }
    const uint32_t bits = __float_as_uint(score[r]);
    if (!kFirst && bits >> known != prefix) continue;
    atomicAdd(&counts[(bits >> shift) & mask], 1u);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kBins; i += kThreads) {
    if (counts[i] != 0) atomicAdd(&bins[i], counts[i]);
  }
}

// The bin in which the rank lies; empties the histogram. One block of threads, each kBins / kThreads bins in
// a row.
__global__ void __launch_bounds__(kThreads)
    FindBin(uint32_t* bins, int shift, int known, uint32_t rank, Threshold* found) {
  constexpr int kEach = kBins / kThreads;
  static_assert(kEach == 8);
  extern __shared__ uint32_t of_warp[];  // [kThreads / kWarp] scores
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  auto* const own = reinterpret_cast<uint4*>(bins) + threadIdx.x * 2;
  const uint4 low = own[0], high = own[1];
  const uint32_t counts[kEach] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
  uint32_t bits = 0;
  if (known < 32) {
    bits = found->bits;
    rank = found->remaining;
  }
  uint32_t sum = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) sum += counts[i];
  uint32_t through = sum;  // in bins up to the thread's last
  for (int step = 1; step < kWarp; step *= 2) {
    const uint32_t before = __shfl_up_sync(kAllLanes, through, step);
    if (lane >= step) through += before;
  }
  if (lane == kWarp - 1) of_warp[warp] = through;
  __syncthreads();  // and all have read what was found before
  for (int w = 0; w < warp; ++w) through += of_warp[w];
  uint32_t before = through - sum;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (before < rank && rank <= before + counts[i]) {
      *found = {bits | static_cast<uint32_t>(threadIdx.x * kEach + i) << shift, rank - before,
                rank - before == counts[i] ? 1u : 0u};
    }
    before += counts[i];
  }
  own[0] = own[1] = {0, 0, 0, 0};
}

// ties[j]: a block of threads a column.
__global__ void __launch_bounds__(kThreads)
    CountTies(View<const float> scores, const Threshold* found, uint32_t* ties) {
  if (found->all != 0) return;  // nobody asks
  const uint32_t threshold = found->bits;
  const float* score = scores.row(blockIdx.x);
  uint32_t count = 0;
  for (size_t first = 0; first < scores.cols; first += kThreads) {
    const size_t r = first + threadIdx.x;
    count += __syncthreads_count(r < scores.cols && __float_as_uint(score[r]) == threshold);
  }
  if (threadIdx.x == 0) ties[blockIdx.x] = count;
}

// keep of a column, by a block of threads.
__global__ void __launch_bounds__(kThreads)
    PruneBelow(View<const float> scores, const Threshold* found, const uint32_t* ties, uint8_t* keep) {
  extern __shared__ uint32_t of_warp[];  // [kThreads / kWarp] ties
  const uint32_t threshold = found->bits, remaining = found->remaining;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const float* score = scores.row(blockIdx.x);
  if (found->all != 0) {
    for (size_t r = threadIdx.x; r < scores.cols; r += kThreads)
      keep[blockIdx.x * scores.cols + r] = __float_as_uint(score[r]) > threshold;
    return;
  }
  uint32_t before = 0;  // ties in the columns and rows before
  for (unsigned j = 0; j < blockIdx.x; ++j) before += ties[j];
  for (size_t first = 0; first < scores.cols; first += kThreads) {
    const size_t r = first + threadIdx.x;
    const uint32_t bits = r < scores.cols ? __float_as_uint(score[r]) : ~0u;
    const bool tie = bits == threshold;
    const uint32_t tied = __ballot_sync(kAllLanes, tie);
    if (lane == 0) of_warp[warp] = __popc(tied);
    __syncthreads();
    uint32_t rank = before + __popc(tied & ((1u << lane) - 1));
    for (int w = 0; w < kThreads / kWarp; ++w) {
      if (w < warp) rank += of_warp[w];
      before += of_warp[w];
    }
    if (r < scores.cols)
      keep[blockIdx.x * scores.cols + r] = bits < threshold || (tie && rank < remaining) ? 0 : 1;
    __syncthreads();
  }
}

}  // namespace

SmallestScores::SmallestScores(size_t cols, size_t rows, Device device)
    : scores_(cols, rows, DType::kF32, device),
      bins_(1, kBins, DType::kU32, device),
      ties_(1, cols, DType::kU32, device),
      found_(1, 3, DType::kU32, device) {
  static_assert(sizeof(Threshold) == 3 * sizeof(uint32_t));
  MICA_CHECK(cols * rows <= ~uint32_t{0});
  FillZero(bins_.view());
}

void SmallestScores::Prune(ConstTensor w, const float* saliency, const float* row_importance, uint64_t count,
                           uint8_t* keep) {
  const size_t cols = w.rows, rows = w.cols;
  const Device device = w.device;
  MICA_CHECK(cols <= scores_.rows());
  MICA_CHECK(rows == scores_.cols());
  MICA_CHECK(count <= uint64_t{rows} * cols);
  if (w.empty()) return;
  if (count == 0) return FillBytes(device, keep, 1, rows * cols);
  const View<const float> scores = In<float>(scores_.view().Rows(0, cols));
  uint32_t *bins = reinterpret_cast<uint32_t*>(bins_.view().data),
           *ties = reinterpret_cast<uint32_t*>(ties_.view().data);
  auto* found = reinterpret_cast<Threshold*>(found_.view().data);
  const auto of_columns = static_cast<unsigned>(cols);
  const FirstPass from{In<float>(w), saliency, row_importance};
  int known = 32;
  for (int pass = 0; pass < 3; ++pass) {
    Launch(device, pass == 0 ? CountScores<true> : CountScores<false>,
           dim3(Blocks(rows, kRowsAtOnce), of_columns), kThreads, kBins * sizeof(uint32_t), from,
           Out<float>(scores_.view().Rows(0, cols)), kShifts[pass], kMasks[pass], known, found, bins);
    Launch(device, FindBin, 1, kThreads, kThreads / kWarp * sizeof(uint32_t), bins, kShifts[pass], known,
           static_cast<uint32_t>(count), found);
    known = kShifts[pass];
  }
  Launch(device, CountTies, of_columns, kThreads, 0, scores, found, ties);
  Launch(device, PruneBelow, of_columns, kThreads, kThreads / kWarp * sizeof(uint32_t), scores, found, ties,
         keep);
}

}  // namespace mica::cuda
