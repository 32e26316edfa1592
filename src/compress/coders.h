// The codings there are.
#pragma once

#include <memory>

#include "compress/coder/coder.h"
#include "compress/settings.h"

namespace mica {

// Keeps the address of config.
std::unique_ptr<StorageTarget> MakeStorageTarget(const CompressionSettings& settings,
                                                 const ModelConfig& config);
std::unique_ptr<Coder> MakeCoder(const CompressionSettings& settings, const ModelConfig& config);

}  // namespace mica
