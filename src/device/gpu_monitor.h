// How full and how busy a GPU is, as the driver's management library (NVML) tells any program: nothing is
// started on the GPU, and CUDA is not needed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace mica {

struct GpuLoad {
  uint64_t used_bytes = 0, memory_bytes = 0;  // of all programs together
  std::optional<int> busy_percent;            // of the last moments; absent where the GPU does not say
};

class GpuMonitor {
 public:
  // library: where NVML is found.
  explicit GpuMonitor(const char* library = "libnvidia-ml.so.1");
  ~GpuMonitor();
  GpuMonitor(const GpuMonitor&) = delete;
  GpuMonitor& operator=(const GpuMonitor&) = delete;

  // Of the GPU with this PCI address (CudaProperties); nothing where there is no NVML or no such GPU.
  std::optional<GpuLoad> LoadOf(const std::string& bus) const;

 private:
  struct Library;
  std::unique_ptr<Library> library_;  // null where there is none
};

// "34.2 GB of 80.0 GB in use, 97 % busy".
std::string LoadText(const GpuLoad& load);

}  // namespace mica
