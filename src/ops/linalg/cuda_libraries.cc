#include <map>
#include <mutex>
#include <vector>

#include "base/error.h"
#include "device/cuda.h"
#include "device/cuda_check.h"
#include "ops/linalg/cuda_handles.h"

namespace mica {
namespace {

struct Handles {
  cublasHandle_t blas = nullptr;
  cublasLtHandle_t blas_lt = nullptr;
  cusolverDnHandle_t solver = nullptr;
  void* workspace = nullptr;
  cudaStream_t stream = nullptr;  // the queue that they work in
};

// Handles that no thread has now, by device. Making them takes long and they hold memory, so that they go
// from thread to thread; they are never destroyed, as the driver may be gone when the program ends.
struct Pool {
  std::mutex mutex;
  std::map<int, std::vector<Handles>> free;
};
Pool& ThePool() {
  static Pool* const pool = new Pool;
  return *pool;
}

Handles Make(Device device) {
  Handles handles;
  handles.workspace = AllocateOnDevice(device, kCublasWorkspaceBytes);
  CheckCublas(cublasCreate(&handles.blas), "starting cuBLAS");
  CheckCublas(cublasLtCreate(&handles.blas_lt), "starting cuBLASLt");
  CheckCusolver(cusolverDnCreate(&handles.solver), "starting cuSOLVER");
  return handles;
}

// The handles of one thread.
class OfThread {
 public:
  ~OfThread() {
    for (const auto& [index, handles] : held_) {
      // The next thread has another queue, so that nothing may be under way; a failure has been reported.
      cudaStreamSynchronize(StreamOn(Device::Cuda(index)));
      const std::lock_guard<std::mutex> lock(ThePool().mutex);
      ThePool().free[index].push_back(handles);
    }
  }
  const Handles& On(Device device) {
    const cudaStream_t stream = StreamOn(device);  // before any call: makes the device current
    Handles& handles = held_[device.index()];
    if (handles.blas != nullptr && handles.stream == stream) return handles;
    if (handles.blas == nullptr) {
      const std::lock_guard<std::mutex> lock(ThePool().mutex);
      std::vector<Handles>& free = ThePool().free[device.index()];
      if (!free.empty()) {
        handles = free.back();
        free.pop_back();
      }
    }
    if (handles.blas == nullptr) handles = Make(device);
    CheckCublas(cublasSetStream(handles.blas, stream), "choosing cuBLAS's queue");
    // After the queue, which takes the workspace away.
    CheckCublas(cublasSetWorkspace(handles.blas, handles.workspace, kCublasWorkspaceBytes),
                "giving cuBLAS memory");
    CheckCusolver(cusolverDnSetStream(handles.solver, stream), "choosing cuSOLVER's queue");
    handles.stream = stream;
    return handles;
  }

 private:
  std::map<int, Handles> held_;
};

const Handles& On(Device device) {
  thread_local OfThread handles;
  return handles.On(device);
}

}  // namespace

cublasHandle_t Cublas(Device device) { return On(device).blas; }
cublasLtHandle_t CublasLt(Device device) { return On(device).blas_lt; }
cusolverDnHandle_t Cusolver(Device device) { return On(device).solver; }
void* CublasWorkspace(Device device) { return On(device).workspace; }

void CheckCublas(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  Fail("{} failed on the CUDA device: {}", what, cublasGetStatusString(status));
}

void CheckCusolver(cusolverStatus_t status, const char* what) {
  if (status == CUSOLVER_STATUS_SUCCESS) return;
  Fail("{} failed on the CUDA device: cuSOLVER's status {}", what, static_cast<int>(status));
}

}  // namespace mica
