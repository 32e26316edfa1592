#include "device/activations.h"

namespace mica {

void Activations::Resize(size_t rows, size_t cols, DType dtype) {
  const size_t bytes = rows * cols * DTypeBytes(dtype);
  if (bytes_.size() < bytes) {
    bytes_ = Matrix<std::byte>();  // never two buffers at once
    bytes_ = Matrix<std::byte>(1, bytes);
  }
  rows_ = rows;
  cols_ = cols;
  dtype_ = dtype;
}

Tensor Activations::view() { return {bytes_.data(), rows_, cols_, cols_, dtype_, Device::Cpu()}; }
ConstTensor Activations::view() const { return {bytes_.data(), rows_, cols_, cols_, dtype_, Device::Cpu()}; }

}  // namespace mica
