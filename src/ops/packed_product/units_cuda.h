// How a block of threads reads packed weights: in units of eight rows, which a warp takes piece by piece
// through shared memory, so that what is on its way from memory does not depend on registers.
// Included by *_cuda.cu only.
//
//   chunk   32 columns (of one scale group) of a row
//   piece   chunks [8 m, 8 m + 8) of all rows of a unit, in one run of bytes
//   unit    8 rows: the pieces of warp 0 one after the other, then those of warp 1, 2, 3; warp w has the
//           pieces m with m % 4 = w
//
// A lane has a chunk of two rows of a unit, lane / 8 and that + 4, so that each input serves two. The sums of
// chunks k with the same k % 32 are added in their order, and those 32 sums as the lanes of a warp would add
// theirs (WarpSum): bits depend neither on tokens nor on what else is multiplied.
#pragma once

#include "ops/packed_product/forms_cuda.h"

namespace mica::cuda {

inline constexpr int kUnitThreads = 128;
inline constexpr uint32_t kUnitWarps = kUnitThreads / kWarp;
inline constexpr uint32_t kUnitRows = 8, kPieceChunks = 8;
inline constexpr uint32_t kLaneRows = 2, kRowsApart = kUnitRows / kLaneRows;
static_assert(kPieceChunks * kRowsApart == kWarp && kPieceChunks * kUnitWarps == kChunk);
// Pieces that a warp has room for: all but one are on their way while one is multiplied.
inline constexpr uint32_t kPieceSlots = 4;
// Kernels may read so far behind the last piece.
inline constexpr uint32_t kAfterPieces = 64;

__host__ __device__ inline uint32_t PiecesOf(uint32_t chunks) {
  return (chunks + kPieceChunks - 1) / kPieceChunks;
}
// How many pieces of a unit warp w has, and how many come before them in the unit.
__host__ __device__ inline uint32_t PiecesOfWarp(uint32_t pieces, uint32_t w) {
  return (pieces + kUnitWarps - 1 - w) / kUnitWarps;
}
__host__ __device__ inline uint32_t PiecesBefore(uint32_t pieces, uint32_t w) {
  const uint32_t more = pieces % kUnitWarps;
  return pieces / kUnitWarps * w + (w < more ? w : more);
}
__host__ __device__ inline uint32_t ChunksOfPiece(uint32_t chunks, uint32_t m) {
  return chunks - kPieceChunks * m < kPieceChunks ? chunks - kPieceChunks * m : kPieceChunks;
}

// Shared memory as copies name it, found once: what the compiler could find again, it would for each copy.
__device__ __forceinline__ uint32_t SharedAddress(const void* in_shared) {
  uint32_t address;
  asm volatile("{.reg .u64 whole; cvta.to.shared.u64 whole, %1; cvt.u32.u64 %0, whole;}"
               : "=r"(address)
               : "l"(in_shared));
  return address;
}
__device__ __forceinline__ void CopyAside(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
// By the lanes of a warp; bytes: a multiple of 16. Most pieces are below 1536 bytes.
__device__ __forceinline__ void CopyPiece(uint32_t to, const uint8_t* from, uint32_t bytes) {
  const uint32_t first = threadIdx.x % kWarp * 16;
  to += first;
  from += first;
#pragma unroll
  for (uint32_t at = 0; at < 3 * 16 * kWarp; at += 16 * kWarp) {
    if (first + at < bytes) CopyAside(to + at, from + at);
  }
  if (bytes <= 3 * 16 * kWarp) return;
#pragma unroll 1
  for (uint32_t at = 3 * 16 * kWarp; first + at < bytes; at += 16 * kWarp) CopyAside(to + at, from + at);
}
__device__ __forceinline__ void EndCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kStillOut>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kStillOut) : "memory");
}

// Shared memory of a block: [before] [warps, slots, slot_bytes] [kAfterPieces], and room for JoinUnit.
inline size_t UnitSharedBytes(size_t before, size_t slot_bytes, size_t tokens) {
  const size_t slots = kUnitWarps * kPieceSlots * slot_bytes + kAfterPieces;
  return before + std::max(slots, kUnitWarps * kLaneRows * tokens * kWarp * sizeof(float));
}

// The pieces of one warp: fetch(i, slot) starts copying its piece i, multiply(piece) uses the next. Copies
// begin before the work before is done; then all threads of the block call begin(), once, for what else it
// reads of the weights; what is multiplied comes after that work.
template <typename Fetch, typename Begin, typename Multiply>
__device__ __forceinline__ void StreamPieces(uint32_t count, uint8_t* slots, uint32_t slot_bytes,
                                             const Fetch& fetch, const Begin& begin,
                                             const Multiply& multiply) {
  uint8_t* const of_warp = slots + threadIdx.x / kWarp * kPieceSlots * slot_bytes;
  const uint32_t copied_to = SharedAddress(of_warp), end = kPieceSlots * slot_bytes;
#pragma unroll 1
  for (uint32_t i = 0; i < kPieceSlots - 1; ++i) {
    if (i < count) fetch(i, copied_to + i * slot_bytes);
    EndCopies();
  }
  begin();
  WaitForWorkBefore();
  uint32_t slot = 0, free = end - slot_bytes;
#pragma unroll 1
  for (uint32_t i = 0; i < count; ++i) {
    WaitForCopies<kPieceSlots - 2>();
    __syncwarp();  // all lanes' copies are there, and all are done with the slot that is free
    if (i + kPieceSlots - 1 < count) fetch(i + kPieceSlots - 1, copied_to + free);
    EndCopies();
    multiply(of_warp + slot);
    free = slot;
    slot = slot + slot_bytes == end ? 0 : slot + slot_bytes;
  }
}

// The inputs of virtual lane j, whose chunks are k = j, j + 32, ...: what does not change with k.
template <int kTokens>
struct LaneInputs {
  const uint4* values;
  const int2* heads;
  uint32_t token_values, token_heads, last_token;

  __device__ __forceinline__ LaneInputs(const RoundedInputs& in, uint32_t tokens, uint32_t j)
      : values(in.values - j),  // 64 k / 32 + j are 2 k - j
        heads(in.heads),
        token_values(in.steps * 64),
        token_heads(in.chunks),
        last_token(tokens - 1) {}
  // visit(t, u, v, head) for all tokens: of chunk k.
  template <typename Visit>
  __device__ __forceinline__ void ForTokens(uint32_t k, const Visit& visit) const {
#pragma unroll
    for (uint32_t t = 0; t < kTokens; ++t) {
      // Of eight digits the last two may not be there.
      const uint32_t token = kTokens == 8 && t >= 6 ? min(t, last_token) : t;
      const uint4* const of_token = values + size_t{token} * token_values + 2 * k;
      const uint4 u = of_token[0], v = of_token[32];
      const int2 head = (heads + size_t{token} * token_heads)[k];
      visit(t, u, v, head);
    }
  }
};

// sum + the products of a chunk.
__device__ __forceinline__ int DotChunk(const uint32_t (&words)[8], const uint4& u, const uint4& v, int sum) {
  sum = DotUnsigned(words[0], u.x, sum);
  sum = DotUnsigned(words[1], u.y, sum);
  sum = DotUnsigned(words[2], u.z, sum);
  sum = DotUnsigned(words[3], u.w, sum);
  sum = DotUnsigned(words[4], v.x, sum);
  sum = DotUnsigned(words[5], v.y, sum);
  sum = DotUnsigned(words[6], v.z, sum);
  return DotUnsigned(words[7], v.w, sum);
}

// put(row of the unit, token, sum) for each, the two digits of a token together. joined: shared memory that
// no thread uses any more after a barrier.
template <int kTokens, typename Put>
__device__ __forceinline__ void JoinUnit(const float (&sums)[kLaneRows][kTokens], uint32_t tokens,
                                         float* joined, const Put& put) {
  const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  constexpr uint32_t kOfWarp = kLaneRows * kTokens * kWarp;
  __syncthreads();
#pragma unroll
  for (int h = 0; h < static_cast<int>(kLaneRows); ++h) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) joined[warp * kOfWarp + (h * kTokens + t) * kWarp + lane] = sums[h][t];
  }
  __syncthreads();
  const auto sum_of = [&](uint32_t which) {
    const float* const at = joined + which * kWarp + lane;
    float sum = __fadd_rn(__fadd_rn(at[0], at[2 * kOfWarp]), __fadd_rn(at[kOfWarp], at[3 * kOfWarp]));
#pragma unroll
    for (uint32_t d = kPieceChunks / 2; d > 0; d /= 2)
      sum = __fadd_rn(sum, __shfl_xor_sync(kAllLanes, sum, d));
    return sum;
  };
  for (uint32_t q = warp; q < kTokens; q += kUnitWarps) {
    const uint32_t h = q % kLaneRows, t = q / kLaneRows * 2;
    const float sum = __fadd_rn(sum_of(h * kTokens + t), sum_of(h * kTokens + t + 1));
    if (lane % kPieceChunks == 0 && t < tokens) put(h * kRowsApart + lane / kPieceChunks, t / 2, sum);
  }
}

}  // namespace mica::cuda
