// The CUDA devices of this machine, without CUDA's headers and libraries: all that computes on them is in a
// library of its own, which is loaded the first time one is asked for (device/cuda_back_end.h).
//
// Work is ordered by threads: what one thread gives a device to do is done in that order, beside what other
// threads give it, as on the processor. A thread that hands results on calls Synchronize first. Memory that
// is freed may still be in use by work of the same thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "device/device.h"

namespace mica {

// How many this program can use, 0 where the build or the machine has none.
int CudaDevices();
// Why CudaDevices() is 0, a clause that says what is missing and how to get it: "this build has no CUDA back
// end (...)".
std::string CudaAbsence();
// Whether CudaDevices() is 0 although the build has a back end and the machine a device.
bool CudaIsBroken();

struct CudaProperties {
  std::string name;
  uint64_t memory_bytes = 0;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  std::string driver;  // the CUDA version that it offers, "13.0"
  std::string bus;     // its PCI address, "0000:3b:00.0", by which other programs know it
};
CudaProperties PropertiesOf(Device device);

// Memory of a device: what others leave of it, what this process has, and the most it had.
struct DeviceMemory {
  uint64_t free_bytes = 0, used_bytes = 0, peak_bytes = 0;
};
DeviceMemory MemoryOf(Device device);
// This process may have so many bytes of the device; 0: as many as there are. Asking for more throws Error.
void LimitDeviceMemory(Device device, uint64_t bytes);

// `bytes` bytes on a CUDA device, aligned to 256. Throws Error where there is no room for them.
void* AllocateOnDevice(Device device, size_t bytes);
void FreeOnDevice(Device device, void* memory, size_t bytes);
// The same in page-locked memory of the host, which copies to and from devices take at full speed. Taking it
// is slow: what is freed is kept for the next who wants so many bytes.
void* AllocatePinned(size_t bytes);
void FreePinned(void* memory, size_t bytes);

// rows runs of `width` bytes, `to_pitch` and `from_pitch` apart. Either may be the processor; a copy to or
// from it is complete on return, another one in the order of the thread's work.
void CopyBytes(Device to_device, void* to, size_t to_pitch, Device from_device, const void* from,
               size_t from_pitch, size_t width, size_t rows);
// `bytes` bytes of pageable memory, such as a mapped file, to a device: through page-locked memory, in pieces
// that all threads copy. May return before the device has them; what is read may go.
void UploadBytes(Device device, void* to, const void* from, size_t bytes);
// `bytes` bytes of a device to pageable memory in the same way; complete on return.
void DownloadBytes(Device device, void* to, const void* from, size_t bytes);
// Sets every byte.
void FillBytes(Device device, void* memory, int value, size_t bytes);
// Waits until what this thread has given the device is done; nothing on the processor.
void Synchronize(Device device);

// What this thread gives the device from here to EndBackground gives way to what other threads give it. Both
// wait for what the thread has given it before. See BackgroundWork (device/background_work.h).
void BeginBackground(Device device);
void EndBackground(Device device);

// What `work` gives the device on this thread, recorded and not done: a graph of the device, which starts all
// of it at once. `work` may neither wait for the device nor copy from or to the processor, and what it reads
// and writes must stay where it is; memory that it takes it must give back. See RecordedWork
// (device/recorded_work.h). Throws Error where it cannot be recorded.
void* RecordWork(Device device, const std::function<void()>& work);
// Does it, in the order of the thread's work.
void ReplayWork(Device device, void* recorded);
void ForgetWork(Device device, void* recorded);

}  // namespace mica
