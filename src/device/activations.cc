#include "device/activations.h"

namespace mica {

Activations::Activations(size_t tokens, size_t cols, Precision precision) { Resize(tokens, cols, precision); }

void Activations::Resize(size_t tokens, size_t cols, Precision precision) {
  precision_ = precision;
  tokens_ = tokens;
  cols_ = cols;
  if (precision == Precision::kFp32) {
    bf16_ = Matrix<BF16>();
    if (fp32_.size() < tokens * cols) Reshape(fp32_, tokens, cols);
  } else {
    fp32_ = Matrix<float>();
    if (bf16_.size() < tokens * cols) Reshape(bf16_, tokens, cols);
  }
}

ActivationView Activations::view() const {
  ActivationView view;
  if (precision_ == Precision::kFp32) {
    view.fp32 = {fp32_.data(), tokens_, cols_};
  } else {
    view.bf16 = {bf16_.data(), tokens_, cols_};
  }
  return view;
}

}  // namespace mica
