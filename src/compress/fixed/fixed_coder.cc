#include "compress/fixed/fixed_coder.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/error.h"
#include "compress/budget/demands.h"
#include "compress/curvature/score_histogram.h"
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

void FixedCoder::CheckBudget(uint64_t other_bytes) const {
  const double per_weight = BudgetPerWeight(other_bytes);
  const std::vector<MatrixDemand> demands =
      Demands(FlatStatistics(config_), config_, task_.sparsity, settings_.sensitivity);
  try {
    Allocate(demands, Allocating(kind(), per_weight));
  } catch (const Error& error) {
    if (!counts_file()) throw;
    Fail("--size is {:.0f} bytes, of which embedding, head and norms take {}; for the rest, {}",
         task_.budget.value, other_bytes, error.what());
  }
}

double FixedCoder::LeastBits(double other_bytes) const {
  if (counts_file()) return std::max(0.0, 8 * (task_.budget.value - other_bytes));
  // Of a mean of code bits at least the codes of what a mask keeps.
  const double kept = task_.budget.target == BudgetTarget::kMeanBits ? 1 - task_.sparsity.rate : 1.0;
  return kept * task_.budget.value * static_cast<double>(CompressedWeights(config_));
}

void FixedCoder::Plan(const Statistics& statistics, uint64_t other_bytes) {
  statistics_ = &statistics;
  demands_ = Demands(statistics, config_, task_.sparsity, settings_.sensitivity);
  allocation_ = Allocate(demands_, Allocating(kind(), BudgetPerWeight(other_bytes)));
}

void FixedCoder::SetOtherBytes(size_t layer, uint64_t other_bytes, uint64_t matrix_bytes) {
  if (!counts_file() || layer + 1 != config_.layers) return;
  // Widths are planned at once; the last layer takes up what the headers really needed.
  const auto matrices = static_cast<std::ptrdiff_t>(kLinearKinds.size());
  const double left = BitsPerWeightForFile(task_.budget.value, other_bytes + matrix_bytes,
                                           CompressedWeights(config_) / config_.layers);
  const double most = *std::max_element(settings_.bit_options.begin(), settings_.bit_options.end());
  Allocation refit = Allocate({demands_.end() - matrices, demands_.end()},
                              Allocating(BudgetKind::kBitsPerWeight, std::min(left, most)));
  std::move(refit.widths.begin(), refit.widths.end(), allocation_.widths.end() - matrices);
}

CodedMatrix FixedCoder::Solve(size_t layer, LinearKind kind, MatrixView<const float> w) {
  const size_t index = layer * kLinearKinds.size() + static_cast<size_t>(kind);
  FixedSolverSettings solver;
  solver.group_size = settings_.group_size;
  solver.damping = task_.damping;
  solver.sparsity = task_.sparsity;
  solver.saliency_exponent = settings_.saliency_exponent;
  solver.refine_passes = settings_.refine_passes;
  if (MaskOf(task_.sparsity) == MaskKind::kBitmap) {
    solver.pruned_shares = demands_[index].pruned_shares;
    solver.row_importance =
        RowImportance(statistics_->linears[layer][static_cast<size_t>(kind)].outputs.fisher);
  }
  SolverReport report;
  CodedMatrix coded;
  coded.weights = Matrix<float>(w.rows, w.cols);
  const FixedMatrix solved = SolveFixed(w, h_, allocation_.widths[index], solver, &report, coded.weights);
  coded.packed = Pack(solved);

  double code_bits = 0;
  for (const uint8_t bits : solved.widths)
    code_bits += static_cast<double>(bits) * static_cast<double>(w.rows);
  const InputStatistics& input = statistics_->inputs[layer][static_cast<size_t>(InputOf(kind))];
  MatrixRecord& record = coded.record = RecordOf(coded.packed, w.rows, w.cols, code_bits, input);
  for (const uint8_t bits : solved.widths) record.histogram[bits] += w.rows;
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

}  // namespace mica
