#include "base/error.h"
#include "device/cuda.h"

namespace mica {

int CudaDevices() { return 0; }
std::string CudaAbsence() { return "this build has no CUDA back end (it was made without nvcc, or with MICA_CUDA=OFF)"; }

// There is no such device to call these with.
CudaProperties PropertiesOf(Device) { MICA_CHECK(false); }
DeviceMemory MemoryOf(Device) { MICA_CHECK(false); }
void LimitDeviceMemory(Device, uint64_t) { MICA_CHECK(false); }
void* AllocateOnDevice(Device, size_t) { MICA_CHECK(false); }
void FreeOnDevice(Device, void*, size_t) { MICA_CHECK(false); }
void* AllocatePinned(size_t) { MICA_CHECK(false); }
void FreePinned(void*, size_t) { MICA_CHECK(false); }
void CopyBytes(Device, void*, size_t, Device, const void*, size_t, size_t, size_t) { MICA_CHECK(false); }
void UploadBytes(Device, void*, const void*, size_t) { MICA_CHECK(false); }
void DownloadBytes(Device, void*, const void*, size_t) { MICA_CHECK(false); }
void FillBytes(Device, void*, int, size_t) { MICA_CHECK(false); }
void Synchronize(Device device) { MICA_CHECK(!device.is_cuda()); }

}  // namespace mica
