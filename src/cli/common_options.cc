#include "cli/common_options.h"

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/threads.h"
#include "cli/ranks.h"
#include "device/cuda.h"
#include "device/device.h"

namespace mica {

FlagTable CommonFlags(CommonOptions& options) { return {CommonOptionTable(), &options.given}; }

void ApplyCommonOptions(CommonOptions& options, SeveralRanks several) {
  const auto value = [&](const char* name) {
    return ValueOf(options.given, FindOption(CommonOptionTable(), name));
  };
  SetLogLevel(ParseLogLevel(value("log-level")));
  const Ranks ranks = JoinRanks(value("device").get<std::string>());
  options.device = ranks.device;
  options.group = ranks.group;
  if (const Json bytes = value("device-memory"); !bytes.is_null()) {
    if (!options.device.is_cuda())
      Fail("--device-memory is {}, but --device {} is no GPU; leave it out", bytes.get<uint64_t>(),
           options.device.name());
    LimitDeviceMemory(options.device, bytes.get<uint64_t>());
  }
  const int threads = value("threads");
  SetThreads(threads);
  // Ranks of one host share its processors.
  if (threads == 0 && ranks.on_host > 1) SetThreads(std::max(1, Threads() / static_cast<int>(ranks.on_host)));
  if (!ranks.group->leads()) FollowLeader(ranks);
  if (!ranks.group->alone() && several == SeveralRanks::kNo)
    Fail("this command is done by one process on one device; several do run, compress, eval and ablate");
  options.seed = value("seed");
  options.json = value("json");
}

}  // namespace mica
