// What the library of the CUDA back end shows to the program; the names are those of device/cuda_back_end.h.
#include "device/cuda_back_end.h"
#include "ops/cuda_ops.h"

extern "C" {
#define MICA_ENTRY(name) .name = mica::cuda::name,
extern const mica::CudaFunctions mica_cuda_functions;
const mica::CudaFunctions mica_cuda_functions = {MICA_CUDA_FUNCTIONS(MICA_ENTRY)};
extern const mica::CudaOps mica_cuda_ops;
const mica::CudaOps mica_cuda_ops = {MICA_CUDA_OPS(MICA_ENTRY)};
#undef MICA_ENTRY
extern const char* const mica_cuda_build;
const char* const mica_cuda_build = MICA_VERSION " " MICA_COMMIT;
}
