// What the forms of a CUDA device share: integers in planes of bits, inputs in 8 bits, memory of the thread.
// Included by *_cuda.cu only.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "device/cuda_kernel.h"
#include "ops/packed_product/device_forms.h"
#include "ops/packed_product/resident_form.h"
#include "ops/thread_memory_cuda.h"

namespace mica::cuda {

// Of one launch, whose parameters they are.
inline constexpr size_t kMostProducts = 8;

class CudaForm : public ResidentForm {
 public:
  // From how many tokens on weights are decoded to 16 bits for a product: more than these.
  virtual size_t few_tokens() const { return kFewTokens; }
  // At most few_tokens() tokens; `products` are of forms of this class, at most kMostProducts.
  virtual void MultiplyFew(const ProductInputs& x, std::span<const FormProduct> products) const = 0;
  // Whether MultiplyFew takes products of both.
  virtual bool GoesWith(const CudaForm& other) const = 0;
  // Any number of tokens, without bias; y is overwritten.
  virtual void MultiplyMany(ConstTensor x, Tensor y) const = 0;
  void Multiply(ConstTensor x, ConstTensor bias, Tensor y) const final;
};
// The inputs as values, in memory of the thread where they have to be made.
ConstTensor ValuesOf(const ProductInputs& x);
// x in BF16, in memory of the thread.
Tensor NarrowInputs(ConstTensor x);
// y = x w^T for weights that decode(first, rows) writes, BF16, some thousand rows at a time: rows [first,
// first
// + rows.rows). Both have the same columns; those of a row of the decoded weights may have a few behind them.
template <typename Decode>
void MultiplyDecoded(ConstTensor x, size_t outputs, DType dtype, Tensor y, const Decode& decode);
Tensor DecodedRows(Device device, size_t outputs, size_t cols, DType dtype);
void ProductOf(ConstTensor x, ConstTensor w, Tensor y);

template <typename Decode>
void MultiplyDecoded(ConstTensor x, size_t outputs, DType dtype, Tensor y, const Decode& decode) {
  const Tensor tile = DecodedRows(x.device, outputs, x.cols, dtype);
  for (size_t first = 0; first < outputs; first += tile.rows) {
    const size_t count = std::min(tile.rows, outputs - first);
    decode(first, tile.Rows(0, count));
    ProductOf(x, tile.Rows(0, count), y.Cols(first, count));
  }
}

// Calls launch(ids, first of them) for runs of ids that are parameters of a kernel.
struct RowIds {
  static constexpr size_t kMost = 512;
  int32_t ids[kMost];
};
template <typename Launch>
void ForIds(std::span<const int32_t> ids, size_t rows, const Launch& launch) {
  for (size_t first = 0; first < ids.size(); first += RowIds::kMost) {
    const size_t count = std::min(RowIds::kMost, ids.size() - first);
    RowIds some;
    for (size_t i = 0; i < count; ++i) {
      MICA_CHECK(ids[first + i] >= 0 && static_cast<size_t>(ids[first + i]) < rows);
      some.ids[i] = ids[first + i];
    }
    launch(some, first, count);
  }
}

// -- Integers in planes. A lane of a warp has 32 consecutive columns at a time, a chunk; it takes the bits of
// each plane with one access, and gets eight words of four bytes: byte b of word i is column 4 i + b.
//
//   nibbles  16 bytes a chunk: the low half of byte b of word j is column 4 j + b, the high half column 16 +
//   4 j + b pairs     8 bytes: bits 2 g, 2 g + 1 of byte b of word h are of column 16 h + 4 g + b singles   4
//   bytes: bit i of byte b is of column 4 i + b
//
// Chunks that lie together have their planes one after the other, each with all of them: the lowest bits
// first.
inline constexpr uint32_t kChunk = 32;
__host__ __device__ constexpr bool HasPairs(int width) { return width % 4 == 2 || width % 4 == 3; }
__host__ __device__ constexpr bool HasSingles(int width) { return width % 2 == 1; }
__host__ __device__ constexpr uint32_t ChunkBytes(int width) { return 4 * static_cast<uint32_t>(width); }

struct PlaneBits {
  uint4 low, high;
  uint2 pairs;
  uint32_t single;
};

__device__ __forceinline__ uint4 LoadOnce(const uint4* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}
__device__ __forceinline__ uint32_t LoadOnce(const uint32_t* from) {
  uint32_t v;
  asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(from));
  return v;
}

// Chunk k of `chunks` whose planes begin at `planes`.
template <int kWidth>
__device__ __forceinline__ PlaneBits LoadPlanes(const uint8_t* planes, uint32_t chunks, uint32_t k) {
  PlaneBits bits{};
  const uint8_t* plane = planes;
  if constexpr (kWidth >= 4) {
    bits.low = reinterpret_cast<const uint4*>(plane)[k];
    plane += 16 * chunks;
  }
  if constexpr (kWidth == 8) bits.high = reinterpret_cast<const uint4*>(plane)[k];
  if constexpr (HasPairs(kWidth)) {
    bits.pairs = reinterpret_cast<const uint2*>(plane)[k];
    plane += 8 * chunks;
  }
  if constexpr (HasSingles(kWidth)) bits.single = reinterpret_cast<const uint32_t*>(plane)[k];
  return bits;
}

template <int kShift>
__device__ __forceinline__ uint32_t ShiftedRight(uint32_t word) {
  if constexpr (kShift >= 0) {
    return word >> kShift;
  } else {
    return word << -kShift;
  }
}

// Word kWord of the eight.
template <int kWidth, int kWord>
__device__ __forceinline__ uint32_t WordOf(const PlaneBits& bits) {
  uint32_t word = 0;
  if constexpr (kWidth >= 4) {
    const uint32_t low = kWord % 4 == 0   ? bits.low.x
                         : kWord % 4 == 1 ? bits.low.y
                         : kWord % 4 == 2 ? bits.low.z
                                          : bits.low.w;
    word = ShiftedRight<kWord / 4 * 4>(low) & 0x0F0F0F0Fu;
  }
  if constexpr (kWidth == 8) {
    const uint32_t high = kWord % 4 == 0   ? bits.high.x
                          : kWord % 4 == 1 ? bits.high.y
                          : kWord % 4 == 2 ? bits.high.z
                                           : bits.high.w;
    word |= ShiftedRight<kWord / 4 * 4 - 4>(high) & 0xF0F0F0F0u;
  }
  if constexpr (HasPairs(kWidth)) {
    constexpr int kTo = kWidth >= 4 ? 4 : 0;
    word |=
        ShiftedRight<2 * (kWord % 4) - kTo>(kWord < 4 ? bits.pairs.x : bits.pairs.y) & (0x03030303u << kTo);
  }
  if constexpr (HasSingles(kWidth)) {
    constexpr int kTo = kWidth - 1;
    word |= ShiftedRight<kWord - kTo>(bits.single) & (0x01010101u << kTo);
  }
  return word;
}

template <int kWidth>
__device__ __forceinline__ void Unpack(const PlaneBits& bits, uint32_t (&words)[8]) {
  words[0] = WordOf<kWidth, 0>(bits);
  words[1] = WordOf<kWidth, 1>(bits);
  words[2] = WordOf<kWidth, 2>(bits);
  words[3] = WordOf<kWidth, 3>(bits);
  words[4] = WordOf<kWidth, 4>(bits);
  words[5] = WordOf<kWidth, 5>(bits);
  words[6] = WordOf<kWidth, 6>(bits);
  words[7] = WordOf<kWidth, 7>(bits);
}

// The other way.
template <int kWidth>
__device__ __forceinline__ void StorePlanes(const uint32_t (&words)[8], uint8_t* row, uint32_t chunks,
                                            uint32_t k) {
  uint8_t* plane = row;
  if constexpr (kWidth >= 4) {
    uint32_t low[4];
    for (int j = 0; j < 4; ++j) low[j] = (words[j] & 0x0F0F0F0Fu) | (words[j + 4] & 0x0F0F0F0Fu) << 4;
    reinterpret_cast<uint4*>(plane)[k] = make_uint4(low[0], low[1], low[2], low[3]);
    plane += size_t{16} * chunks;
  }
  if constexpr (kWidth == 8) {
    uint32_t high[4];
    for (int j = 0; j < 4; ++j) high[j] = (words[j] >> 4 & 0x0F0F0F0Fu) | (words[j + 4] & 0xF0F0F0F0u);
    reinterpret_cast<uint4*>(plane)[k] = make_uint4(high[0], high[1], high[2], high[3]);
  }
  if constexpr (HasPairs(kWidth)) {
    constexpr int kFrom = kWidth >= 4 ? 4 : 0;
    uint32_t pairs[2] = {0, 0};
    for (int i = 0; i < 8; ++i) pairs[i / 4] |= (words[i] >> kFrom & 0x03030303u) << 2 * (i % 4);
    reinterpret_cast<uint2*>(plane)[k] = make_uint2(pairs[0], pairs[1]);
    plane += size_t{8} * chunks;
  }
  if constexpr (HasSingles(kWidth)) {
    uint32_t single = 0;
    for (int i = 0; i < 8; ++i) single |= (words[i] >> (kWidth - 1) & 0x01010101u) << i;
    reinterpret_cast<uint32_t*>(plane)[k] = single;
  }
}

// sum += the products of four bytes, those of `codes` from 0 to 255, those of `inputs` signed.
__device__ __forceinline__ int DotUnsigned(uint32_t codes, uint32_t inputs, int sum) {
  int result;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(codes), "r"(inputs), "r"(sum));
  return result;
}
__device__ __forceinline__ int DotSigned(uint32_t codes, uint32_t inputs, int sum) {
  return __dp4a(static_cast<int>(codes), static_cast<int>(inputs), sum);
}

// -- Inputs in two digits of 8 bits: an activation is scale * digit + scale / 254 * rest, the second rounded
// of what the first leaves. To a kernel they are two tokens, 2 t and 2 t + 1, whose sums are added at the
// end. One digit alone moved the next token's distribution by a KL of 1e-3 (docs/experiments.md).
inline constexpr size_t kFewDigits = 8;

// How x becomes the inputs of one matrix; on the device.
struct InputPlan {
  const float* factors;         // [32 chunks] by slot
  const uint32_t* columns;      // [32 chunks] column of x of each slot, ~0: none; null: slot c is column c
  const uint32_t* block_begin;  // [blocks + 1] chunks that share a scale; null: eight each
  uint32_t cols, chunks, blocks;
  // Slots that are in FP32 beside.
  const uint32_t* apart;
  const float* apart_factors;
  uint32_t apart_count;
};
// What a kernel reads of them.
struct RoundedInputs {
  // [tokens, steps, 2, 32] by token, 32 chunks, half of a chunk, chunk: 16 integers each. What is behind the
  // last chunk is not set.
  const uint4* values;
  const int2* heads;   // [tokens, chunks] bits of the scale; sum of the integers
  const float* apart;  // [tokens, apart_count]
  uint32_t steps, chunks, apart_count;
};

// What becomes of the sum of an output: y = sum + bias[row], or y gets `added` times that more.
__device__ __forceinline__ void PutProduct(float sum, const float* bias, size_t row, float added, float* y) {
  const float value = bias == nullptr ? sum : __fadd_rn(sum, bias[row]);
  *y = added == 0.0f ? value : __fmaf_rn(added, value, *y);
}

// Inputs of each plan in memory of the thread, made of x on the way. The kernel lets the next one begin
// before it ends: that one waits for it by WaitForWorkBefore.
void RoundInputs(const ProductInputs& x, std::span<const InputPlan> plans, RoundedInputs* out);

// The products of forms of one class with both digits of x: form.Plan() says how its inputs are made, and
// form.Start<digits>(x, products, inputs) starts the kernel, `digits` at least twice the tokens, for the rows
// of x on its device.
template <typename Form>
void MultiplyDigits(const Form& form, const ProductInputs& x, std::span<const FormProduct> products) {
  std::array<InputPlan, kMostProducts> plans;
  std::array<RoundedInputs, kMostProducts> inputs;
  for (size_t i = 0; i < products.size(); ++i) plans[i] = static_cast<const Form*>(products[i].form)->Plan();
  RoundInputs(x, {plans.data(), products.size()}, inputs.data());
  static_assert(kFewDigits == 8);
  if (x.rows() == 1) {
    form.template Start<2>(x.x, products, inputs.data());
  } else if (x.rows() == 2) {
    form.template Start<4>(x.x, products, inputs.data());
  } else {
    form.template Start<8>(x.x, products, inputs.data());
  }
}

// The integer of slot c.
__device__ __forceinline__ int ValueOf(const RoundedInputs& in, uint32_t token, uint32_t c) {
  const uint32_t k = c / kChunk, within = c % kChunk;
  const int8_t* values = reinterpret_cast<const int8_t*>(in.values + size_t{token} * in.steps * 64);
  return values[((k / 32 * 2 + within / 16) * 32 + k % 32) * 16 + within % 16];
}

}  // namespace mica::cuda
