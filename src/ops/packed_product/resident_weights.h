// The weights of a linear layer in the form that a running model keeps: as near to the stored bits as
// products can be taken from, never all of them in 16 or 32 bits unless they are stored so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/matrix.h"
#include "device/array.h"
#include "device/device.h"
#include "device/tensor.h"
#include "ops/codes/codes.h"
#include "ops/packed_product/product_inputs.h"
#include "ops/packed_product/resident_form.h"

namespace mica {

// out [count, inputs] FP32 = rows [first, first + count) of weights that lie somewhere else, such as in a
// mapped file. Called by several threads at once.
using RowReader = std::function<void(size_t first, MatrixView<float> out)>;

class ResidentWeights {
 public:
  ResidentWeights() = default;  // none
  explicit ResidentWeights(std::unique_ptr<const ResidentForm> form) : form_(std::move(form)) {}

  // Of a packed matrix, on any device. Throws Error where a stream is damaged. Keeps nothing of `parts`; but
  // values of 16 bits in coding `fixed` on the processor are read for every product: they must live as long.
  static ResidentWeights OfParts(const AnyParts& parts, Device device);
  // Values as they are, F32, BF16 or F16, on any device.
  static ResidentWeights OfValues(Array values);
  // Rows that are decoded again for every product, on the processor: `bytes` of them are stored where `rows`
  // reads.
  static ResidentWeights OfRows(size_t outputs, size_t inputs, size_t bytes, RowReader rows);

  bool empty() const { return form_ == nullptr; }
  size_t outputs() const { return form_->outputs(); }
  size_t inputs() const { return form_->inputs(); }
  size_t bytes() const { return form_->bytes(); }
  const ResidentForm& form() const { return *form_; }
  void Rows(std::span<const int32_t> ids, Tensor out) const { form_->Rows(ids, out); }

 private:
  std::unique_ptr<const ResidentForm> form_;
};

// One of the products that share their inputs.
struct ResidentProduct {
  const ResidentWeights* weights = nullptr;
  ConstTensor bias;  // [1, outputs] FP32 or empty
  Tensor y;          // [tokens, outputs] FP32
  float added = 0;   // 0: y is overwritten; else it gets so many times the product more
};
// y = x w^T + bias for each, or y += added (x w^T + bias). x: on the weights' device; no y is part of it.
void MultiplyResident(const ProductInputs& x, std::span<const ResidentProduct> products);
inline void MultiplyResident(ConstTensor x, std::span<const ResidentProduct> products) {
  MultiplyResident(ProductInputs::Plain(x), products);
}

}  // namespace mica
