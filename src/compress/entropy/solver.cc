#include "compress/entropy/solver.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <vector>

#include "base/error.h"
#include "device/array.h"
#include "ops/trellis/start_classes.h"
#include "ops/trellis/tile_solver.h"

namespace mica {
namespace {

// What integers take with one code for the widths of their magnitudes, sign and lower bits as they are.
double RoughBits(const std::array<uint64_t, 17>& widths) {
  double total = 0, bits = 0;
  for (const uint64_t count : widths) total += static_cast<double>(count);
  for (size_t width = 0; width < widths.size(); ++width) {
    const auto count = static_cast<double>(widths[width]);
    if (count > 0) bits += count * (std::log2(total / count) + static_cast<double>(width));
  }
  return bits;
}

// Tensors where they are needed; a copy of what lies elsewhere is kept as long as this lives.
class OnDevice {
 public:
  explicit OnDevice(Device device) : device_(device) {}
  ConstTensor operator()(ConstTensor x) {
    if (x.device == device_ || x.empty()) return x;
    for (const Copied& one : copies_) {
      if (one.from == x.data) return one.array->view();  // what several matrices share
    }
    copies_.push_back({x.data, std::make_unique<Array>(CopyTo(device_, x))});
    return copies_.back().array->view();
  }

 private:
  struct Copied {
    const std::byte* from;
    std::unique_ptr<Array> array;
  };
  Device device_;
  std::vector<Copied> copies_;
};

// A matrix whose integers are still to be found, without its classes.
void Begin(const StepTask& task, double log2_c, const StepPrices& prices, EntropyMatrix& matrix) {
  const size_t rows = task.w.rows, cols = task.w.cols;
  const StepPlan& plan = *task.plan;
  MICA_CHECK(plan.row_log.size() == rows);
  MICA_CHECK(plan.columns->col_step.size() == cols);
  matrix.rows = rows;
  matrix.cols = cols;
  matrix.states = prices.trellis ? kTrellisStates : 1;
  if (!task.w.device.is_cuda()) matrix.n = Matrix<int16_t>(rows, cols);
  matrix.col_step = plan.columns->col_step;
  if (prices.trellis) matrix.row_key = plan.row_key;
  matrix.row_step.resize(rows);
  for (size_t r = 0; r < rows; ++r) {
    matrix.row_step[r] = static_cast<int16_t>(std::clamp(StepEighths(plan.row_log[r] + log2_c),
                                                         -kMaxStepOctaves * kStepResolution,
                                                         kMaxStepOctaves * kStepResolution));
  }
  matrix.tables = DefaultEntropyTables(matrix.states);
}

StepReport Report(const StepTask& task, const std::vector<double>& row_loss,
                  const std::vector<TileTally>& tallies) {
  const StepPlan& plan = *task.plan;
  double loss = 0, error = 0, energy = 0;
  std::array<uint64_t, 17> widths{};
  for (size_t tile = 0; tile < tallies.size(); ++tile) {
    double of_tile = 0;
    for (size_t p = tile * kCodedTileRows; p < std::min(row_loss.size(), (tile + 1) * kCodedTileRows); ++p)
      of_tile += row_loss[p] * std::exp2(-2.0 * plan.row_log[plan.row_order[p]]);
    loss += of_tile;
    error += tallies[tile].error;
    energy += tallies[tile].energy;
    for (size_t i = 0; i < widths.size(); ++i) widths[i] += tallies[tile].widths[i];
  }
  return {.loss = loss,
          .relative_error = energy > 0 ? error / energy : 0,
          .zero_share = static_cast<double>(widths[0]) / static_cast<double>(task.w.rows * task.w.cols),
          .rough_bits = RoughBits(widths)};
}

}  // namespace

std::vector<StepSolution> SolveSteps(const std::vector<StepTask>& tasks, double log2_c,
                                     const StepPrices& prices) {
  std::vector<StepSolution> solutions(tasks.size());
  if (tasks.empty()) return solutions;
  OnDevice on_device(tasks[0].w.device);
  std::unique_ptr<EntropyRates> rates;
  std::vector<TileTask> tile_tasks;
  std::vector<std::vector<double>> row_loss(tasks.size());
  std::vector<std::vector<TileTally>> tallies(tasks.size());
  for (size_t m = 0; m < tasks.size(); ++m) {
    const StepTask& task = tasks[m];
    const StepPlan& plan = *task.plan;
    EntropyMatrix& matrix = solutions[m].matrix;
    Begin(task, log2_c, prices, matrix);
    if (prices.lambda > 0) {
      StartClasses(task.w, matrix);
      if (rates == nullptr) rates = std::make_unique<EntropyRates>(matrix.tables);  // the same for all
    }
    row_loss[m].resize(matrix.rows);
    tallies[m].resize(matrix.tiles());
    tile_tasks.push_back({.w = task.w,
                          .u = on_device(plan.columns->factor->tensor()),
                          .v = on_device(plan.v.view()),
                          .order = plan.columns->order(),
                          .dead = plan.columns->factor->dead(),
                          .row_order = plan.row_order,
                          .row_step = matrix.row_step,
                          .col_step = matrix.col_step,
                          .rates = rates.get(),
                          .row_class = matrix.row_class,
                          .col_class = matrix.col_class,
                          .n = matrix.n,
                          .n_on_device = &solutions[m].n,
                          .weights = task.weights,
                          .row_loss = row_loss[m],
                          .tallies = tallies[m]});
  }
  SolveTiles(tile_tasks, prices);
  for (size_t m = 0; m < tasks.size(); ++m) solutions[m].report = Report(tasks[m], row_loss[m], tallies[m]);
  return solutions;
}

}  // namespace mica
