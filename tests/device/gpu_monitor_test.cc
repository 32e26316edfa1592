#include "device/gpu_monitor.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace mica {
namespace {

TEST(GpuMonitorTest, TellsMemoryAndLoad) {
  if (!std::filesystem::exists(MICA_FAKE_NVML)) GTEST_SKIP() << MICA_FAKE_NVML << " is not on this machine";
  const GpuMonitor monitor(MICA_FAKE_NVML);
  const std::optional<GpuLoad> load = monitor.LoadOf("0000:3b:00.0");
  ASSERT_TRUE(load);
  EXPECT_EQ(load->used_bytes, 34'200'000'000u);
  EXPECT_EQ(load->memory_bytes, 80'000'000'000u);
  EXPECT_EQ(load->busy_percent, 97);
  EXPECT_EQ(LoadText(*load), "34.2 GB of 80.0 GB in use, 97 % busy");
  const std::optional<GpuLoad> part = monitor.LoadOf("0000:3c:00.0");
  ASSERT_TRUE(part);
  EXPECT_EQ(LoadText(*part), "34.2 GB of 80.0 GB in use");
  EXPECT_FALSE(monitor.LoadOf("0000:ff:00.0"));
}

TEST(GpuMonitorTest, NothingWithoutTheLibrary) {
  EXPECT_FALSE(GpuMonitor("libno_such_library.so").LoadOf("0000:3b:00.0"));
  EXPECT_FALSE(GpuMonitor("libm.so.6").LoadOf("0000:3b:00.0")) << "another library";
}

}  // namespace
}  // namespace mica
