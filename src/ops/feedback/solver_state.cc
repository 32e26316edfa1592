#include "ops/feedback/solver_state.h"

#include <cstring>

#include "device/cuda.h"

namespace mica {

void SolverState::AllocateScales(Device device) {
  size_t count = 0;
  for (const ScaleGroup& group : plan.groups) count += group.scale_row >= 0;
  scales = Array(count, rows, DType::kU8, device);
  zeros = Array(count, rows, DType::kU8, device);
}

void SolverState::Allocate(Device device) {
  AllocateScales(device);
  codes = Array(cols, rows, DType::kU16, device);
  if (!masked()) return;
  keep = Array(cols, rows, DType::kU8, device);
  FillZero(keep.view());
  const size_t coded = plan.coded * rows;
  if (coded == 0) return;
  if (device.is_cuda()) {
    FillBytes(device, keep.view().data, 1, coded);
  } else {
    std::memset(keep.view().data, 1, coded);
  }
}

}  // namespace mica
