#include "cli/common_options.h"

#include "base/log.h"
#include "base/threads.h"
#include "device/device.h"

namespace mica {

void AddCommonOptions(CLI::App& command, CommonOptions& options) {
  command.add_option("--threads", options.threads, "Threads; 0 is one per processor")->capture_default_str();
  command.add_option("--seed", options.seed, "Seed of every random choice")->capture_default_str();
  command.add_option("--log-level", options.log_level, "error, warning, info or debug")
      ->capture_default_str();
  command.add_option("--device", options.device, "Where to compute: cpu")->capture_default_str();
  command.add_flag("--json", options.json, "Print the result as JSON on stdout");
}

void ApplyCommonOptions(const CommonOptions& options) {
  Device::Parse(options.device);
  SetLogLevel(ParseLogLevel(options.log_level));
  SetThreads(options.threads);
}

}  // namespace mica
