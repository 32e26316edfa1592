// Products of BF16 tiles on tensor cores (compute capability 8.0 and newer), the instructions themselves;
// included by *_cuda.cu only. A lane is g = lane / 4, t = lane % 4 of its warp.
#pragma once

#include <cstdint>
#include <cstring>

#include "device/cuda_kernel.h"

namespace mica::cuda {

// The dynamic shared memory of a block, aligned to 1024 bytes.
__device__ inline unsigned char* SharedMemory() {
  extern __shared__ __align__(1024) unsigned char memory[];
  return memory;
}

// An address in shared memory as the instructions below take it.
__device__ inline uint32_t SharedAddress(const void* memory) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(memory));
}

// Starts a copy of 16 bytes to shared memory; zeros where `valid` is false, and then nothing is read.
__device__ inline void CopyAsync16(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0)
               : "memory");
}
// The same for 8 bytes.
__device__ inline void CopyAsync8(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(from), "r"(valid ? 8 : 0)
               : "memory");
}
// Waits for the copies that this thread has started.
__device__ inline void WaitForCopies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Four 8 x 8 matrices of BF16; lane l gives the address of row l % 8 of matrix l / 8, and receives row g,
// columns 2 t and 2 t + 1 of each.
__device__ inline void LoadMatrices(uint32_t address, uint32_t (&x)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(address)
               : "memory");
}
// The same, and receives column g, rows 2 t and 2 t + 1 of each.
__device__ inline void LoadMatricesTransposed(uint32_t address, uint32_t (&x)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(address)
               : "memory");
}

// c += a b for a [16, 16], b [16, 8] and c [16, 8]. Of this lane are
//   a: rows g, g + 8, g, g + 8, columns 2 t, 2 t, 2 t + 8, 2 t + 8 and the one after each;
//   b0, b1: rows 2 t and 2 t + 8 and the one after each, column g;
//   c: rows g, g, g + 8, g + 8, columns 2 t, 2 t + 1, 2 t, 2 t + 1.
__device__ inline void MultiplyTile(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 2^x to 2 units in the last place; what is below the least normal number is 0.
__device__ inline float PowerOfTwo(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Two values rounded to BF16, the first in the lower half.
__device__ inline uint32_t Pair(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

}  // namespace mica::cuda
