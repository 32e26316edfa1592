#include "device/cuda_back_end.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "ops/cuda_ops.h"

namespace mica {
namespace {

namespace fs = std::filesystem;

// Whether the program has all that the back end takes from it is seen without a device: loading looks every
// symbol up.
TEST(CudaBackEndTest, IsWhole) {
  const fs::path directory = fs::read_symlink("/proc/self/exe").parent_path();
  if (!fs::exists(directory / "libmica_cuda.so")) GTEST_SKIP() << "this build has no CUDA back end";
  if (!fs::exists(MICA_FAKE_DRIVER)) GTEST_SKIP() << MICA_FAKE_DRIVER << " is not on this machine";
  const CudaBackEnd found = LoadCudaBackEnd({directory}, MICA_FAKE_DRIVER);
  ASSERT_NE(found.library, nullptr) << found.absence;
  const auto* functions = static_cast<const CudaFunctions*>(::dlsym(found.library, kCudaFunctions));
  const auto* ops = static_cast<const CudaOps*>(::dlsym(found.library, kCudaOps));
  ASSERT_NE(functions, nullptr);
  ASSERT_NE(ops, nullptr);
#define MICA_EXPECT(name) EXPECT_NE(functions->name, nullptr) << #name;
  MICA_CUDA_FUNCTIONS(MICA_EXPECT)
#undef MICA_EXPECT
#define MICA_EXPECT(name) EXPECT_NE(ops->name, nullptr) << #name;
  MICA_CUDA_OPS(MICA_EXPECT)
#undef MICA_EXPECT
}

}  // namespace
}  // namespace mica
