// Views that know their type and place, the buffer that grows, and the names of devices.
#include "device/tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <type_traits>

#include "device/array.h"
#include "device/cuda.h"
#include "device/device.h"
#include "device/precision.h"
#include "tests/error_message.h"

namespace mica {
namespace {

TEST(Tensor, ViewsAMatrix) {
  Matrix<float> matrix(4, 5, 1.0f);
  matrix(2, 3) = 7.0f;
  const Tensor all = matrix;
  EXPECT_EQ(all.rows, 4u);
  EXPECT_EQ(all.cols, 5u);
  EXPECT_EQ(all.dtype, DType::kF32);
  EXPECT_EQ(all.device, Device::Cpu());
  const ConstTensor part = all.Rows(1, 2).Cols(2, 3);
  EXPECT_EQ(part.host<float>()(1, 1), 7.0f);
  EXPECT_EQ(part.stride, 5u);
  all.Rows(2, 1).host<float>()(0, 3) = 8.0f;
  EXPECT_EQ(matrix(2, 3), 8.0f);
}

TEST(Tensor, StepsByTheSizeOfItsElements) {
  Matrix<BF16> half(3, 7, BF16{});
  half(2, 5) = BF16{0x4000};
  const ConstTensor part = ConstTensor(half).Rows(2, 1).Cols(5, 1);
  EXPECT_EQ(part.host<BF16>()(0, 0).bits, 0x4000);
  const std::vector<float> row = {1.0f, 2.0f};
  EXPECT_EQ(ConstTensor(row).host<float>()(0, 1), 2.0f);
  EXPECT_TRUE(ConstTensor(std::vector<float>()).empty());
  EXPECT_TRUE(Tensor().empty());
}

TEST(Tensor, ReadOnlyStaysReadOnly) {
  static_assert(std::is_convertible_v<Tensor, ConstTensor>);
  static_assert(!std::is_convertible_v<ConstTensor, Tensor>);
  static_assert(std::is_convertible_v<const Matrix<float>&, ConstTensor>);
  static_assert(!std::is_convertible_v<const Matrix<float>&, Tensor>);
  static_assert(!std::is_convertible_v<MatrixView<const BF16>, Tensor>);
  static_assert(std::is_same_v<decltype(ConstTensor().host<float>()), MatrixView<const float>>);
}

TEST(TensorDeathTest, RefusesAnotherType) {
  Matrix<float> matrix(1, 1, 0.0f);
  EXPECT_DEATH(ConstTensor(matrix).host<BF16>(), "dtype");
}

TEST(Array, TakeMemoryOnlyToGrow) {
  Array buffer(8, 16, DType::kF32);
  const void* memory = buffer.view().data;
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 64, 0u);
  buffer.Resize(16, 16, DType::kBF16);  // as many bytes
  EXPECT_EQ(buffer.view().data, memory);
  EXPECT_EQ(buffer.dtype(), DType::kBF16);
  buffer.Resize(2, 3, DType::kF32);
  EXPECT_EQ(buffer.view().data, memory);
  EXPECT_EQ(buffer.view().stride, 3u);
  buffer.Resize(100, 100, DType::kF32);
  for (size_t i = 0; i < 10000; ++i) buffer.view().host<float>().data[i] = 1.0f;
  EXPECT_EQ(buffer.rows(), 100u);
  EXPECT_EQ(buffer.cols(), 100u);
}

TEST(Device, NamesWhatIsMissing) {
  EXPECT_EQ(Device::Parse("cpu"), Device::Cpu());
  EXPECT_EQ(Device::Parse("auto"), CudaDevices() > 0 ? Device::Cuda() : Device::Cpu());
  EXPECT_EQ(Device::Cpu().Describe(), "cpu");
  EXPECT_EQ(Device::Cuda(2).name(), "cuda:2");
  for (const char* wrong : {"gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", ""})
    EXPECT_EQ(MessageOf([&] { Device::Parse(wrong); }),
              fmt::format("--device is '{}', expected auto, cpu, cuda or cuda:NUMBER", wrong));
  if (CudaDevices() == 0) {
    EXPECT_EQ(MessageOf([] { Device::Parse("cuda"); }),
              fmt::format("--device is 'cuda', but {}; use cpu", CudaAbsence()));
  } else {
    EXPECT_EQ(Device::Parse("cuda"), Device::Cuda());
    EXPECT_EQ(MessageOf([] { Device::Parse("cuda:63"); }),
              fmt::format("--device is 'cuda:63', but this machine has {} CUDA device{}, counted from 0", CudaDevices(),
                          CudaDevices() == 1 ? "" : "s"));
  }
}

TEST(Precision, NamesTheTypeOfOperands) {
  EXPECT_EQ(OperandType(Precision::kFp32), DType::kF32);
  EXPECT_EQ(OperandType(Precision::kBf16), DType::kBF16);
}

}  // namespace
}  // namespace mica
