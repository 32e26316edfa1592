// Memory that kernels need beside their tensors. Included by *_cuda.cu only.
#pragma once

#include <cstddef>

#include "device/device.h"

namespace mica::cuda {

enum class Use {
  kMadeInputs,
  kRoundedInputs,
  kNarrowInputs,
  kDecodedRows,
  kProducts,  // packed_product
  kAttentionParts,
  kAttentionTickets,
};
// Memory of the calling thread on a device, at least `bytes` of it, by use; all zeros when it is taken. It
// stays where it is until a call wants more, and is not given back then: a captured graph may have its
// address.
void* ThreadMemory(Device device, Use use, size_t bytes);

}  // namespace mica::cuda
