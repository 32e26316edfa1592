// What the program and its CUDA back end know of each other.
//
// The back end is libmica_cuda.so: cuda_runtime.cc, ops/cuda_table.cc and all that includes CUDA's headers.
// Apart from the program because CUDA's libraries take half a second to load and are not on every machine.
// The program reaches it through tables of functions only; what the back end needs of base, device, format
// and ops it takes from the program, which exports it (cmake/cuda.cmake).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "device/cuda.h"
#include "device/nccl.h"
#include "device/upload.h"

namespace mica {

// The functions of cuda.h, upload.h and nccl.h whose code is in the back end, in the namespace mica::cuda; each is named as the
// program's, which calls it, and means the same.
// clang-format off
#define MICA_CUDA_FUNCTIONS(function)                                                              \
  function(CudaDevices) function(CudaAbsence) function(PropertiesOf) function(MemoryOf)            \
      function(LimitDeviceMemory) function(AllocateOnDevice) function(FreeOnDevice)                \
          function(AllocatePinned) function(FreePinned) function(CopyBytes) function(UploadFrom)   \
              function(DownloadBytes) function(FillBytes) function(Synchronize)            \
              function(BeginBackground) function(EndBackground)                                        \
                  function(RecordWork) function(ReplayWork) function(ForgetWork)   \
                      function(NcclNewGroup) function(NcclJoin) function(NcclExchange)     \
                          function(NcclBroadcast)
// clang-format on

namespace cuda {
#define MICA_DECLARE(name) decltype(mica::name) name;
MICA_CUDA_FUNCTIONS(MICA_DECLARE)
#undef MICA_DECLARE
}  // namespace cuda

struct CudaFunctions {
#define MICA_MEMBER(name) decltype(&mica::name) name = nullptr;
  MICA_CUDA_FUNCTIONS(MICA_MEMBER)
#undef MICA_MEMBER
};

// What the back end exports; the tables are of type CudaFunctions and CudaOps (ops/cuda_ops.h), the build is
// the text that CudaBuild() must be.
inline constexpr const char* kCudaFunctions = "mica_cuda_functions";
inline constexpr const char* kCudaOps = "mica_cuda_ops";
inline constexpr const char* kCudaBuild = "mica_cuda_build";
// Version and commit of the program: "0.1.0 0123456789ab".
std::string CudaBuild();

// The back end as it was found.
struct CudaBackEnd {
  void* library = nullptr;  // as dlopen gives it, null where the back end cannot be used
  std::string absence;      // why not: CudaAbsence() of cuda.h
  bool broken = false;      // although there are a back end and a device
};
// Looks for the back end in the directories, in this order, asks the driver, whose library is called
// `driver`, for devices, and loads the back end when there is one.
CudaBackEnd LoadCudaBackEnd(const std::vector<std::filesystem::path>& directories, const char* driver);

// A table of the back end, which must be there: CudaDevices() is not 0.
const void* CudaTable(const char* name);

}  // namespace mica
