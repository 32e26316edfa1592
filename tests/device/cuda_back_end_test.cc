#include "device/cuda_back_end.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/temporary_directory.h"

namespace mica {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr const char* kNoDriver = "libno_such_driver.so.1";

// A directory with a file that has the back end's name.
class CudaBackEndTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(MICA_FAKE_DRIVER)) GTEST_SKIP() << MICA_FAKE_DRIVER << " is not on this machine";
  }
  CudaBackEnd Load(const char* driver) const {
    return LoadCudaBackEnd({"/no/such/directory", directory_.path()}, driver);
  }
  fs::path path() const { return directory_.path() / "libmica_cuda.so"; }
  void WriteBroken() const { std::ofstream(path()) << "no library"; }

 private:
  const TemporaryDirectory directory_;
};

void ExpectAbsent(const CudaBackEnd& back_end, bool broken) {
  EXPECT_EQ(back_end.library, nullptr);
  EXPECT_EQ(back_end.broken, broken);
  EXPECT_EQ(back_end.absence.find('\n'), std::string::npos);
}

TEST_F(CudaBackEndTest, ABuildWithout) {
  const CudaBackEnd found = Load(MICA_FAKE_DRIVER);
  ExpectAbsent(found, false);
  EXPECT_THAT(found.absence,
              StartsWith("this build has no CUDA back end (libmica_cuda.so is neither beside"));
}

TEST_F(CudaBackEndTest, AMachineWithoutADriver) {
  WriteBroken();
  const CudaBackEnd found = Load(kNoDriver);
  ExpectAbsent(found, false);
  EXPECT_THAT(found.absence, AllOf(StartsWith("this machine has no NVIDIA driver ("), HasSubstr(kNoDriver)));
  EXPECT_EQ(Load("libm.so.6").absence, "libm.so.6 is no driver of NVIDIA");
}

TEST_F(CudaBackEndTest, AMachineWithoutADevice) {
  WriteBroken();
  const CudaBackEnd found = Load(MICA_FAKE_DRIVER_WITHOUT_DEVICE);
  ExpectAbsent(found, false);
  EXPECT_EQ(found.absence,
            "this machine has no usable CUDA device (error 100: no CUDA-capable device is detected)");
}

TEST_F(CudaBackEndTest, OneThatCannotBeLoaded) {
  WriteBroken();
  const CudaBackEnd found = Load(MICA_FAKE_DRIVER);
  ExpectAbsent(found, true);
  EXPECT_THAT(found.absence, AllOf(StartsWith("the CUDA back end cannot be loaded (" + path().string()),
                                   HasSubstr("build it together with the program")));
}

TEST_F(CudaBackEndTest, OneOfAnotherBuild) {
  fs::copy_file(MICA_FAKE_DRIVER, path());
  const CudaBackEnd found = Load(MICA_FAKE_DRIVER);
  ExpectAbsent(found, true);
  EXPECT_THAT(found.absence,
              StartsWith(path().string() + " is of another build (unknown, the program is " + CudaBuild()));
}

}  // namespace
}  // namespace mica
