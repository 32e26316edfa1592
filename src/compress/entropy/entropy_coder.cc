#include "compress/entropy/entropy_coder.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/error.h"
#include "compress/budget/demands.h"
#include "ops/codes/codes.h"
#include "ops/codes/entropy_model.h"

namespace mica {
namespace {

// Of the budget in bits per weight: how far below it the last matrix may leave the total.
constexpr double kBudgetSlack = 0.004;
constexpr int kLastMatrixTries = 12;
// Share of zeros asked for on top, so that the promise "at least" holds after the last matrix.
constexpr double kZeroMargin = 0.002;
// Integers have 16 bits, so a larger budget would not make them finer.
constexpr double kLeastBits = 0.1, kMostBits = 16;

void CheckReach(double per_weight) {
  if (per_weight >= kLeastBits && per_weight <= kMostBits) return;
  Fail("{:.3f} bits per weight are out of reach for --coding entropy, expected {} to {}", per_weight,
       kLeastBits, kMostBits);
}

}  // namespace

double EntropyCoder::weights() const { return static_cast<double>(CompressedWeights(config_)); }

StepSettings EntropyCoder::step_settings() const {
  StepSettings steps;
  steps.damping = task_.damping;
  return steps;
}

void EntropyCoder::CheckBudget(uint64_t other_bytes) const { CheckReach(BudgetPerWeight(other_bytes)); }

double EntropyCoder::LeastBits(double other_bytes) const {
  if (counts_file()) return std::max(0.0, 8 * (task_.budget.value - other_bytes));
  return task_.budget.value * weights();
}

void EntropyCoder::Require(StatisticsSettings& settings) const {
  settings.step_sizes = true;
  settings.fisher.output_moments = settings_.row_feedback;
}

void EntropyCoder::Plan(const Statistics& statistics, uint64_t other_bytes) {
  statistics_ = &statistics;
  const double per_weight = BudgetPerWeight(other_bytes);
  CheckReach(per_weight);
  std::vector<StepSizes> sizes;
  for (const auto& layer : statistics.linears) {
    for (const LinearStatistics& linear : layer) sizes.push_back(linear.sizes);
  }
  budget_bits_ = per_weight * weights();
  const double zeros = task_.sparsity.rate > 0 ? std::min(1.0, task_.sparsity.rate + kZeroMargin) : 0.0;
  control_.emplace(sizes, budget_bits_ - 0.25 * kBudgetSlack * weights(), zeros, settings_.trellis);
}

void EntropyCoder::SetOtherBytes(size_t, uint64_t other_bytes, uint64_t) {
  if (!counts_file()) return;
  budget_bits_ = BudgetPerWeight(other_bytes) * weights();
  control_->SetBudget(budget_bits_ - 0.25 * kBudgetSlack * weights());
}

void EntropyCoder::BeginInput(MatrixView<const float> h) {
  columns_.reset();  // never two at once
  columns_ = std::make_shared<const ColumnSteps>(PlanColumns(h, step_settings()));
}

EntropyCoder::Attempt EntropyCoder::Try(MatrixView<const float> w, const StepPlan& plan,
                                        const RateControl::Choice& choice) const {
  Attempt attempt;
  attempt.weights = Matrix<float>(w.rows, w.cols);
  EntropyMatrix solved =
      SolveSteps(w, plan, choice.log2_c, {settings_.trellis, settings_.lambda, choice.zero_price},
                 &attempt.report, attempt.weights);
  FitEntropyModel(solved);
  attempt.packed = Pack(solved);
  attempt.counted_bits = static_cast<double>(
      task_.budget.target == BudgetTarget::kMeanBits ? attempt.packed.code_bits() : attempt.packed.bits());
  return attempt;
}

CodedMatrix EntropyCoder::Solve(size_t layer, LinearKind kind, MatrixView<const float> w) {
  const double matrix_weights = static_cast<double>(w.rows) * static_cast<double>(w.cols);
  RateControl::Choice choice = control_->Next();
  const StepPlan plan =
      PlanSteps(columns_, statistics_->linears[layer][static_cast<size_t>(kind)].outputs, step_settings());
  Attempt attempt = Try(w, plan, choice);
  // The last matrix brings the total to just below the budget; a step of 1 / 512 octave changes it by less
  // than the slack.
  if (layer + 1 == config_.layers && kind == kLinearKinds.back()) {
    double low = -1e9, high = 1e9;  // log2 c that stores too much, and that fits
    for (int i = 0; i < kLastMatrixTries; ++i) {
      const double excess = Excess(attempt);
      if (excess <= 0 && excess >= -kBudgetSlack * weights()) break;
      (excess > 0 ? low : high) = choice.log2_c;
      double next =
          choice.log2_c + (excess / matrix_weights + 0.25 * kBudgetSlack * weights() / matrix_weights) / 0.9;
      if (next <= low || next >= high) next = 0.5 * (std::max(low, high - 4) + std::min(high, low + 4));
      choice.log2_c = next;
      attempt = Try(w, plan, choice);
    }
    if (Excess(attempt) > 0 && high < 1e8) {
      choice.log2_c = high;
      attempt = Try(w, plan, choice);
    }
  }
  if (Excess(attempt) > 0) {
    Fail(
        "a budget of {:.3f} bits per weight is out of reach: the matrices up to {} alone take {:.3f}, tables "
        "and "
        "steps included; ask for more bits",
        budget_bits_ / weights(), LinearTensorName(*config_.family, layer, kind),
        (control_->bits_so_far() + attempt.counted_bits) / weights());
  }
  const double zeros = attempt.report.zero_share * matrix_weights;
  control_->Record(choice, attempt.counted_bits, zeros);

  CodedMatrix coded;
  MatrixRecord& record = coded.record =
      RecordOf(attempt.packed, w.rows, w.cols, attempt.counted_bits,
               statistics_->inputs[layer][static_cast<size_t>(InputOf(kind))]);
  record.zero_share = attempt.report.zero_share;
  record.relative_error = attempt.report.relative_error;
  record.predicted_loss = attempt.report.loss;
  record.dead_channels = plan.columns->dead_channels;
  record.damping_doublings = static_cast<uint64_t>(plan.columns->damping_doublings);
  record.control = ControlRecord{.bits = static_cast<uint64_t>(attempt.counted_bits),
                                 .zeros = zeros,
                                 .log2_c = choice.log2_c,
                                 .zero_price = choice.zero_price,
                                 .predicted_bits = choice.predicted_bits,
                                 .predicted_zeros = choice.predicted_zeros,
                                 .other = {}};
  coded.packed = std::move(attempt.packed);
  coded.weights = std::move(attempt.weights);
  return coded;
}

void EntropyCoder::Replay(const MatrixRecord& record) {
  const ControlRecord& control = record.control.value();
  RateControl::Choice choice;
  choice.predicted_bits = control.predicted_bits.value();
  choice.predicted_zeros = control.predicted_zeros.value();
  control_->Record(choice, static_cast<double>(control.bits.value()), control.zeros.value());
}

}  // namespace mica
