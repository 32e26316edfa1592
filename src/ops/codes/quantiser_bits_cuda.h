// Which quantiser of the trellis each integer of a matrix belongs to. Included by *_cuda.cu only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/array.h"
#include "device/cuda_kernel.h"
#include "device/tensor.h"
#include "format/entropy/entropy_matrix.h"

namespace mica::cuda {

// [rows, cols / 32] of type U32 where n is: bit c % 32 of word (r, c / 32) is the quantiser of n(r, c). n:
// [rows, cols] of type I16. Bits beyond the last column are 0.
Array QuantiserBits(const EntropyFrame& matrix, ConstTensor n);

inline View<const uint32_t> BitsOf(const Array& bits) {
  return {reinterpret_cast<const uint32_t*>(bits.view().data), bits.rows(), bits.cols(), bits.cols()};
}
inline View<const int16_t> IntegersOn(const ConstTensor& n) {
  return {reinterpret_cast<const int16_t*>(n.data), n.rows, n.cols, n.stride};
}

}  // namespace mica::cuda
