// One command done by several processes, a rank each (device/group.h): those that mpirun has started, or one a GPU
// where --device names several.
#pragma once

#include <string_view>
#include <vector>

#include "device/device.h"
#include "device/group.h"

namespace mica {

// Thrown where a command ends without being done here: other processes have done it. Not an error.
struct CommandEnd {
  int code;
};

// The device that this rank computes on, and the others.
struct Ranks {
  Device device;
  const Group* group = &Group::Alone();
  size_t on_host = 1;  // ranks that share this host's processors
};

// Joins the ranks that this process is one of, or starts them: then it waits for their end, and throws CommandEnd
// with their exit code. device: as --device says it: besides what Device::Parse takes, "cuda:0-3", "cuda:0,2" and
// "all". Throws Error where that cannot be, and when the ranks are not of one build and kind of device.
Ranks JoinRanks(std::string_view device);
// What a rank that does not lead does: what the leading one asks of it, until that has ended.
[[noreturn]] void FollowLeader(const Ranks& ranks);
// The end of a process that may be one of several. Called once, whatever it did.
void LeaveRanks(bool well);

}  // namespace mica
