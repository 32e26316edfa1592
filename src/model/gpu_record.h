// What a result says of the GPU that computed it.
#pragma once

#include <optional>

#include "device/device.h"
#include "record/compression.h"

namespace mica {

// Nothing for the processor. Its peak is that of the process so far.
std::optional<GpuRecord> GpuOf(Device device);

}  // namespace mica
