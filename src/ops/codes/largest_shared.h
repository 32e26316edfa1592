// Included by *_cuda.cu only.
#pragma once

#include <cstddef>

#include "device/cuda_kernel.h"

namespace mica::cuda {

// Bytes that the threads of a block can share.
inline size_t LargestSharedBytes(Device device) {
  int bytes = 0;
  CheckCuda(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device.index()),
            "asking for its shared memory");
  return static_cast<size_t>(bytes);
}

}  // namespace mica::cuda
