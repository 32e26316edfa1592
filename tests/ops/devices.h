// Tests of ops that run on the processor and, where there is one, on a CUDA device.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "device/array.h"
#include "device/cuda.h"
#include "device/device.h"
#include "device/tensor.h"
#include "tests/ops/tensors.h"

namespace mica {

// Parameter: whether it is a CUDA device, without which the test is skipped.
class OnDevices : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam() && CudaDevices() == 0) GTEST_SKIP() << CudaAbsence();
  }
  Device device() const { return GetParam() ? Device::Cuda() : Device::Cpu(); }
};
#define MICA_OVER_DEVICES(suite)                            \
  INSTANTIATE_TEST_SUITE_P(Devices, suite, testing::Bool(), \
                           [](const auto& info) { return std::string(info.param ? "cuda" : "cpu"); })

// A matrix on a device in the midst of a larger one, whose other values are NaN.
class Framed {
 public:
  Framed(Device device, size_t rows, size_t cols, DType dtype, size_t left, size_t right)
      : array_(rows + 2, left + cols + right, dtype, device), left_(left), cols_(cols) {
    const Tensor all = array_.view();
    const size_t bytes = all.rows * all.cols * DTypeBytes(dtype);
    if (device.is_cuda()) {
      FillBytes(device, all.data, 0xFF, bytes);
    } else {
      std::memset(all.data, 0xFF, bytes);
    }
  }
  Framed(Device device, ConstTensor values, size_t left, size_t right)
      : Framed(device, values.rows, values.cols, values.dtype, left, right) {
    Copy(values, view());
  }
  Tensor view() { return array_.view().Rows(1, array_.rows() - 2).Cols(left_, cols_); }
  // Whether every byte outside the matrix is still as it was.
  bool FrameIsWhole() const {
    const Array here = CopyTo(Device::Cpu(), array_.view());
    const ConstTensor all = here.view();
    const size_t value = DTypeBytes(all.dtype);
    for (size_t r = 0; r < all.rows; ++r) {
      for (size_t c = 0; c < all.cols; ++c) {
        if (r > 0 && r + 1 < all.rows && c >= left_ && c < left_ + cols_) continue;
        for (size_t i = 0; i < value; ++i) {
          if (all.data[(r * all.cols + c) * value + i] != std::byte{0xFF}) return false;
        }
      }
    }
    return true;
  }

 private:
  Array array_;
  size_t left_, cols_;
};

// FP32 values on any device, dense.
inline Matrix<float> OnHost(ConstTensor x) {
  Matrix<float> here(x.rows, x.cols);
  Copy(x, here);
  return here;
}

inline bool SameBytes(const Matrix<float>& a, const Matrix<float>& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() &&
         std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// To stand first in a test.
#define MICA_NEEDS_CUDA() \
  if (CudaDevices() == 0) GTEST_SKIP() << CudaAbsence()

inline Array OnCuda(ConstTensor x) { return CopyTo(Device::Cuda(), x); }
// Every value NaN.
inline Array PoisonedOnCuda(size_t rows, size_t cols, DType dtype) {
  return OnCuda(Poisoned(rows, cols, dtype).view());
}
inline std::vector<float> FloatsOf(const Array& x) { return Floats(CopyTo(Device::Cpu(), x.view()).view()); }

}  // namespace mica
