#include "cli/common_options.h"

#include "base/log.h"
#include "base/threads.h"
#include "cli/option_flags.h"
#include "device/device.h"

namespace mica {

void AddCommonOptions(CLI::App& command, CommonOptions& options) {
  AddFlags(command, CommonOptionTable(), options.given);
}

void ApplyCommonOptions(CommonOptions& options) {
  const auto value = [&](const char* name) {
    return ValueOf(options.given, FindOption(CommonOptionTable(), name));
  };
  Device::Parse(value("device").get<std::string>());
  SetLogLevel(ParseLogLevel(value("log-level")));
  SetThreads(value("threads"));
  options.seed = value("seed");
  options.json = value("json");
}

}  // namespace mica
