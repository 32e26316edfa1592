// cuBLAS, cuBLASLt and cuSOLVER for the calling thread; included by *_cuda.cu and cuda_*.cc only.
//
// Each thread has handles of its own on a device. Their work is in the order of the thread's other work there
// (StreamOn); they stay valid as long as the thread lives. cuBLAS adds without atomics and has a workspace of
// fixed size, so that the same call gives the same bytes.
#pragma once

#include <cublasLt.h>
#include <cublas_v2.h>
#include <cusolverDn.h>

#include <cstddef>

#include "device/device.h"

namespace mica {

// What NVIDIA recommends for Hopper; its kernels with parallel sums need no more.
inline constexpr size_t kCublasWorkspaceBytes = size_t{32} << 20;

cublasHandle_t Cublas(Device device);
cusolverDnHandle_t Cusolver(Device device);
cublasLtHandle_t CublasLt(Device device);
// kCublasWorkspaceBytes bytes for calls of cublasLtMatmul, the same that Cublas(device) has: one after the
// other on one stream, they never meet.
void* CublasWorkspace(Device device);

// Throw Error saying what failed, unless `status` is success.
void CheckCublas(cublasStatus_t status, const char* what);
void CheckCusolver(cusolverStatus_t status, const char* what);

}  // namespace mica
