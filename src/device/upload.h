// What a CUDA device gets of values that are not in memory: read into page-locked memory, and from there to the
// device. Part of the CUDA back end.
#pragma once

#include <cstddef>
#include <functional>
#include <span>

#include "device/device.h"

namespace mica {

// Puts bytes [first, first + piece.size()) of something into `piece`; called for many pieces at once.
using ByteSource = std::function<void(size_t first, std::span<std::byte> piece)>;

// `bytes` bytes of `source` to a device, in pieces that all threads read. May return before the device has them; the
// source may go.
void UploadFrom(Device device, void* to, size_t bytes, const ByteSource& source);

}  // namespace mica
