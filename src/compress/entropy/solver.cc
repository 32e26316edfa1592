#include "compress/entropy/solver.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "base/error.h"
#include "device/array.h"
#include "ops/linalg/arrange.h"
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

// Rows of a matrix by position, dealt to ranks in units that do not depend on one another: blocks of V, or tiles.
std::vector<Part> PartsOfRows(size_t rows, const ConstTensor& v, size_t ranks) {
  const size_t unit = v.empty() ? kCodedTileRows : std::min(rows, v.cols);
  const size_t units = (rows + unit - 1) / unit;
  std::vector<Part> parts;
  for (size_t r = 0; r < ranks; ++r) {
    const Part part = PartOf(units, r, ranks);
    const size_t first = std::min(rows, part.first * unit);
    parts.push_back({first, std::min(rows, (part.first + part.count) * unit) - first});
  }
  return parts;
}

// The part of a task that a rank solves, as a task of its own: its rows in order of position.
class PartOfTask {
 public:
  PartOfTask(const TileTask& whole, const Part& part)
      : part_(part), w_(part.count, whole.w.cols, DType::kF32, whole.w.device), row_loss_(part.count),
        tallies_(CodedTiles(part.count)) {
    for (size_t i = 0; i < part.count; ++i) {
      const uint32_t row = whole.row_order[part.first + i];
      rows_.push_back(static_cast<int32_t>(row));
      order_.push_back(static_cast<uint32_t>(i));
      row_step_.push_back(whole.row_step[row]);
      if (whole.rates != nullptr) row_class_.push_back(whole.row_class[row]);
    }
    if (part.count > 0) GatherRows(whole.w, rows_, w_.view());
    if (!whole.w.device.is_cuda()) n_ = Matrix<int16_t>(part.count, whole.w.cols);
    if (!whole.weights.empty()) weights_.Resize(part.count, whole.w.cols, DType::kF32, whole.w.device);
    task_ = whole;
    task_.w = std::as_const(w_).view();
    if (!whole.v.empty()) task_.v = whole.v.Rows(part.first, part.count);
    task_.row_order = order_;
    task_.row_step = row_step_;
    task_.row_class = row_class_;
    task_.n = n_.view();
    task_.n_on_device = &n_there_;
    task_.weights = weights_.view();
    task_.row_loss = row_loss_;
    task_.tallies = tallies_;
  }
  const TileTask& task() const { return task_; }

  // To and from all ranks: what the whole task has got when all are done. parts: of all ranks.
  void Share(const TileTask& whole, std::span<const Part> parts, const Group& group) {
    const size_t rows = whole.w.rows, cols = whole.w.cols;
    std::vector<int32_t> position(rows);
    for (size_t p = 0; p < rows; ++p) position[whole.row_order[p]] = static_cast<int32_t>(p);
    if (!whole.weights.empty()) {
      Array all(rows, cols, DType::kF32, whole.w.device);
      Copy(std::as_const(weights_).view(), all.view().Rows(part_.first, part_.count));
      weights_ = Array();
      group.ShareRows(all.view(), parts);
      GatherRows(std::as_const(all).view(), position, whole.weights);
    }
    ShareIntegers(whole, parts, position, group);
    ShareTallies(whole, parts, group);
  }

 private:
  void ShareIntegers(const TileTask& whole, std::span<const Part> parts, const std::vector<int32_t>& position,
                     const Group& group) {
    const size_t rows = whole.w.rows, cols = whole.w.cols;
    const bool there = whole.w.device.is_cuda();
    Array all;
    if (group.leads()) all.Resize(rows, cols, DType::kI16, whole.w.device);
    std::vector<ConstTensor> to(group.size());
    std::vector<Tensor> from(group.size());
    to[0] = there ? std::as_const(n_there_).view() : IntegersOf(n_);
    for (size_t r = 0; r < group.size() && group.leads(); ++r)
      from[r] = all.view().Rows(parts[r].first, parts[r].count);
    group.Exchange(to, from);
    n_there_ = Array();
    if (!group.leads()) return;
    if (there) {
      whole.n_on_device->Resize(rows, cols, DType::kI16, whole.w.device);
      return GatherRows(std::as_const(all).view(), position, whole.n_on_device->view());
    }
    const auto* values = reinterpret_cast<const int16_t*>(std::as_const(all).view().data);
    for (size_t row = 0; row < rows; ++row)
      std::copy_n(values + static_cast<size_t>(position[row]) * cols, cols, whole.n.row(row));
  }

  // Doubles hold counts exactly.
  void ShareTallies(const TileTask& whole, std::span<const Part> parts, const Group& group) {
    std::vector<double> mine = row_loss_;
    for (const TileTally& tally : tallies_) {
      mine.insert(mine.end(), {tally.error, tally.energy});
      for (const uint64_t width : tally.widths) mine.push_back(static_cast<double>(width));
    }
    const std::vector<std::vector<double>> all = group.Gather(mine);
    for (size_t r = 0; r < parts.size(); ++r) {
      auto value = all[r].begin();
      for (size_t i = 0; i < parts[r].count; ++i) whole.row_loss[parts[r].first + i] = *value++;
      for (size_t tile = 0; tile < CodedTiles(parts[r].count); ++tile) {
        TileTally& tally = whole.tallies[parts[r].first / kCodedTileRows + tile];
        tally.error = *value++;
        tally.energy = *value++;
        for (uint64_t& width : tally.widths) width = static_cast<uint64_t>(*value++);
      }
    }
  }

  // [rows, cols] on the processor.
  static ConstTensor IntegersOf(const Matrix<int16_t>& n) {
    return {reinterpret_cast<const std::byte*>(n.data()), n.rows(), n.cols(), n.cols(), DType::kI16, Device::Cpu()};
  }

  const Part part_;
  TileTask task_;
  Array w_, weights_, n_there_;
  Matrix<int16_t> n_;
  std::vector<int32_t> rows_;
  std::vector<uint32_t> order_;
  std::vector<int16_t> row_step_, row_class_;
  std::vector<double> row_loss_;
  std::vector<TileTally> tallies_;
};

// SolveTiles by all ranks.
void SolveTogether(std::span<const TileTask> tasks, const StepPrices& prices, const Group& group) {
  if (group.alone()) return SolveTiles(tasks, prices);
  std::vector<std::vector<Part>> parts;
  std::vector<std::unique_ptr<PartOfTask>> mine;
  std::vector<TileTask> mine_tasks;
  for (const TileTask& task : tasks) {
    parts.push_back(PartsOfRows(task.w.rows, task.v, group.size()));
    mine.push_back(std::make_unique<PartOfTask>(task, parts.back()[group.rank()]));
    if (parts.back()[group.rank()].count > 0) mine_tasks.push_back(mine.back()->task());
  }
  SolveTiles(mine_tasks, prices);
  for (size_t m = 0; m < tasks.size(); ++m) mine[m]->Share(tasks[m], parts[m], group);
}

}  // namespace

std::vector<StepSolution> SolveSteps(const std::vector<StepTask>& tasks, double log2_c,
                                     const StepPrices& prices, const Group& group) {
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
  SolveTogether(tile_tasks, prices, group);
  for (size_t m = 0; m < tasks.size(); ++m) solutions[m].report = Report(tasks[m], row_loss[m], tallies[m]);
  return solutions;
}

}  // namespace mica
