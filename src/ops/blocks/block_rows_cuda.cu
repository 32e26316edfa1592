// The arithmetic of rows on a CUDA device: threads (x) of one warp are the lanes of a row, and a block is one warp of
// some rows (y), so that the rows of a matrix are spread over all multiprocessors. What a row works on stays in global
// memory, neighbouring rows side by side, which the first cache holds.
#include "device/cuda_kernel.h"
#include "ops/blocks/block_rows.h"
#include "ops/cuda_ops.h"

namespace mica::cuda {
namespace {

using F = float;
using M = bool;

__device__ inline F Set(float value) { return value; }
__device__ inline F Load(const float* from) { return *from; }
__device__ inline void Store(F a, float* to) { *to = a; }
__device__ inline F Fma(F a, F b, F c) { return fmaf(a, b, c); }
__device__ inline F NegFma(F a, F b, F c) { return fmaf(-a, b, c); }
__device__ inline F Min(F a, F b) { return fminf(a, b); }
__device__ inline F Max(F a, F b) { return fmaxf(a, b); }
__device__ inline F Abs(F a) { return fabsf(a); }
__device__ inline float SquareRoot(float x) { return sqrtf(x); }
__device__ inline F RoundDown(F a) { return floorf(a); }
__device__ inline F RoundToWhole(F a) { return rintf(a); }
__device__ inline M Less(F a, F b) { return a < b; }
__device__ inline M Equal(F a, F b) { return a == b; }
__device__ inline M Or(M a, M b) { return a || b; }
__device__ inline bool Any(M a) { return a; }
__device__ inline F If(M m, F a, F b) { return m ? a : b; }
__device__ inline F LoadByte(const uint8_t* from) { return static_cast<float>(*from); }
__device__ inline void StoreByte(F a, uint8_t* to) { *to = static_cast<uint8_t>(__float2int_rn(a)); }
__device__ inline F LoadShort(const uint16_t* from) { return static_cast<float>(*from); }
__device__ inline void StoreShort(F a, uint16_t* to) { *to = static_cast<uint16_t>(__float2int_rn(a)); }
// The magnitudes of the vector of this number.
__device__ inline void LookUp(const CodebookTables& tables, F index, F* level, int count) {
  const int number = __float2int_rn(index);
  const float* low = tables.low_levels[tables.low_of[number]];
  const float* high = tables.high_levels[tables.run_of[number]];
  for (int i = 0; i < count / 2; ++i) {
    level[i] = low[i];
    level[count / 2 + i] = high[i];
  }
}

__device__ inline float Bounded(float a, float most) { return fminf(fmaxf(a, -most), most); }
__device__ inline F RoundScale(F a, bool bf16) {
  return bf16 ? __bfloat162float(__float2bfloat16_rn(Bounded(a, 3e38f)))
              : __half2float(__float2half_rn(Bounded(a, 65504.0f)));
}
__device__ inline F LoadScale(const uint16_t* from, bool bf16) {
  return bf16 ? __bfloat162float(__ushort_as_bfloat16(*from)) : __half2float(__ushort_as_half(*from));
}
__device__ inline void StoreScale(F a, bool bf16, uint16_t* to) {
  *to = bf16 ? __bfloat16_as_ushort(__float2bfloat16_rn(a)) : __half_as_ushort(__float2half_rn(a));
}
__device__ inline int Lane() { return static_cast<int>(threadIdx.x); }
__device__ inline int Lanes() { return static_cast<int>(blockDim.x); }
// Those of the row.
__device__ inline unsigned LaneMask() { return (kAllLanes >> (kWarp - blockDim.x)) << (threadIdx.y * blockDim.x); }
__device__ inline void SyncLanes() { __syncwarp(LaneMask()); }
__device__ inline F FromLane(F a, int lane) { return __shfl_sync(LaneMask(), a, lane, static_cast<int>(blockDim.x)); }
template <typename... With>
__device__ inline void LeastOfLanes(F* key, F* order, With*... with) {
  for (unsigned reach = 1; reach < blockDim.x; reach *= 2) {
    const F other = __shfl_xor_sync(LaneMask(), *key, reach), place = __shfl_xor_sync(LaneMask(), *order, reach);
    const bool less = other < *key || (other == *key && place < *order);
    const auto take = [&](F* mine) {
      const F its = __shfl_xor_sync(LaneMask(), *mine, reach);
      if (less) *mine = its;
    };
    (take(with), ...);
    if (less) *key = other, *order = place;
  }
}
__device__ inline void AddLoss(F loss, double* to) {
  if (Lane() == 0) *to += loss;
}

#define MICA_ROW __device__ inline
#include "ops/blocks/row_arithmetic.h"
//
#include "ops/blocks/vector_arithmetic.h"
#undef MICA_ROW

template <typename T>
__device__ T* Moved(T* pointer, size_t row) {
  return pointer == nullptr ? nullptr : pointer + row;
}

// What grids are computed with.
enum class RowKind { kUniform, kTable, kVectorsOfFour, kVectorsOfEight };

RowKind KindOf(const RowJob& job) {
  if (job.tables != nullptr) return job.grid.vector_cols == 8 ? RowKind::kVectorsOfEight : RowKind::kVectorsOfFour;
  return job.grid.table ? RowKind::kTable : RowKind::kUniform;
}

// One job or, at `many`, one for each blockIdx.y. A kernel for each kind and stage: together they would take the
// registers and the memory of the hungriest.
template <RowKind kKind, RowStage kStage>
__global__ void __launch_bounds__(kWarp) RunRowsOf(const RowJob one, const RowJob* many) {
  RowJob job = many != nullptr ? many[blockIdx.y] : one;
  const size_t row = blockIdx.x * size_t{blockDim.y} + threadIdx.y;
  if (row >= job.rows) return;
  job.stage = kStage;
  job.w = Moved(job.w, row);
  job.change = Moved(job.change, row);
  job.scratch = Moved(job.scratch, row);
  job.codes = Moved(job.codes, row);
  job.s = Moved(job.s, row);
  job.m = Moved(job.m, row);
  job.d = Moved(job.d, row);
  job.dmin = Moved(job.dmin, row);
  job.vectors = Moved(job.vectors, row);
  job.signs = Moved(job.signs, row);
  job.loss = Moved(job.loss, row);
  if constexpr (kKind == RowKind::kUniform) RunRowWith<false>(job);
  if constexpr (kKind == RowKind::kTable) RunRowWith<true>(job);
  if constexpr (kKind == RowKind::kVectorsOfFour) RunVectorRow<4>(job);
  if constexpr (kKind == RowKind::kVectorsOfEight) RunVectorRow<8>(job);
}

using RowKernel = void (*)(RowJob, const RowJob*);
template <RowKind kKind>
RowKernel KernelOf(RowStage stage) {
  switch (stage) {
    case RowStage::kFit:
      return RunRowsOf<kKind, RowStage::kFit>;
    case RowStage::kRound:
      return RunRowsOf<kKind, RowStage::kRound>;
    case RowStage::kFeed:
      return RunRowsOf<kKind, RowStage::kFeed>;
    case RowStage::kRefine:
      return RunRowsOf<kKind, RowStage::kRefine>;
    case RowStage::kValues:
      return RunRowsOf<kKind, RowStage::kValues>;
    case RowStage::kResidual:
      return RunRowsOf<kKind, RowStage::kResidual>;
  }
  MICA_CHECK(false);
}
RowKernel KernelOf(const RowJob& job) {
  switch (KindOf(job)) {
    case RowKind::kUniform:
      return KernelOf<RowKind::kUniform>(job.stage);
    case RowKind::kTable:
      return KernelOf<RowKind::kTable>(job.stage);
    case RowKind::kVectorsOfFour:
      return KernelOf<RowKind::kVectorsOfFour>(job.stage);
    case RowKind::kVectorsOfEight:
      return KernelOf<RowKind::kVectorsOfEight>(job.stage);
  }
  MICA_CHECK(false);
}

// A matrix of few rows leaves most of the device idle; where rows are many, what lanes do alike is work, of which
// refining has least. The search of a vector of eight has no use for eight lanes. Results do not depend on it.
unsigned LanesOf(const RowJob& job) {
  constexpr unsigned kMost = 16;
  constexpr size_t kThreads = 27648;
  const bool sharing = job.stage == RowStage::kRefine && KindOf(job) != RowKind::kVectorsOfEight;
  unsigned lanes = kMost;
  while (lanes > 1 && job.rows * lanes > (sharing ? 2 * kThreads : kThreads)) lanes /= 2;
  return lanes;
}

}  // namespace

void RunRows(Device device, std::span<const RowJob> jobs) {
  if (jobs.empty()) return;
  const unsigned lanes = LanesOf(jobs.front());
  const dim3 threads(lanes, kWarp / lanes);
  const unsigned blocks = Blocks(jobs.front().rows, threads.y);
  const RowKernel kernel = KernelOf(jobs.front());
  if (jobs.size() == 1) return Launch(device, kernel, blocks, threads, 0, jobs.front(), nullptr);
  const Values<RowJob> there(device, jobs);
  Launch(device, kernel, dim3(blocks, static_cast<unsigned>(jobs.size())), threads, 0, jobs.front(),
         there.data());
}

}  // namespace mica::cuda
