#include "device/cuda_back_end.h"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <system_error>

#include "base/error.h"
#include "base/system.h"

namespace mica {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLibrary = "libmica_cuda.so";

template <typename Function>
Function* Symbol(void* library, const char* name) {
  return reinterpret_cast<Function*>(::dlsym(library, name));
}

// Why there is nothing to compute on, empty where there is. Asks the driver itself, which the back end needs
// anyway, as it loads in a fraction of the time of CUDA's other libraries.
std::string DeviceAbsence(const char* driver) {
  void* const library = ::dlopen(driver, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return fmt::format("this machine has no NVIDIA driver ({})", ::dlerror());
  // The driver puts the queues of a process into so many of the device's, 8 unless told otherwise, and what shares one
  // waits for what is before it.
  ::setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  // Of cuda.h: every function returns 0 or the number of an error.
  auto* const init = Symbol<int(unsigned flags)>(library, "cuInit");
  auto* const count = Symbol<int(int* devices)>(library, "cuDeviceGetCount");
  auto* const text = Symbol<int(int error, const char** text)>(library, "cuGetErrorString");
  if (init == nullptr || count == nullptr) return fmt::format("{} is no driver of NVIDIA", driver);
  int devices = 0;
  int error = init(0);
  if (error == 0) error = count(&devices);
  if (error == 0) return devices > 0 ? "" : "this machine has no CUDA device";
  const char* said = nullptr;
  if (text == nullptr || text(error, &said) != 0 || said == nullptr) said = "the driver does not say why";
  return fmt::format("this machine has no usable CUDA device (error {}: {})", error, said);
}

// The program's own directory, and lib/ beside it.
std::vector<fs::path> Directories() {
  std::error_code code;
  const fs::path bin = fs::read_symlink("/proc/self/exe", code).parent_path();
  return {bin, bin.parent_path() / "lib"};
}

const CudaBackEnd& TheBackEnd() {
  static const CudaBackEnd found = LoadCudaBackEnd(Directories(), "libcuda.so.1");
  return found;
}

const CudaFunctions& Functions() {
  static const CudaFunctions& functions = *static_cast<const CudaFunctions*>(CudaTable(kCudaFunctions));
  return functions;
}

}  // namespace

std::string CudaBuild() { return Version() + " " + Commit(); }

CudaBackEnd LoadCudaBackEnd(const std::vector<fs::path>& directories, const char* driver) {
  std::error_code code;
  fs::path path;
  for (auto it = directories.begin(); it != directories.end() && path.empty(); ++it) {
    if (fs::exists(*it / kLibrary, code)) path = *it / kLibrary;
  }
  if (path.empty()) {
    return {nullptr,
            fmt::format("this build has no CUDA back end ({} is neither beside the program nor in ../lib; "
                        "build where nvcc is, without MICA_CUDA=OFF)",
                        kLibrary)};
  }
  if (std::string absence = DeviceAbsence(driver); !absence.empty()) return {nullptr, std::move(absence)};
  // All symbols now: what is missing is said here, not in the midst of the work.
  void* const library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const std::string why = ::dlerror();
    const bool ours = why.find(kLibrary) != std::string::npos;
    return {
        nullptr,
        fmt::format(
            "the CUDA back end cannot be loaded ({}); {}", why,
            ours ? "build it together with the program"
                 : "install CUDA's libraries (cuBLAS, cuSOLVER) or name their directory in LD_LIBRARY_PATH"),
        true};
  }
  const char* const* const build = Symbol<const char* const>(library, kCudaBuild);
  if (build == nullptr || *build != CudaBuild()) {
    return {nullptr,
            fmt::format("{} is of another build ({}, the program is {}); build it together with the program",
                        path.string(), build == nullptr ? "unknown" : *build, CudaBuild()),
            true};
  }
  return {library, "", false};
}

const void* CudaTable(const char* name) {
  const CudaBackEnd& back_end = TheBackEnd();
  MICA_CHECK(back_end.library != nullptr);
  const void* const table = ::dlsym(back_end.library, name);
  MICA_CHECK(table != nullptr);
  return table;
}

int CudaDevices() { return TheBackEnd().library == nullptr ? 0 : Functions().CudaDevices(); }
std::string CudaAbsence() {
  return TheBackEnd().library == nullptr ? TheBackEnd().absence : Functions().CudaAbsence();
}
bool CudaIsBroken() { return TheBackEnd().broken || (TheBackEnd().library != nullptr && CudaDevices() == 0); }

CudaProperties PropertiesOf(Device device) { return Functions().PropertiesOf(device); }
DeviceMemory MemoryOf(Device device) { return Functions().MemoryOf(device); }
void LimitDeviceMemory(Device device, uint64_t bytes) { Functions().LimitDeviceMemory(device, bytes); }
void* AllocateOnDevice(Device device, size_t bytes) { return Functions().AllocateOnDevice(device, bytes); }
void FreeOnDevice(Device device, void* memory, size_t bytes) {
  Functions().FreeOnDevice(device, memory, bytes);
}
void* AllocatePinned(size_t bytes) { return Functions().AllocatePinned(bytes); }
void FreePinned(void* memory, size_t bytes) { Functions().FreePinned(memory, bytes); }
void CopyBytes(Device to_device, void* to, size_t to_pitch, Device from_device, const void* from,
               size_t from_pitch, size_t width, size_t rows) {
  Functions().CopyBytes(to_device, to, to_pitch, from_device, from, from_pitch, width, rows);
}
void UploadFrom(Device device, void* to, size_t bytes, const ByteSource& source) {
  Functions().UploadFrom(device, to, bytes, source);
}
void UploadBytes(Device device, void* to, const void* from, size_t bytes) {
  UploadFrom(device, to, bytes, [from](size_t first, std::span<std::byte> piece) {
    std::memcpy(piece.data(), static_cast<const std::byte*>(from) + first, piece.size());
  });
}
void DownloadBytes(Device device, void* to, const void* from, size_t bytes) {
  Functions().DownloadBytes(device, to, from, bytes);
}
void FillBytes(Device device, void* memory, int value, size_t bytes) {
  Functions().FillBytes(device, memory, value, bytes);
}
void Synchronize(Device device) {
  if (device.is_cuda()) Functions().Synchronize(device);
}
void BeginBackground(Device device) { Functions().BeginBackground(device); }
void EndBackground(Device device) { Functions().EndBackground(device); }
void* RecordWork(Device device, const std::function<void()>& work) {
  return Functions().RecordWork(device, work);
}
void ReplayWork(Device device, void* recorded) { Functions().ReplayWork(device, recorded); }
void ForgetWork(Device device, void* recorded) { Functions().ForgetWork(device, recorded); }

std::string NcclNewGroup() { return Functions().NcclNewGroup(); }
void* NcclJoin(Device device, const std::string& group, size_t rank, size_t size) {
  return Functions().NcclJoin(device, group, rank, size);
}
void NcclExchange(Device device, void* communicator, std::span<const std::span<const std::byte>> to,
                  std::span<const std::span<std::byte>> from) {
  Functions().NcclExchange(device, communicator, to, from);
}
void NcclBroadcast(Device device, void* communicator, size_t root, std::span<std::byte> bytes) {
  Functions().NcclBroadcast(device, communicator, root, bytes);
}

}  // namespace mica
