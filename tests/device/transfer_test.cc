#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <vector>

#include "device/array.h"
#include "device/cuda.h"

namespace mica {
namespace {

// Pieces of staging memory are 32 MiB: less than one, some and a rest, both ways in turn.
TEST(Transfer, BringsAllBytesBack) {
  if (CudaDevices() == 0) GTEST_SKIP() << CudaAbsence();
  for (const size_t bytes :
       {size_t{1}, size_t{4097}, size_t{32} << 20, (size_t{32} << 20) + 1, size_t{130'000'003}}) {
    std::vector<unsigned char> given(bytes), found(bytes, 0);
    for (size_t i = 0; i < bytes; ++i) given[i] = static_cast<unsigned char>(i * 2654435761u >> 13);
    Array array(1, bytes, DType::kU8, Device::Cuda()), other(1, bytes, DType::kU8, Device::Cuda());
    UploadBytes(Device::Cuda(), array.view().data, given.data(), bytes);
    // Its copies may be under way when the same staging memory takes what comes down.
    UploadBytes(Device::Cuda(), other.view().data, found.data(), bytes);
    DownloadBytes(Device::Cuda(), found.data(), array.view().data, bytes);
    EXPECT_EQ(std::memcmp(found.data(), given.data(), bytes), 0) << bytes;
  }
}

}  // namespace
}  // namespace mica
