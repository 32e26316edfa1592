// Decoders of a CUDA device against those of the processor.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "device/array.h"
#include "ops/codes/codes.h"
#include "tests/error_message.h"

namespace mica {

// A matrix of T, NaN where nothing is written to it, with columns beside it that nothing may be written to.
template <typename T>
struct Poisoned {
  static constexpr size_t kBeside = 3;
  Poisoned(size_t rows, size_t cols, Device device)
      : host(rows, cols + kBeside, Nan()), array(CopyTo(device, ConstTensor(host.view()))) {}
  static T Nan() {
    T value;
    std::memset(static_cast<void*>(&value), 0xFF, sizeof(value));
    return value;
  }
  Tensor view() { return array.view().Cols(1, array.cols() - kBeside); }
  const Matrix<T>& Read() {
    Copy(array.view(), host.view());
    return host;
  }
  Matrix<T> host;
  Array array;
};

inline float RoundedTo(float, float weight) { return weight; }
inline BF16 RoundedTo(BF16, float weight) { return ToBF16(weight); }
inline F16 RoundedTo(F16, float weight) { return ToF16(weight); }

// Decodes on the processor and on the first CUDA device, which must say the same; false when that is that
// something is damaged.
template <typename T>
bool ExpectSameOnDeviceAs(const std::vector<AnyParts>& parts, size_t first, size_t count) {
  std::vector<Matrix<float>> expected;
  std::vector<Poisoned<T>> on_device;
  for (const AnyParts& of_matrix : parts) {
    const auto [rows, cols] = std::visit([](const auto& p) { return std::pair(p.rows, p.cols); }, of_matrix);
    const size_t given = std::min(count, rows - std::min(rows, first));
    expected.emplace_back(given, cols, NAN);
    on_device.emplace_back(given, cols, Device::Cuda());
  }
  std::vector<RowsOf<AnyParts>> all, on_host;
  for (size_t i = 0; i < parts.size(); ++i) {
    all.push_back({&parts[i], first, on_device[i].view()});
    on_host.push_back({&parts[i], first, expected[i]});
  }
  const std::string message = MessageOf([&] { DecodeMany(on_host); });
  EXPECT_EQ(MessageOf([&] { DecodeMany(all); }), message);
  if (!message.empty()) return false;
  for (size_t i = 0; i < parts.size(); ++i) {
    Matrix<T> want(expected[i].rows(), expected[i].cols() + Poisoned<T>::kBeside, Poisoned<T>::Nan());
    for (size_t r = 0; r < expected[i].rows(); ++r) {
      for (size_t c = 0; c < expected[i].cols(); ++c) want(r, c + 1) = RoundedTo(T(), expected[i](r, c));
    }
    const Matrix<T>& got = on_device[i].Read();
    const bool same = std::memcmp(got.data(), want.data(), want.size() * sizeof(T)) == 0;
    EXPECT_TRUE(same) << "matrix " << i << ", " << DTypeName(kDTypeOf<T>);
  }
  return true;
}

inline bool ExpectSameOnDevice(const std::vector<AnyParts>& parts, size_t first = 0,
                               size_t count = SIZE_MAX) {
  const bool valid = ExpectSameOnDeviceAs<float>(parts, first, count);
  EXPECT_EQ(ExpectSameOnDeviceAs<BF16>(parts, first, count), valid);
  EXPECT_EQ(ExpectSameOnDeviceAs<F16>(parts, first, count), valid);
  return valid;
}
inline bool ExpectSameOnDevice(const AnyParts& parts, size_t first = 0, size_t count = SIZE_MAX) {
  return ExpectSameOnDevice(std::vector<AnyParts>{parts}, first, count);
}

}  // namespace mica
