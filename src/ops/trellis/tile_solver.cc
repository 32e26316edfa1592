#include "ops/trellis/tile_solver.h"

#include "base/error.h"
#include "ops/cuda_ops.h"
#include "ops/trellis/tile_solver_cpu.h"

namespace mica {
namespace {

void CheckTask(const TileTask& task, Device device) {
  const size_t rows = task.w.rows, cols = task.w.cols;
  MICA_CHECK(task.w.dtype == DType::kF32);
  MICA_CHECK(task.w.device == device);
  MICA_CHECK(task.u.device == device);
  MICA_CHECK(task.u.dtype == DType::kF32);
  MICA_CHECK(task.u.rows == cols);
  MICA_CHECK(task.u.cols == cols);
  MICA_CHECK(task.order.size() == cols);
  MICA_CHECK(task.col_step.size() == cols);
  MICA_CHECK(task.row_order.size() == rows);
  MICA_CHECK(task.row_step.size() == rows);
  if (!task.v.empty()) {
    MICA_CHECK(task.v.device == device);
    MICA_CHECK(task.v.dtype == DType::kF32);
    MICA_CHECK(task.v.rows == rows);
    MICA_CHECK(task.v.cols % kCodedTileRows == 0 || task.v.cols >= rows);
  }
  if (task.rates != nullptr) {
    MICA_CHECK(task.row_class.size() == rows);
    MICA_CHECK(task.col_class.size() == cols);
  }
  if (!device.is_cuda() || task.n.data != nullptr) {
    MICA_CHECK(task.n.rows == rows);
    MICA_CHECK(task.n.cols == cols);
  }
  if (!task.weights.empty()) {
    MICA_CHECK(task.weights.device == device);
    MICA_CHECK(task.weights.dtype == DType::kF32);
    MICA_CHECK(task.weights.rows == rows);
    MICA_CHECK(task.weights.cols == cols);
  }
  MICA_CHECK(task.row_loss.size() == rows);
  MICA_CHECK(task.tallies.size() == CodedTiles(rows));
}

}  // namespace

void SolveTiles(std::span<const TileTask> tasks, const StepPrices& prices) {
  if (tasks.empty()) return;
  const Device device = tasks[0].w.device;
  for (const TileTask& task : tasks) CheckTask(task, device);
  if (device.is_cuda()) return Cuda().SolveTiles(tasks, prices);
  SolveTilesCpu(tasks, prices);
}

}  // namespace mica
