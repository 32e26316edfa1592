#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "base/units.h"
#include "device/cuda.h"
#include "device/cuda_back_end.h"
#include "device/cuda_check.h"

namespace mica {
namespace {

struct Usage {
  std::atomic<uint64_t> used = 0, peak = 0, limit = 0;
};

constexpr int kMostDevices = 64;
Usage g_usage[kMostDevices];

struct Machine {
  int devices = 0;
  std::string absence;
};

// Looks once; keeps freed memory in each device's pool, where taking it again costs nothing.
const Machine& ThisMachine() {
  static const Machine machine = [] {
    Machine found;
    const cudaError_t code = cudaGetDeviceCount(&found.devices);
    if (code != cudaSuccess) {
      cudaGetLastError();
      found.devices = 0;
      found.absence = fmt::format("this machine has no usable CUDA device ({})", cudaGetErrorString(code));
    } else if (found.devices == 0) {
      found.absence = "this machine has no CUDA device";
    }
    found.devices = std::min(found.devices, kMostDevices);
    for (int i = 0; i < found.devices; ++i) {
      cudaMemPool_t pool;
      CheckCuda(cudaDeviceGetDefaultMemPool(&pool, i), "the memory pool of a CUDA device");
      uint64_t keep = UINT64_MAX;
      CheckCuda(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep),
                "the memory pool of a CUDA device");
    }
    return found;
  }();
  return machine;
}

Usage& UsageOf(Device device) {
  MICA_CHECK(device.is_cuda());
  return g_usage[device.index()];
}

[[noreturn]] void FailMemory(Device device, size_t bytes, uint64_t most) {
  const DeviceMemory memory = cuda::MemoryOf(device);
  const auto text = [](uint64_t count) { return FormatBytes(static_cast<double>(count)); };
  Fail(
      "{}: no room for {} more on the device: {} are in use of {}; use a smaller --activation-memory or "
      "--seqlen, or a device with more memory",
      device.name(), text(bytes), text(memory.used_bytes), text(most));
}

}  // namespace

int cuda::CudaDevices() { return ThisMachine().devices; }
std::string cuda::CudaAbsence() { return ThisMachine().absence; }

void CheckCuda(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  cudaGetLastError();
  Fail("{} failed on the CUDA device: {}", what, cudaGetErrorString(code));
}

namespace {

// Queues whose work goes first, of threads that have ended, by device. They go from thread to thread, and are
// never destroyed, as the driver may be gone when the program ends.
struct IdleQueues {
  std::mutex mutex;
  std::vector<cudaStream_t> of_device[kMostDevices];
};
IdleQueues& Queues() {
  static IdleQueues* const queues = new IdleQueues;
  return *queues;
}

// What a thread gives devices to do. Needs no destruction: other objects of the thread may outlive it.
struct ThreadState {
  int current = -1;    // device
  int background = 0;  // BeginBackground without EndBackground
  cudaStream_t queues[kMostDevices] = {};
};
thread_local ThreadState t_state;

// Returns the queues of a thread that ends.
struct QueueReturner {
  ~QueueReturner() {
    for (int i = 0; i < kMostDevices; ++i) {
      if (t_state.queues[i] == nullptr || cudaStreamSynchronize(t_state.queues[i]) != cudaSuccess) continue;
      const std::lock_guard<std::mutex> lock(Queues().mutex);
      Queues().of_device[i].push_back(t_state.queues[i]);
    }
  }
};

cudaStream_t TakeQueue(int device) {
  {
    const std::lock_guard<std::mutex> lock(Queues().mutex);
    std::vector<cudaStream_t>& idle = Queues().of_device[device];
    if (!idle.empty()) {
      const cudaStream_t queue = idle.back();
      idle.pop_back();
      return queue;
    }
  }
  int least = 0, greatest = 0;
  CheckCuda(cudaDeviceGetStreamPriorityRange(&least, &greatest), "asking for its queues");
  cudaStream_t queue = nullptr;
  CheckCuda(cudaStreamCreateWithPriority(&queue, cudaStreamNonBlocking, greatest), "making a queue");
  return queue;
}

}  // namespace

cudaStream_t StreamOn(Device device) {
  MICA_CHECK(device.is_cuda());
  if (t_state.current != device.index()) {
    CheckCuda(cudaSetDevice(device.index()), "choosing the device");
    t_state.current = device.index();
  }
  if (t_state.background > 0) return cudaStreamPerThread;  // of the least priority
  cudaStream_t& queue = t_state.queues[device.index()];
  if (queue == nullptr) {
    thread_local QueueReturner returner;
    queue = TakeQueue(device.index());
  }
  return queue;
}

void AllowSharedMemory(Device device, const void* kernel, size_t bytes) {
  constexpr size_t kAlwaysAllowed = 48 * 1024;
  if (bytes <= kAlwaysAllowed) return;
  StreamOn(device);
  // What is allowed is only raised: another thread may be about to start the kernel with more.
  static std::mutex mutex;
  static auto* const allowed = new std::map<std::pair<const void*, int>, size_t>;
  const std::lock_guard<std::mutex> lock(mutex);
  size_t& most = (*allowed)[{kernel, device.index()}];
  if (bytes <= most) return;
  CheckCuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
            "asking for shared memory");
  most = bytes;
}

void cuda::BeginBackground(Device device) {
  cuda::Synchronize(device);
  ++t_state.background;
}

void cuda::EndBackground(Device device) {
  cudaStreamSynchronize(StreamOn(device));  // in a destructor: a failure has been reported, or will be
  --t_state.background;
}

CudaProperties cuda::PropertiesOf(Device device) {
  MICA_CHECK(device.is_cuda());
  cudaDeviceProp of_device;
  CheckCuda(cudaGetDeviceProperties(&of_device, device.index()), "asking for its properties");
  int driver = 0;
  CheckCuda(cudaDriverGetVersion(&driver), "asking for the driver's version");
  CudaProperties properties;
  properties.name = of_device.name;
  properties.memory_bytes = of_device.totalGlobalMem;
  properties.major = of_device.major;
  properties.minor = of_device.minor;
  properties.multiprocessors = of_device.multiProcessorCount;
  properties.driver = fmt::format("{}.{}", driver / 1000, driver % 1000 / 10);
  char bus[32] = "";
  CheckCuda(cudaDeviceGetPCIBusId(bus, sizeof bus, device.index()), "asking for its place");
  properties.bus = bus;
  return properties;
}

DeviceMemory cuda::MemoryOf(Device device) {
  StreamOn(device);
  size_t free = 0, total = 0;
  CheckCuda(cudaMemGetInfo(&free, &total), "asking for its memory");
  const Usage& usage = UsageOf(device);
  // What this process has given back stays in its pool.
  uint64_t reserved = 0;
  cudaMemPool_t pool;
  CheckCuda(cudaDeviceGetDefaultMemPool(&pool, device.index()), "asking for its memory");
  CheckCuda(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved),
            "asking for its memory");
  DeviceMemory memory{free, usage.used, usage.peak};
  memory.free_bytes += reserved - std::min(reserved, memory.used_bytes);
  if (usage.limit > 0) {
    memory.free_bytes = std::min(
        memory.free_bytes, usage.limit > memory.used_bytes ? usage.limit - memory.used_bytes : uint64_t{0});
  }
  return memory;
}

void cuda::LimitDeviceMemory(Device device, uint64_t bytes) { UsageOf(device).limit = bytes; }

void* cuda::AllocateOnDevice(Device device, size_t bytes) {
  Usage& usage = UsageOf(device);
  const cudaStream_t stream = StreamOn(device);
  const uint64_t used = usage.used.fetch_add(bytes) + bytes, limit = usage.limit;
  void* memory = nullptr;
  if (limit > 0 && used > limit) {
    usage.used -= bytes;
    FailMemory(device, bytes, limit);
  }
  if (const cudaError_t code = cudaMallocAsync(&memory, std::max<size_t>(bytes, 1), stream);
      code != cudaSuccess) {
    usage.used -= bytes;
    if (code != cudaErrorMemoryAllocation) CheckCuda(code, "taking memory");
    cudaGetLastError();
    FailMemory(device, bytes, cuda::PropertiesOf(device).memory_bytes);
  }
  uint64_t peak = usage.peak;
  while (used > peak && !usage.peak.compare_exchange_weak(peak, used)) {
  }
  return memory;
}

void cuda::FreeOnDevice(Device device, void* memory, size_t bytes) {
  if (memory == nullptr) return;
  cudaFreeAsync(memory, StreamOn(device));  // in a destructor: a failure before it has been reported
  UsageOf(device).used -= bytes;
}

namespace {

// Page-locked memory that nobody uses, by its size.
struct IdlePinned {
  std::mutex mutex;
  std::multimap<size_t, void*> memory;
};
IdlePinned& Idle() {
  static IdlePinned* const idle = new IdlePinned;  // arrays may outlive what is static
  return *idle;
}

}  // namespace

void* cuda::AllocatePinned(size_t bytes) {
  {
    const std::lock_guard<std::mutex> lock(Idle().mutex);
    if (const auto found = Idle().memory.find(bytes); found != Idle().memory.end())
      return Idle().memory.extract(found).mapped();
  }
  void* memory = nullptr;
  CheckCuda(cudaMallocHost(&memory, std::max<size_t>(bytes, 1)), "taking page-locked memory of the host");
  return memory;
}

void cuda::FreePinned(void* memory, size_t bytes) {
  const std::lock_guard<std::mutex> lock(Idle().mutex);
  Idle().memory.emplace(bytes, memory);
}

void cuda::CopyBytes(Device to_device, void* to, size_t to_pitch, Device from_device, const void* from,
                     size_t from_pitch, size_t width, size_t rows) {
  if (width == 0 || rows == 0) return;
  const cudaStream_t stream = StreamOn(to_device.is_cuda() ? to_device : from_device);
  if ((to_pitch == width && from_pitch == width) || rows == 1) {
    CheckCuda(cudaMemcpyAsync(to, from, width * rows, cudaMemcpyDefault, stream), "a copy");
  } else {
    CheckCuda(cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, rows, cudaMemcpyDefault, stream),
              "a copy");
  }
  if (!to_device.is_cuda() || !from_device.is_cuda()) CheckCuda(cudaStreamSynchronize(stream), "a copy");
}

namespace {

// Page-locked memory between a device and pageable memory, in two halves of kPiece bytes: the host fills or
// empties one while the other is copied.
class Staging {
 public:
  static constexpr size_t kPiece = size_t{32} << 20;

  Staging() : memory_(static_cast<std::byte*>(cuda::AllocatePinned(2 * kPiece))) {
    for (cudaEvent_t& event : copied_)
      CheckCuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
  }

  void Upload(Device device, std::byte* to, size_t bytes, const ByteSource& source) {
    const cudaStream_t stream = StreamOn(device);
    for (size_t done = 0, half = 0; done < bytes; done += kPiece, half ^= 1) {
      const size_t count = std::min(kPiece, bytes - done);
      std::byte* const piece = memory_ + half * kPiece;
      CheckCuda(cudaEventSynchronize(copied_[half]), "waiting for a copy");
      InParts(count, [&](size_t first, size_t part) { source(done + first, {piece + first, part}); });
      CheckCuda(cudaMemcpyAsync(to + done, piece, count, cudaMemcpyHostToDevice, stream), "a copy");
      CheckCuda(cudaEventRecord(copied_[half], stream), "marking a copy");
    }
  }

  void Download(Device device, std::byte* to, const std::byte* from, size_t bytes) {
    const cudaStream_t stream = StreamOn(device);
    // Another thread's work may still read them.
    for (const cudaEvent_t event : copied_) CheckCuda(cudaEventSynchronize(event), "waiting for a copy");
    const auto count = [&](size_t begin) { return std::min(kPiece, bytes - begin); };
    const auto start = [&](size_t begin, size_t half) {
      if (begin >= bytes) return;
      CheckCuda(cudaMemcpyAsync(memory_ + half * kPiece, from + begin, count(begin), cudaMemcpyDeviceToHost,
                                stream),
                "a copy");
      CheckCuda(cudaEventRecord(copied_[half], stream), "marking a copy");
    };
    start(0, 0);
    for (size_t done = 0, half = 0; done < bytes; done += kPiece, half ^= 1) {
      start(done + kPiece, half ^ 1);
      CheckCuda(cudaEventSynchronize(copied_[half]), "waiting for a copy");
      InParts(count(done), [&](size_t first, size_t part) {
        std::memcpy(to + done + first, memory_ + half * kPiece + first, part);
      });
    }
  }

 private:
  // Calls work(first, count) for parts of `bytes` bytes, on all threads.
  template <typename Work>
  static void InParts(size_t bytes, const Work& work) {
    constexpr size_t kPart = size_t{1} << 20;
    ParallelFor((bytes + kPart - 1) / kPart, [&](size_t part) {
      const size_t first = part * kPart;
      work(first, std::min(kPart, bytes - first));
    });
  }

  std::byte* memory_;  // never freed: the process may end before its threads
  cudaEvent_t copied_[2];
};

// Calls use(staging) with one of the device's that no other thread uses.
template <typename Use>
void WithStaging(Device device, Use&& use) {
  // Threads come and go; their staging memory, which takes long to get, stays. One of each device.
  static std::mutex mutex;
  static std::vector<std::pair<Device, std::unique_ptr<Staging>>> idle;
  StreamOn(device);
  std::unique_ptr<Staging> staging;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    for (auto it = idle.begin(); it != idle.end() && staging == nullptr; ++it) {
      if (it->first != device) continue;
      staging = std::move(it->second);
      idle.erase(it);
      break;
    }
  }
  if (staging == nullptr) staging = std::make_unique<Staging>();
  use(*staging);
  const std::lock_guard<std::mutex> lock(mutex);
  idle.emplace_back(device, std::move(staging));
}

}  // namespace

void cuda::UploadFrom(Device device, void* to, size_t bytes, const ByteSource& source) {
  WithStaging(device,
              [&](Staging& staging) { staging.Upload(device, static_cast<std::byte*>(to), bytes, source); });
}

void cuda::DownloadBytes(Device device, void* to, const void* from, size_t bytes) {
  WithStaging(device, [&](Staging& staging) {
    staging.Download(device, static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes);
  });
}

void cuda::FillBytes(Device device, void* memory, int value, size_t bytes) {
  CheckCuda(cudaMemsetAsync(memory, value, bytes, StreamOn(device)), "filling memory");
}

void cuda::Synchronize(Device device) {
  if (device.is_cuda()) CheckCuda(cudaStreamSynchronize(StreamOn(device)), "waiting for its work");
}

void* cuda::RecordWork(Device device, const std::function<void()>& work) {
  const cudaStream_t stream = StreamOn(device);
  CheckCuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "recording work");
  cudaGraph_t graph = nullptr;
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(stream, &graph);
    cudaGetLastError();
    if (graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  CheckCuda(cudaStreamEndCapture(stream, &graph), "recording work");
  cudaGraphExec_t recorded = nullptr;
  const cudaError_t code = cudaGraphInstantiate(&recorded, graph, 0);
  cudaGraphDestroy(graph);
  CheckCuda(code, "making a graph of recorded work");
  return recorded;
}

void cuda::ReplayWork(Device device, void* recorded) {
  CheckCuda(cudaGraphLaunch(static_cast<cudaGraphExec_t>(recorded), StreamOn(device)),
            "starting recorded work");
}

void cuda::ForgetWork(Device device, void* recorded) {
  StreamOn(device);
  cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(recorded));  // in a destructor
}

}  // namespace mica
