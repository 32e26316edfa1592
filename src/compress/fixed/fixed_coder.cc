#include "compress/fixed/fixed_coder.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "base/context.h"
#include "base/error.h"
#include "compress/budget/demands.h"
#include "compress/curvature/score_histogram.h"
#include "compress/fixed/plan.h"
#include "device/cuda.h"
#include "ops/codes/codes.h"

namespace mica {
namespace {

// What the statistics of a model of this shape could be: all channels alike.
Statistics FlatStatistics(const ModelConfig& config) {
  Statistics flat;
  flat.inputs.resize(config.layers);
  flat.linears.resize(config.layers);
  for (size_t l = 0; l < config.layers; ++l) {
    for (const LinearKind kind : kLinearKinds) {
      const size_t cols = LinearShape(config, kind).cols;
      InputStatistics& input = flat.inputs[l][static_cast<size_t>(InputOf(kind))];
      input.energy.assign(cols, 1.0);
      input.information.assign(cols, 0.0);
      flat.linears[l][static_cast<size_t>(kind)].weight_energy.assign(cols, 1.0);
    }
  }
  return flat;
}

}  // namespace

AllocationSettings FixedCoder::Allocating(BudgetKind kind, double budget) const {
  return {
      .options = settings_.bit_options, .kind = kind, .budget = budget, .group_size = settings_.group_size};
}

BudgetKind FixedCoder::kind() const {
  return task_.budget.target == BudgetTarget::kMeanBits ? BudgetKind::kMeanCodeBits
                                                        : BudgetKind::kBitsPerWeight;
}

std::string FixedCoder::limits() const {
  return fmt::format("bit widths {}", fmt::join(settings_.bit_options, ","));
}

void FixedCoder::CheckBudget(const OtherBytes& other) const {
  BudgetPerWeight(other, ReachOfModel(), CompressedWeights(config_));
}

Reach FixedCoder::ReachOfModel() const {
  const std::vector<MatrixDemand> demands =
      Demands(FlatStatistics(config_), config_, task_.sparsity, settings_.sensitivity);
  return ReachOf(demands, Allocating(kind(), 0));
}

PackedMatrix FixedCoder::Smallest(size_t rows, size_t cols) const {
  // Width 0 has fewer parts, and is never alone in a matrix that is worth anything.
  uint8_t least = 16;
  for (const uint8_t bits : settings_.bit_options) {
    if (bits > 0) least = std::min(least, bits);
  }
  FixedMatrix matrix = RoundToNearest(Matrix<float>(rows, cols, 0.0f), least, settings_.group_size);
  std::reverse(matrix.order.begin(), matrix.order.end());  // which is stored where it is not their own
  matrix.mask = MaskOf(task_.sparsity);
  if (matrix.mask != MaskKind::kNone) {
    const size_t every = matrix.mask.cols > 0 ? matrix.mask.cols : 1;
    const size_t kept = matrix.mask.cols > 0 ? matrix.mask.kept : 1;
    matrix.keep = Matrix<uint8_t>(rows, cols, 0);
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < cols; ++c) matrix.keep(r, c) = c % every < kept ? 1 : 0;
    }
  }
  return Pack(matrix);
}

double FixedCoder::LeastBits(double other_bytes) const {
  if (counts_file()) return std::max(0.0, 8 * (task_.budget.value - other_bytes));
  // Of a mean of code bits at least the codes of what a mask keeps.
  const double kept = task_.budget.target == BudgetTarget::kMeanBits ? 1 - task_.sparsity.rate : 1.0;
  return kept * task_.budget.value * static_cast<double>(CompressedWeights(config_));
}

void FixedCoder::Plan(const Statistics& statistics, const OtherBytes& other) {
  statistics_ = &statistics;
  demands_ = Demands(statistics, config_, task_.sparsity, settings_.sensitivity);
  const Reach reach = ReachOf(demands_, Allocating(kind(), 0));
  allocation_ =
      Allocate(demands_, Allocating(kind(), BudgetPerWeight(other, reach, CompressedWeights(config_))));
}

void FixedCoder::SetOtherBytes(size_t layer, const OtherBytes& other, uint64_t matrix_bytes) {
  if (!counts_file() || layer + 1 != config_.layers) return;
  // Widths are planned at once; the last layer takes up what the headers really needed.
  const auto matrices = static_cast<std::ptrdiff_t>(kLinearKinds.size());
  const std::vector<MatrixDemand> last(demands_.end() - matrices, demands_.end());
  Reach reach = ReachOf(last, Allocating(BudgetKind::kBitsPerWeight, 0));
  reach.most = std::numeric_limits<double>::infinity();  // what they cannot take is left over
  const double left =
      BudgetPerWeight(other, reach, CompressedWeights(config_) / config_.layers, matrix_bytes);
  const double most = *std::max_element(settings_.bit_options.begin(), settings_.bit_options.end());
  Allocation refit = Allocate(last, Allocating(BudgetKind::kBitsPerWeight, std::min(left, most)));
  std::move(refit.widths.begin(), refit.widths.end(), allocation_.widths.end() - matrices);
}

std::vector<uint32_t> FixedCoder::ColumnOrder(size_t layer, InputKind input) const {
  const std::vector<double>& energy = statistics_->inputs[layer][static_cast<size_t>(input)].energy;
  const std::vector<uint32_t> order = ActivationOrder(energy, UseOfChannels(*statistics_, layer, input));
  return StoredOrder(order, std::vector<uint8_t>(order.size(), 1), MaskOf(task_.sparsity));
}

FixedCoder::Solved FixedCoder::SolveMatrix(size_t layer, const StageInput& input, StageMatrix& matrix) const {
  const auto kind = static_cast<size_t>(matrix.kind);
  const size_t index = layer * kLinearKinds.size() + kind;
  FixedSolverSettings solver;
  solver.group_size = settings_.group_size;
  solver.sparsity = task_.sparsity;
  solver.saliency_exponent = settings_.saliency_exponent;
  solver.refine_passes = settings_.refine_passes;
  const std::vector<double>& exponents = statistics_->linears[layer][kind].col_exponents;
  solver.col_exponents.assign(exponents.begin(), exponents.end());
  if (MaskOf(task_.sparsity) == MaskKind::kBitmap) {
    solver.pruned_shares = demands_[index].pruned_shares;
    solver.row_importance = RowImportance(statistics_->linears[layer][kind].outputs.fisher);
  }
  Solved solved{layer, matrix.kind, {}, {}};
  Array weights(matrix.weights.rows(), matrix.weights.cols(), DType::kF32, matrix.weights.device());
  solved.solution = InContext(LinearTensorName(*config_.family, layer, matrix.kind), [&] {
    return SolveFixedThere(matrix.weights.view(), input.h, *input.factor, allocation_.widths[index], solver,
                           &solved.report, weights.view());
  });
  matrix.weights = std::move(weights);
  Synchronize(matrix.weights.device());  // other threads go on with all of it
  return solved;
}

CodedMatrix FixedCoder::Finish(Solved solved) const {
  const FixedSolution& matrix = solved.solution;
  const SolverReport& report = solved.report;
  CodedMatrix coded{solved.kind, matrix.Packed(), {}};
  double code_bits = 0;
  for (const uint8_t bits : matrix.widths())
    code_bits += static_cast<double>(bits) * static_cast<double>(matrix.rows());
  const InputStatistics& input = statistics_->inputs[solved.layer][static_cast<size_t>(InputOf(solved.kind))];
  MatrixRecord& record = coded.record =
      RecordOf(coded.packed, matrix.rows(), matrix.cols(), code_bits, input);
  for (const uint8_t bits : matrix.widths()) record.histogram[bits] += matrix.rows();
  record.zero_share = report.zero_share;
  record.relative_error = report.relative_error;
  record.predicted_loss = report.predicted_loss;
  record.measured_loss = report.measured_loss;
  record.dead_channels = report.dead_channels;
  record.damping_doublings = static_cast<uint64_t>(report.damping_doublings);
  record.groups = input.groups;
  record.silhouette = input.silhouette;
  return coded;
}

void FixedCoder::Solve(size_t layer, const StageInput& input, std::vector<StageMatrix>& stage) {
  queue_.Run(
      input.h.device, *task_.group, stage, [&](StageMatrix& matrix) { return SolveMatrix(layer, input, matrix); },
      [this](Solved solved) { return Finish(std::move(solved)); });
}

std::vector<CodedMatrix> FixedCoder::Collect(size_t count) { return queue_.Collect(count); }

}  // namespace mica
