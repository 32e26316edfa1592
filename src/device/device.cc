#include "device/device.h"

#include <charconv>

#include "base/error.h"
#include "base/log.h"
#include "device/cuda.h"

namespace mica {

Device Device::Parse(std::string_view name) {
  if (name == "cpu") return Cpu();
  const int devices = CudaDevices();
  if (name == "auto") {
    if (CudaIsBroken()) LogWarningOnce("the GPU is not used: {}", CudaAbsence());
    return devices > 0 ? Cuda() : Cpu();
  }
  constexpr std::string_view kPrefix = "cuda";
  int index = 0;
  bool known = name == kPrefix;
  if (name.starts_with("cuda:")) {
    const char* const end = name.data() + name.size();
    const auto [stop, code] = std::from_chars(name.data() + kPrefix.size() + 1, end, index);
    known = code == std::errc() && stop == end && index >= 0;
  }
  if (!known) Fail("--device is '{}', expected auto, cpu, cuda or cuda:NUMBER", name);
  if (devices == 0) Fail("--device is '{}', but {}; use cpu", name, CudaAbsence());
  if (index >= devices)
    Fail("--device is '{}', but this machine has {} CUDA device{}, counted from 0", name, devices,
         devices == 1 ? "" : "s");
  return Cuda(index);
}

std::string Device::name() const { return is_cuda() ? fmt::format("cuda:{}", index()) : "cpu"; }
std::string Device::Describe() const { return is_cuda() ? PropertiesOf(*this).name : name(); }

}  // namespace mica
