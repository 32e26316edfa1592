#include "compress/entropy/entropy_coder.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "base/context.h"
#include "base/error.h"
#include "base/log.h"
#include "compress/budget/demands.h"
#include "ops/codes/codes.h"
#include "ops/codes/entropy_model.h"

namespace mica {
namespace {

// Of the budget in bits per weight: how far below it the last matrix may leave the total.
constexpr double kBudgetSlack = 0.004;
constexpr int kLastMatrixTries = 12;
// What must be left for the matrices to come, bits per weight: so much, or this share of the mean if that is
// less.
constexpr double kLeastOfRest = 0.3, kLeastShareOfRest = 0.15;
constexpr double kLargestRise = 32;  // octaves by which a step may grow at once
// Share of zeros asked for on top, so that the promise "at least" holds after the last matrix.
constexpr double kZeroMargin = 0.002;
// Integers have 16 bits, so a larger budget would not make them finer.
constexpr double kLeastBits = 0.1, kMostBits = 16;

}  // namespace

double EntropyCoder::weights() const { return static_cast<double>(CompressedWeights(config_)); }

StepSettings EntropyCoder::step_settings() const {
  StepSettings steps;
  steps.damping = task_.damping;
  return steps;
}

Reach EntropyCoder::ReachOfModel() const {
  Reach reach{kLeastBits, kMostBits};
  if (task_.budget.target == BudgetTarget::kMeanBits) return reach;
  // Nothing but zeros still has steps and tables.
  double bits = 0;
  for (const LinearKind kind : kLinearKinds) {
    const MatrixShape shape = LinearShape(config_, kind);
    bits += static_cast<double>(config_.layers * Smallest(shape.rows, shape.cols).bits());
  }
  reach.least = std::max(reach.least, bits / weights());
  return reach;
}

void EntropyCoder::CheckBudget(const OtherBytes& other) const {
  BudgetPerWeight(other, ReachOfModel(), CompressedWeights(config_));
}

PackedMatrix EntropyCoder::Smallest(size_t rows, size_t cols) const {
  EntropyMatrix matrix;
  matrix.rows = rows;
  matrix.cols = cols;
  matrix.states = settings_.trellis ? kTrellisStates : 1;
  matrix.n = Matrix<int16_t>(rows, cols, 0);
  matrix.row_step.assign(rows, 0);
  matrix.col_step.assign(cols, 0);
  if (settings_.trellis && settings_.row_feedback) matrix.row_key.assign(rows, 0);
  matrix.tables = DefaultEntropyTables(matrix.states);
  FitEntropyModel(matrix);
  return Pack(matrix);
}

double EntropyCoder::LeastBits(double other_bytes) const {
  if (counts_file()) return std::max(0.0, 8 * (task_.budget.value - other_bytes));
  return task_.budget.value * weights();
}

void EntropyCoder::Require(StatisticsSettings& settings) const {
  settings.step_sizes = true;
  settings.fisher.output_moments = settings_.row_feedback;
}

void EntropyCoder::Plan(const Statistics& statistics, const OtherBytes& other) {
  statistics_ = &statistics;
  const double per_weight = BudgetPerWeight(other, ReachOfModel(), CompressedWeights(config_));
  std::vector<StepSizes> sizes;
  for (const auto& layer : statistics.linears) {
    for (const LinearStatistics& linear : layer) sizes.push_back(linear.sizes);
  }
  budget_bits_ = per_weight * weights();
  const double zeros = task_.sparsity.rate > 0 ? std::min(1.0, task_.sparsity.rate + kZeroMargin) : 0.0;
  try {
    control_.emplace(sizes, budget_bits_ - 0.25 * kBudgetSlack * weights(), zeros, settings_.trellis);
  } catch (const Error& error) {
    Fail("--{} is {:.12g}: {}", BudgetOption(task_.budget.target), task_.budget.value, error.what());
  }
}

void EntropyCoder::SetOtherBytes(size_t, const OtherBytes& other, uint64_t) {
  if (!counts_file()) return;
  const Reach any{0, std::numeric_limits<double>::infinity()};  // whether it is enough shows at the end
  budget_bits_ = BudgetPerWeight(other, any, CompressedWeights(config_)) * weights();
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

void EntropyCoder::Shrink(MatrixView<const float> w, const StepPlan& plan, double most,
                          RateControl::Choice& choice, Attempt& attempt) const {
  double low = choice.log2_c, high = low;
  for (double rise = 1; attempt.counted_bits > most && rise <= kLargestRise; rise *= 2) {
    low = choice.log2_c;
    high = choice.log2_c += rise;
    attempt = Try(w, plan, choice);
  }
  if (attempt.counted_bits > most) return;
  const double least = most - kBudgetSlack * weights();
  for (int i = 0; i < kLastMatrixTries && attempt.counted_bits < least; ++i) {
    choice.log2_c = 0.5 * (low + high);
    attempt = Try(w, plan, choice);
    (attempt.counted_bits > most ? low : high) = choice.log2_c;
  }
  if (attempt.counted_bits <= most) return;
  choice.log2_c = high;
  attempt = Try(w, plan, choice);
}

CodedMatrix EntropyCoder::Solve(size_t layer, LinearKind kind, MatrixView<const float> w) {
  const double matrix_weights = static_cast<double>(w.rows) * static_cast<double>(w.cols);
  RateControl::Choice choice = control_->Next();
  const std::string name = LinearTensorName(*config_.family, layer, kind);
  const StepPlan plan = InContext(name, [&] {
    return PlanSteps(columns_, statistics_->linears[layer][static_cast<size_t>(kind)].outputs,
                     step_settings());
  });
  Attempt attempt = InContext(name, [&] { return Try(w, plan, choice); });
  // One weight that dwarfs its matrix, or the inputs of those that follow, takes what was meant for the
  // others: a matrix that would leave them nothing gets its share of what is left.
  const double left = budget_bits_ - control_->bits_so_far();
  const double rest = control_->weights_left() - matrix_weights;
  const double for_rest = rest * std::min(kLeastOfRest, kLeastShareOfRest * budget_bits_ / weights());
  if (rest > 0 && attempt.counted_bits > left - for_rest) {
    LogWarningOnce(
        "{}: takes {:.2f} bits per weight at the step of all others, which leaves those after it none; it "
        "gets a "
        "larger step. A weight that dwarfs all others makes such a model",
        name, attempt.counted_bits / matrix_weights);
    Shrink(w, plan, left * matrix_weights / (rest + matrix_weights), choice, attempt);
  }
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
    // With few bits a weight the rate hardly falls with the step, and none may have fitted.
    if (Excess(attempt) > 0 && high > 1e8)
      Shrink(w, plan, budget_bits_ - control_->bits_so_far(), choice, attempt);
    if (Excess(attempt) > 0 && high < 1e8) {
      choice.log2_c = high;
      attempt = Try(w, plan, choice);
    }
  }
  if (Excess(attempt) > 0) {
    Fail(
        "--{} is {}, expected more: of {:.3f} bits per weight for all matrices, those up to {} alone take "
        "{:.3f}, tables and steps included",
        BudgetOption(task_.budget.target), fmt::format("{:.12g}", task_.budget.value),
        budget_bits_ / weights(), name, (control_->bits_so_far() + attempt.counted_bits) / weights());
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
