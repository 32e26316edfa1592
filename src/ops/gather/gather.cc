#include "ops/gather/gather.h"

#include "base/error.h"
#include "ops/cuda_ops.h"

namespace mica {

void GatherRows(ConstTensor table, std::span<const int32_t> ids, Tensor out) {
  MICA_CHECK(out.rows == ids.size());
  MICA_CHECK(out.cols == table.cols);
  return Cuda().GatherRows(table, ids, out);
}

bool AllFinite(ConstTensor x) {
  MICA_CHECK(x.stride == x.cols || x.rows <= 1);
  return x.empty() || Cuda().AllFinite(x);
}

}  // namespace mica
