// Flags that every working command takes.
#pragma once

#include <cstdint>

#include "base/json.h"
#include "cli/command.h"
#include "device/device.h"

namespace mica {

struct CommonOptions {
  // Known once they are applied.
  uint64_t seed = 0;
  bool json = false;  // the result is wanted as JSON
  Device device;

  Json given = Json::object();
};

FlagTable CommonFlags(CommonOptions& options);
// Sets threads and log level and fills in the other members; throws Error for a device that this build or
// this machine does not have.
void ApplyCommonOptions(CommonOptions& options);

}  // namespace mica
