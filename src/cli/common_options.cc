#include "cli/common_options.h"

#include "base/error.h"
#include "base/log.h"
#include "base/threads.h"
#include "device/cuda.h"
#include "device/device.h"

namespace mica {

FlagTable CommonFlags(CommonOptions& options) { return {CommonOptionTable(), &options.given}; }

void ApplyCommonOptions(CommonOptions& options) {
  const auto value = [&](const char* name) {
    return ValueOf(options.given, FindOption(CommonOptionTable(), name));
  };
  SetLogLevel(ParseLogLevel(value("log-level")));
  options.device = Device::Parse(value("device").get<std::string>());
  if (const Json bytes = value("device-memory"); !bytes.is_null()) {
    if (!options.device.is_cuda())
      Fail("--device-memory is {}, but --device {} is no GPU; leave it out", bytes.get<uint64_t>(),
           options.device.name());
    LimitDeviceMemory(options.device, bytes.get<uint64_t>());
  }
  SetThreads(value("threads"));
  options.seed = value("seed");
  options.json = value("json");
}

}  // namespace mica
