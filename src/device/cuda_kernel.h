// What kernels share: included by *_cuda.cu only.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstddef>
#include <cstdint>
#include <nv/target>
#include <span>
#include <type_traits>

#include "base/error.h"
#include "base/half.h"
#include "device/array.h"
#include "device/cuda.h"
#include "device/cuda_check.h"
#include "device/tensor.h"

namespace mica::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xFFFFFFFFu;

// The type of a kernel's values that are T on the host.
template <typename T>
using OnDevice = std::conditional_t<std::is_same_v<T, BF16>, __nv_bfloat16,
                                    std::conditional_t<std::is_same_v<T, F16>, __half, T>>;

__device__ inline float ToFloat(float value) { return value; }
__device__ inline float ToFloat(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ inline float ToFloat(__half value) { return __half2float(value); }
// Rounded to nearest, ties to even.
template <typename T>
__device__ inline T FromFloat(float value) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(value);
  } else if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(value);
  } else {
    return value;
  }
}

// A matrix of a kernel: rows x cols values, rows `stride` values apart.
template <typename T>
struct View {
  T* data;
  size_t rows, cols, stride;
  __device__ T* row(size_t r) const { return data + r * stride; }
  T* row_of(size_t r) const { return data + r * stride; }  // its place, for the host
};

// The view of a tensor on a CUDA device whose values are T on the host.
template <typename T>
View<const OnDevice<T>> In(const ConstTensor& x) {
  MICA_CHECK(x.dtype == kDTypeOf<T>);
  MICA_CHECK(x.device.is_cuda());
  return {reinterpret_cast<const OnDevice<T>*>(x.data), x.rows, x.cols, x.stride};
}
template <typename T>
View<OnDevice<T>> Out(const Tensor& x) {
  MICA_CHECK(x.dtype == kDTypeOf<T>);
  MICA_CHECK(x.device.is_cuda());
  return {reinterpret_cast<OnDevice<T>*>(x.data), x.rows, x.cols, x.stride};
}

// Rows begin at multiples of 16 bytes and hold whole groups of so many bytes.
template <typename T>
bool Wide(const View<T>& view) {
  return reinterpret_cast<uintptr_t>(view.data) % 16 == 0 && view.stride * sizeof(T) % 16 == 0 &&
         view.cols * sizeof(T) % 16 == 0;
}

// A copy of host values on a device, for what belongs to tokens or columns and is small.
template <typename T>
class Values {
 public:
  Values(Device device, std::span<const T> values) : Values(device, values.size()) {
    CopyBytes(device, memory_, bytes(), Device::Cpu(), values.data(), bytes(), bytes(), 1);
  }
  // Uninitialised.
  Values(Device device, size_t count)
      : device_(device), count_(count), memory_(static_cast<T*>(AllocateOnDevice(device, bytes()))) {}
  ~Values() { FreeOnDevice(device_, memory_, bytes()); }
  Values(const Values&) = delete;
  Values& operator=(const Values&) = delete;
  T* data() const { return memory_; }
  size_t size() const { return count_; }
  void FillZero() const { FillBytes(device_, memory_, 0, bytes()); }
  // Waits for the work that writes them.
  void CopyTo(std::span<T> values) const {
    MICA_CHECK(values.size() == count_);
    CopyBytes(Device::Cpu(), values.data(), bytes(), device_, memory_, bytes(), bytes(), 1);
  }

 private:
  size_t bytes() const { return count_ * sizeof(T); }
  Device device_;
  size_t count_;
  T* memory_;
};

// Starts a kernel in the order of this thread's work on the device.
template <typename... Parameters, typename... Arguments>
void Launch(Device device, void (*kernel)(Parameters...), dim3 blocks, dim3 threads, size_t shared_bytes,
            Arguments... arguments) {
  if (blocks.x == 0 || blocks.y == 0 || blocks.z == 0) return;
  const cudaStream_t stream = StreamOn(device);
  AllowSharedMemory(device, reinterpret_cast<const void*>(kernel), shared_bytes);
  kernel<<<blocks, threads, shared_bytes, stream>>>(Parameters(arguments)...);
  CheckCuda(cudaGetLastError(), "starting a kernel");
}

// For kernels that LaunchBehind starts, on devices that can start them so (compute capability 9.0 and later);
// nothing on others. A kernel calls the first before it touches anything that work before it writes or reads.
// When all blocks of a kernel have called the second or are done, the kernel behind it may begin.
__device__ __forceinline__ void WaitForWorkBefore() {
  NV_IF_TARGET(NV_PROVIDES_SM_90, (cudaGridDependencySynchronize();))
}
__device__ __forceinline__ void LetNextBegin() {
  NV_IF_TARGET(NV_PROVIDES_SM_90, (cudaTriggerProgrammaticLaunchCompletion();))
}

// Starts a kernel that may begin while the one before it still runs, and calls WaitForWorkBefore.
template <typename... Parameters, typename... Arguments>
void LaunchBehind(Device device, void (*kernel)(Parameters...), dim3 blocks, dim3 threads,
                  size_t shared_bytes, Arguments... arguments) {
  if (blocks.x == 0) return;
  AllowSharedMemory(device, reinterpret_cast<const void*>(kernel), shared_bytes);
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = StreamOn(device);
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  int major = 0;
  CheckCuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index()),
            "asking for its capabilities");
  config.numAttrs = major >= 9 ? 1 : 0;
  CheckCuda(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), "starting a kernel");
}

inline unsigned Blocks(size_t count, size_t each) { return static_cast<unsigned>((count + each - 1) / each); }

__device__ inline float WarpSum(float value) {
  for (int lane = kWarp / 2; lane > 0; lane /= 2) value += __shfl_xor_sync(kAllLanes, value, lane);
  return value;
}
__device__ inline float WarpMax(float value) {
  for (int lane = kWarp / 2; lane > 0; lane /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, lane));
  return value;
}
// What `join` makes of the values of a block of kThreads threads, in all of them, in a fixed order. All
// threads call it; of_warp joins those of a warp.
template <int kThreads, typename OfWarp, typename Join>
__device__ inline float BlockJoin(float value, const OfWarp& of_warp, const Join& join) {
  __shared__ float joined[kThreads / kWarp];
  value = of_warp(value);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) joined[threadIdx.x / kWarp] = value;
  __syncthreads();
  float all = joined[0];
  for (int w = 1; w < kThreads / kWarp; ++w) all = join(all, joined[w]);
  return all;
}
template <int kThreads>
__device__ inline float BlockMax(float value) {
  return BlockJoin<kThreads>(value, WarpMax, [](float a, float b) { return fmaxf(a, b); });
}
template <int kThreads>
__device__ inline float BlockSum(float value) {
  return BlockJoin<kThreads>(value, WarpSum, [](float a, float b) { return a + b; });
}

}  // namespace mica::cuda
