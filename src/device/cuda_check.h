// What every file that calls CUDA needs; included by *_cuda.cu and cuda_*.cc only.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "device/device.h"

namespace mica {

// Throws Error saying what failed, unless `code` is success.
void CheckCuda(cudaError_t code, const char* what);

// The queue of this thread's work on a CUDA device, which becomes the thread's current one.
cudaStream_t StreamOn(Device device);

// Lets a kernel be started with so many bytes of shared memory on a device, by this thread and others.
void AllowSharedMemory(Device device, const void* kernel, size_t bytes);

}  // namespace mica
