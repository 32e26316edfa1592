#include "device/device.h"

#include "base/error.h"

namespace mica {

Device Device::Parse(std::string_view name) {
  if (name == "cpu" || name == "auto") return Cpu();
  Fail("--device is '{}', but this build computes on '{}' only", name, Cpu().Describe());
}

std::string Device::Describe() const { return "cpu"; }

}  // namespace mica
