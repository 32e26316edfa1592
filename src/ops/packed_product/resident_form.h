// How the weights of one linear layer lie in memory while a model runs, and what is done with them there: a
// class for each form, behind one interface.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "device/device.h"
#include "device/tensor.h"

namespace mica {

// Weights [outputs, inputs] on one device. Immutable; call from one thread at a time.
class ResidentForm {
 public:
  virtual ~ResidentForm() = default;
  // "trellis", "levels", "fixed", "plain", "rows".
  virtual const char* name() const = 0;
  virtual size_t outputs() const = 0;
  virtual size_t inputs() const = 0;
  virtual Device device() const = 0;
  // That stay in memory; of these, bytes that a product with one token reads are all.
  virtual size_t bytes() const = 0;

  // y[t, o] = sum_i x[t, i] w[o, i] + bias[o]. x: [tokens, inputs] FP32; bias: [1, outputs] FP32 or empty; y:
  // [tokens, outputs] FP32. A row of y depends neither on the other rows of x nor on the number of threads.
  virtual void Multiply(ConstTensor x, ConstTensor bias, Tensor y) const = 0;
  // out[i] = row ids[i] of the weights, [ids, inputs] FP32; ids in [0, outputs).
  virtual void Rows(std::span<const int32_t> ids, Tensor out) const = 0;
};

}  // namespace mica
