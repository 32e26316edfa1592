#include "ops/cuda_ops.h"

namespace mica {

const CudaOps& Cuda() {
#define MICA_ENTRY(name) .name = cuda::name,
  static const CudaOps ops = {MICA_CUDA_OPS(MICA_ENTRY)};
#undef MICA_ENTRY
  return ops;
}

}  // namespace mica
