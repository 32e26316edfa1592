// Products of a symmetric matrix with a wide one on tensor cores, block of columns by block of columns;
// included by *_cuda.cu only.
//
// Each operand is the sum of a high part of 11 bits and a low one: high times high is taken as TF32, and high
// times low and low times high, for which eight bits are enough, as BF16 in half the time; low times low is
// nothing. To make one product of the latter two, the columns of the matrix and the rows of what it is
// multiplied with are there twice: of the matrix high and low parts, of the other low and high ones, block by
// block, so that any run of blocks is a run of both. Sums have a relative error of 1e-5, as tensor cores cut
// them off.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "device/array.h"
#include "device/cuda_kernel.h"
#include "device/tensor.h"

namespace mica::cuda {

// Where a column of the matrix, or the row that it is multiplied with, has its parts: the high one at `at`,
// those for the other product at `first` and `places` behind it.
struct PartOf {
  uint32_t at, first, places;
};

// What the matrix is multiplied with, in parts.
struct Parts {
  float* high;          // [places, columns]
  __nv_bfloat16* both;  // [2 places, columns]
};

// value = high + low but for 2^-20 of it.
struct Halves {
  float high;
  __nv_bfloat16 low;
  __device__ explicit Halves(float value) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    high = __uint_as_float(bits);
    low = __float2bfloat16_rn(value - high);
  }
};

// Writes the parts of column c of a row that has this place.
__device__ inline void StoreParts(float value, const Parts& to, const PartOf& part, size_t columns,
                                  size_t c) {
  const Halves halves(value);
  to.high[part.at * columns + c] = halves.high;
  to.both[part.first * columns + c] = halves.low;
  to.both[(size_t{part.first} + part.places) * columns + c] = __float2bfloat16_rn(halves.high);
}

class SplitProduct {
 public:
  // h: [n, n] FP32, symmetric; starts: where its blocks of columns begin, rising, and n; blocks: rows of so
  // many blocks are multiplied; columns: of what h is multiplied with. Memory: 8 bytes x (n rows + n
  // columns).
  SplitProduct(ConstTensor h, std::vector<size_t> starts, size_t blocks, size_t columns);

  // What h is multiplied with from now on: [n, columns] FP32.
  void Take(ConstTensor x);
  // out [rows of blocks first .. last - 1, columns] = keep times itself + factor h[these, columns of blocks
  // from .. to - 1] times these rows of what was taken. With keep 0, out is written without being read.
  void Multiply(float factor, size_t first, size_t last, size_t from, size_t to, float keep, Tensor out);

  // For kernels that change what h is multiplied with.
  Parts parts() { return {Out<float>(high_.view()).data, Out<BF16>(both_.view()).data}; }
  PartOf of_block(size_t block) const {  // its first column; the next one follows
    return {static_cast<uint32_t>(places_[block]), static_cast<uint32_t>(2 * places_[block]),
            static_cast<uint32_t>(places_[block + 1] - places_[block])};
  }
  size_t start(size_t block) const { return starts_[block]; }

 private:
  const std::vector<size_t> starts_, places_;  // places: where blocks begin among the parts, and their end
  const Values<PartOf> of_columns_;            // [n]
  Array h_high_, h_both_;                      // [rows, places] and twice as many
  Array high_, both_;                          // [places, columns] and twice as many
};

}  // namespace mica::cuda
