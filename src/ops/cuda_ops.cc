#include "ops/cuda_ops.h"

#include "device/cuda_back_end.h"

namespace mica {

const CudaOps& Cuda() {
  static const CudaOps& ops = *static_cast<const CudaOps*>(CudaTable(kCudaOps));
  return ops;
}

}  // namespace mica
