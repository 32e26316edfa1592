// Forms whose weights lie on a CUDA device and are multiplied there.
//
// Up to kFewTokens tokens are multiplied by the stored integers themselves, all products of a call that share
// their inputs in one kernel; a row of y then depends on its own row of x only. More tokens go through
// weights in 16 bits, some thousand rows at a time, and tensor cores, which add in an order of their own.
// What is needed beside the weights is taken once a thread and kept: a call with shapes that the thread has
// multiplied before takes no memory and waits for nothing, so that it can be captured in a graph of the
// device, which stays valid as long as the thread lives.
#pragma once

#include <memory>
#include <span>

#include "device/array.h"
#include "format/entropy/parts.h"
#include "format/fixed/parts.h"
#include "ops/packed_product/product_inputs.h"
#include "ops/packed_product/resident_form.h"

namespace mica {

inline constexpr size_t kFewTokens = 8;

// Coding `entropy`: "levels", the integers that the states of the trellis give, in 4 to 8 bits as takes least
// memory; what does not fit is listed by row, or by column where it is most of a column. With a_r and b_c the
// steps, y_r = a_r sum_k s_k sum_c q_c level(r, c), where s_k q_c is b_c x_c rounded to 8 bits in blocks of
// 256 columns; columns that are listed have b_c x_c in FP32. Made on the device, which has the integers of
// the matrix in 16 bits meanwhile. Null where levels do not fit into 16 bits or there are more than 65,536
// columns. Throws Error where a stream is damaged.
std::unique_ptr<const ResidentForm> LevelsOnCuda(const EntropyParts& parts, Device device);

// Coding `fixed`: "fixed", codes in their widths, a scale and a zero a row and scale group, and with a mask a
// bit a weight (2:4 and 4:8 the number of each cell, where scale groups have whole ones) and the codes of the
// kept weights only. x is put into the stored order and rounded to 8 bits,
// the columns of a scale group together; columns of width 16 have it in FP32. Throws Error where a code of 16
// bits is not finite.
std::unique_ptr<const ResidentForm> FixedOnCuda(const FixedParts& parts, Device device);

// "plain": F32, BF16 or F16 values on a CUDA device. Inputs are FP32; for more than kFewTokens tokens they
// are rounded to BF16 where the values are BF16.
std::unique_ptr<const ResidentForm> ValuesOnCuda(Array values);

// One of the products that share their inputs.
struct FormProduct {
  const ResidentForm* form = nullptr;  // one of these
  ConstTensor bias;                    // [1, outputs] FP32 or empty
  Tensor y;                            // [tokens, outputs] FP32
  float added = 0;                     // 0: y is overwritten; else it gets so many times the product more
};
// y = x w^T + bias for each, or y += added (x w^T + bias). x: on the weights' device; no y is part of it.
void MultiplyOnCuda(const ProductInputs& x, std::span<const FormProduct> products);

}  // namespace mica
