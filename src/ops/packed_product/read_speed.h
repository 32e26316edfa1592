// What weights that run are measured against.
#pragma once

#include "device/device.h"

namespace mica {

// Bytes a second that all threads read from memory together, or a CUDA device from its own: the best of
// several passes over a buffer that no cache holds. Takes some .2 s.
double ReadBytesPerSecond(Device device);

}  // namespace mica
