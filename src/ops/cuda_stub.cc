#include "base/error.h"
#include "ops/cuda_ops.h"

namespace mica {

// No tensor can be on a device that this build has not.
const CudaOps& Cuda() { MICA_CHECK(false); }

}  // namespace mica
