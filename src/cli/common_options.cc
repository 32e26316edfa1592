#include "cli/common_options.h"

#include "base/log.h"
#include "base/threads.h"
#include "device/device.h"

namespace mica {

FlagTable CommonFlags(CommonOptions& options) { return {CommonOptionTable(), &options.given}; }

void ApplyCommonOptions(CommonOptions& options) {
  const auto value = [&](const char* name) {
    return ValueOf(options.given, FindOption(CommonOptionTable(), name));
  };
  options.device = Device::Parse(value("device").get<std::string>());
  SetLogLevel(ParseLogLevel(value("log-level")));
  SetThreads(value("threads"));
  options.seed = value("seed");
  options.json = value("json");
}

}  // namespace mica
