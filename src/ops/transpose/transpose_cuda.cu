#include "ops/cuda_ops.h"
#include "ops/tile/dispatch.h"
#include "ops/transpose/transpose_cuda.h"

namespace mica::cuda {

void Transpose(ConstTensor in, Tensor out) {
  if (in.empty()) return;
  DispatchFloat(in.dtype, [&](auto type) {
    using T = decltype(type);
    Launch(in.device, TransposeTiles<OnDevice<T>>, TransposeBlocks(in.rows, in.cols), kTransposeThreads, 0,
           In<T>(in), Out<T>(out));
  });
}

}  // namespace mica::cuda
