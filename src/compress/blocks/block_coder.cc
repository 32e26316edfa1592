#include "compress/blocks/block_coder.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <utility>

#include "base/context.h"
#include "base/error.h"
#include "base/log.h"
#include "compress/budget/demands.h"
#include "compress/calibrate/layer_pass.h"
#include "compress/inform/steps.h"
#include "device/array.h"
#include "device/cuda.h"

namespace mica {
namespace {

// Layers in which the solver itself is tried on all grids; elsewhere its gain over rounding is taken from
// them.
constexpr size_t kSampledLayers = 3;

}  // namespace

bool BlockCoder::SolvesSample(size_t layer) const {
  const size_t layers = config_.layers, count = std::min(layers, kSampledLayers);
  for (size_t i = 0; i < count; ++i) {
    if (layer == (2 * i + 1) * layers / (2 * count)) return true;
  }
  return false;
}

double BlockCoder::BudgetBits(size_t grid, size_t rows, size_t cols) const {
  return task_.budget.target == BudgetTarget::kMeanBits ? target_->CodeBits(grid, rows, cols)
                                                        : target_->Bits(grid, rows, cols);
}

std::vector<BlockCoder::Unit> BlockCoder::Units() const {
  std::vector<Unit> units;
  for (size_t l = 0; l < config_.layers; ++l) {
    const size_t first = units.size();
    for (const LinearKind kind : kLinearKinds) {
      const size_t number = target_->UnitOf(kind);
      auto unit = std::find_if(units.begin() + static_cast<std::ptrdiff_t>(first), units.end(),
                               [&](const Unit& one) { return target_->UnitOf(one.kinds[0]) == number; });
      if (unit == units.end()) {
        const std::vector<size_t> grids = target_->Candidates(LinearShape(config_, kind).cols);
        units.push_back({TensorRole::kLinear, l, {}, grids, std::vector<UnitOption>(grids.size())});
        unit = units.end() - 1;
      }
      unit->kinds.push_back(kind);
      const MatrixShape shape = LinearShape(config_, kind);
      for (size_t i = 0; i < unit->grids.size(); ++i)
        unit->options[i].bits += BudgetBits(unit->grids[i], shape.rows, shape.cols);
    }
  }
  for (const TensorRole role : {TensorRole::kEmbedding, TensorRole::kHead}) {
    if (!plans_ends_ || (role == TensorRole::kHead && config_.tied_head)) continue;
    Unit& unit = units.emplace_back(Unit{role, 0, {}, target_->Candidates(config_.hidden), {}});
    for (const size_t grid : unit.grids)
      unit.options.push_back({target_->Bits(grid, config_.vocab, config_.hidden), 0});
  }
  return units;
}

Reach BlockCoder::ReachOfModel() const {
  Reach reach;
  for (const Unit& unit : Units()) {
    const auto [least, most] = std::ranges::minmax_element(unit.options, {}, &UnitOption::bits);
    reach.least += least->bits;
    reach.most += most->bits;
  }
  const auto weights = static_cast<double>(PlannedWeights());
  // Where there is nothing to choose, what a budget has beyond that is left over.
  if (reach.least == reach.most) reach.most = std::numeric_limits<double>::infinity();
  reach.least /= weights;
  reach.most /= weights;
  return reach;
}

uint64_t BlockCoder::PlannedWeights() const {
  const uint64_t of_end = plans_ends_ ? uint64_t{config_.vocab} * config_.hidden : 0;
  return CompressedWeights(config_) + (config_.tied_head ? 1 : 2) * of_end;
}

std::string BlockCoder::limits() const {
  std::string names;
  for (const size_t grid : target_->Candidates(LinearShape(config_, LinearKind::kQ).cols)) {
    if (!names.empty()) names += ", ";
    names += target_->grids()[grid].name;
  }
  return names;
}

void BlockCoder::CheckBudget(const OtherBytes& other) const {
  BudgetPerWeight(other, ReachOfModel(), PlannedWeights());
}

PackedMatrix BlockCoder::Smallest(size_t rows, size_t cols) const {
  const std::vector<size_t> candidates = target_->Candidates(cols);
  const size_t least =
      *std::ranges::min_element(candidates, {}, [&](size_t grid) { return target_->Bits(grid, rows, cols); });
  const Matrix<float> nothing(rows, cols, 0.0f);
  return target_->Pack(RoundOnBlocks(nothing.view(), {}, target_->grids()[least]), least);
}

double BlockCoder::LeastBits(double other_bytes) const {
  if (counts_file()) return std::max(0.0, 8 * (task_.budget.value - other_bytes));
  return task_.budget.value * static_cast<double>(CompressedWeights(config_));
}

void BlockCoder::Require(StatisticsSettings& settings) const {
  settings.fisher.output_moments =
      settings_.row_feedback && std::ranges::any_of(kLinearKinds, [&](LinearKind kind) {
        const MatrixShape shape = LinearShape(config_, kind);
        return FeedsRows(task_.device, shape.rows, shape.cols);
      });
  std::set<size_t> widths;
  for (const InputKind input : kInputKinds) widths.insert(InputCols(config_, input));
  for (const size_t cols : widths) {
    for (const size_t grid : target_->Candidates(cols))
      settings.grids.push_back(fmt::format("{} of {} columns", target_->grids()[grid].name, cols));
  }
  settings.grids.push_back("passes " + std::to_string(settings_.refine_passes));
  if (plans_ends_) {
    settings.measure_ends = [this](const MeasuredMatrix& rows) {
      return SolvedLosses(rows, target_->grids(), target_->Candidates(rows.w.cols), settings_);
    };
  }
  settings.measure_grids = [this](const MeasuredMatrix& matrix) {
    const std::vector<size_t> candidates = target_->Candidates(matrix.w.cols);
    GridLosses losses{RoundedLosses(matrix, target_->grids(), candidates), {}};
    if (SolvesSample(matrix.layer))
      losses.solved = SolvedLosses(matrix, target_->grids(), candidates, settings_);
    return losses;
  };
}

void BlockCoder::Plan(const Statistics& statistics, const OtherBytes& other) {
  statistics_ = &statistics;
  const auto of = [&](size_t layer, LinearKind kind) -> const GridLosses& {
    return statistics.linears[layer][static_cast<size_t>(kind)].grids;
  };
  // What the solver leaves of the loss of rounding, by kind and grid: the geometric mean over the layers in
  // which it was tried.
  const size_t grids = target_->grids().size();
  Matrix<double> left(kLinearKinds.size(), grids, 0.0);
  for (const LinearKind kind : kLinearKinds) {
    for (size_t g = 0; g < grids; ++g) {
      double sum = 0, count = 0;
      for (size_t l = 0; l < config_.layers; ++l) {
        if (of(l, kind).solved.empty()) continue;
        const double ratio = of(l, kind).solved[g] / of(l, kind).rounded[g];
        if (!std::isfinite(ratio) || !(ratio > 0)) continue;
        sum += std::log(ratio);
        ++count;
      }
      left(static_cast<size_t>(kind), g) = count > 0 ? std::exp(sum / count) : 1.0;
    }
  }
  std::vector<Unit> units = Units();
  std::vector<std::vector<UnitOption>> options;
  for (Unit& unit : units) {
    const std::vector<double>& of_end =
        unit.role == TensorRole::kHead ? statistics.ends.head_losses : statistics.ends.embedding_losses;
    for (size_t i = 0; i < unit.grids.size(); ++i) {
      // Of an embedding that nothing is known of: as a rule of thumb.
      if (unit.role != TensorRole::kLinear)
        unit.options[i].loss = of_end.empty()
                                   ? std::exp2(-2 * target_->grids()[unit.grids[i]].bits_per_weight)
                                   : of_end[unit.grids[i]];
      for (const LinearKind kind : unit.kinds) {
        const GridLosses& losses = of(unit.layer, kind);
        const size_t g = unit.grids[i];
        unit.options[i].loss +=
            losses.solved.empty() ? losses.rounded[g] * left(static_cast<size_t>(kind), g) : losses.solved[g];
      }
    }
    options.push_back(unit.options);
  }
  const uint64_t weights = PlannedWeights();
  const double budget = BudgetPerWeight(other, ReachOfModel(), weights) * static_cast<double>(weights);
  const std::vector<size_t> choice = ChooseOptions(options, budget * (1 + 1e-12));
  chosen_.assign(config_.layers * kLinearKinds.size(), 0);
  std::vector<uint64_t> of_grid(grids, 0);
  double loss = 0, stored = 0;
  for (size_t u = 0; u < units.size(); ++u) {
    loss += options[u][choice[u]].loss;
    const size_t grid = units[u].grids[choice[u]];
    if (units[u].role != TensorRole::kLinear) stored += options[u][choice[u]].bits;
    if (units[u].role == TensorRole::kEmbedding) embedding_grid_ = grid;
    if (units[u].role == TensorRole::kHead) head_grid_ = grid;
    for (const LinearKind kind : units[u].kinds) {
      const MatrixShape shape = LinearShape(config_, kind);
      stored += target_->Bits(grid, shape.rows, shape.cols);
      chosen_[units[u].layer * kLinearKinds.size() + static_cast<size_t>(kind)] = grid;
      ++of_grid[grid];
    }
  }
  bits_per_weight_ = stored / static_cast<double>(weights);
  std::string counts;
  for (size_t g = 0; g < grids; ++g) {
    if (of_grid[g] > 0)
      counts += fmt::format("{}{} {}", counts.empty() ? "" : ", ", of_grid[g], target_->grids()[g].name);
  }
  if (plans_ends_) {
    counts += fmt::format("; embedding {}", target_->grids()[embedding_grid_].name);
    if (!config_.tied_head) counts += fmt::format(", head {}", target_->grids()[head_grid_].name);
  }
  LogInfo("matrices by type: {}; {:.4f} bits per weight, predicted divergence {:.4g} nats a token", counts,
          bits_per_weight_, loss / 2);
}

BlockCoder::Solved BlockCoder::SolveMatrix(size_t layer, const StageInput& input, StageMatrix& matrix) const {
  Solved solved{layer, matrix.kind, GridOfMatrix(layer, matrix.kind), {}, {}};
  Array weights(matrix.weights.rows(), matrix.weights.cols(), DType::kF32, matrix.weights.device());
  solved.solution = InContext(LinearTensorName(*config_.family, layer, matrix.kind), [&] {
    const BlockGrid& grid = target_->grids()[solved.grid];
    if (!FeedsRows(input.h.device, weights.rows(), weights.cols())) {
      return SolveOnBlocks(matrix.weights.view(), input.h, *input.factor, grid, settings_, &solved.report,
                           weights.view());
    }
    const StepPlan rows =
        PlanRowSteps(statistics_->linears[layer][static_cast<size_t>(matrix.kind)].outputs, 0, {});
    const Array v = rows.v.empty() ? Array() : CopyTo(input.h.device, rows.v.view());
    return SolveOnBlocks(matrix.weights.view(), input.h, *input.factor, {rows.row_order, v.view()}, grid,
                         settings_, &solved.report, weights.view());
  });
  matrix.weights = std::move(weights);
  Synchronize(matrix.weights.device());  // other threads go on with all of it
  return solved;
}

CodedMatrix BlockCoder::Finish(Solved solved) const {
  const BlockSolution& matrix = solved.solution;
  const SolverReport& report = solved.report;
  CodedMatrix coded{solved.kind, target_->Pack(matrix, solved.grid), {}};
  const InputStatistics& input = statistics_->inputs[solved.layer][static_cast<size_t>(InputOf(solved.kind))];
  MatrixRecord& record = coded.record =
      RecordOf(coded.packed, matrix.rows(), matrix.cols(),
               target_->CodeBits(solved.grid, matrix.rows(), matrix.cols()), input);
  record.type = target_->grids()[solved.grid].name;
  record.zero_share = static_cast<double>(target_->CountZeros(coded.packed)) /
                      (static_cast<double>(matrix.rows()) * static_cast<double>(matrix.cols()));
  record.relative_error = report.relative_error;
  record.predicted_loss = report.predicted_loss;
  record.measured_loss = report.measured_loss;
  record.dead_channels = report.dead_channels;
  record.damping_doublings = static_cast<uint64_t>(report.damping_doublings);
  return coded;
}

void BlockCoder::Solve(size_t layer, const StageInput& input, std::vector<StageMatrix>& stage) {
  queue_.Run(
      input.h.device, *task_.group, stage, [&](StageMatrix& matrix) { return SolveMatrix(layer, input, matrix); },
      [this](Solved solved) { return Finish(std::move(solved)); });
}

std::vector<CodedMatrix> BlockCoder::Collect(size_t count) { return queue_.Collect(count); }

}  // namespace mica
