// Flags that every working command takes.
#pragma once

#include <cstdint>

#include "base/json.h"
#include "cli/command.h"
#include "device/device.h"
#include "device/group.h"

namespace mica {

struct CommonOptions {
  // Known once they are applied.
  uint64_t seed = 0;
  bool json = false;  // the result is wanted as JSON
  Device device;
  const Group* group = &Group::Alone();  // the ranks that do it together

  Json given = Json::object();
};

FlagTable CommonFlags(CommonOptions& options);
// Whether a command can be done by several ranks.
enum class SeveralRanks { kNo, kYes };
// Sets threads and log level and fills in the other members; throws Error for a device that this build or
// this machine does not have. Returns on the rank that leads (cli/ranks.h): others do what it asks of them, and
// CommandEnd is thrown.
void ApplyCommonOptions(CommonOptions& options, SeveralRanks several = SeveralRanks::kNo);

}  // namespace mica
