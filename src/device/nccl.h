// NCCL, which carries values from GPU to GPU: loaded when a group of GPUs is asked for, so that a machine
// without it lacks nothing else. Part of the CUDA back end.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "device/device.h"

namespace mica {

// A name for a new group, made by its first rank and given to the others. Throws Error where NCCL's library
// (libnccl.so.2) is not to be had, saying where it is looked for.
std::string NcclNewGroup();
// Joins the group of this name, whose ranks all do so, each with a device of its own; for the rest of the
// program. Waits for all.
void* NcclJoin(Device device, const std::string& group, size_t rank, size_t size);
// Bytes on the device, in the order of the thread's work: to[r] goes to rank r, from[r] comes from it.
void NcclExchange(Device device, void* communicator, std::span<const std::span<const std::byte>> to,
                  std::span<const std::span<std::byte>> from);
void NcclBroadcast(Device device, void* communicator, size_t root, std::span<std::byte> bytes);

}  // namespace mica
