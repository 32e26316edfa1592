#include "compress/entropy/entropy_coder.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "base/context.h"
#include "base/error.h"
#include "base/log.h"
#include "base/system.h"
#include "compress/budget/demands.h"
#include "compress/coder/later.h"
#include "ops/codes/codes.h"
#include "ops/codes/entropy_model.h"
#include "ops/codes/integers.h"

namespace mica {
namespace {

// Of the budget in bits per weight: how far below it the last matrix may leave the total.
constexpr double kBudgetSlack = 0.004;
constexpr int kLastMatrixTries = 12;
// What must be left for the matrices to come, bits per weight: so much, or this share of the mean if that is
// less.
constexpr double kLeastOfRest = 0.3, kLeastShareOfRest = 0.15;
constexpr double kLargestRise = 32;  // octaves by which a step may grow at once
constexpr int kShrinkTries = 6;
// Share of zeros asked for on top, so that the promise "at least" holds after the last matrix.
constexpr double kZeroMargin = 0.002;
// Integers have 16 bits, so a larger budget would not make them finer.
constexpr double kLeastBits = 0.1, kMostBits = 16;

}  // namespace

double EntropyCoder::weights() const { return static_cast<double>(CompressedWeights(config_)); }

std::vector<double> EntropyCoder::LeastBitsOfMatrices() const {
  std::vector<double> bits;
  for (const LinearKind kind : kLinearKinds) {
    const MatrixShape shape = LinearShape(config_, kind);
    const auto [known, is_new] = least_of_shapes_.try_emplace({shape.rows, shape.cols}, 0.0);
    if (is_new) known->second = static_cast<double>(Counted(Smallest(shape.rows, shape.cols)));
    bits.push_back(known->second);
  }
  const size_t kinds = bits.size();
  for (size_t i = kinds; i < config_.layers * kinds; ++i) bits.push_back(bits[i - kinds]);
  return bits;
}

uint64_t EntropyCoder::Counted(const PackedMatrix& packed) const {
  return task_.budget.target == BudgetTarget::kMeanBits ? packed.code_bits() : packed.bits();
}

Reach EntropyCoder::ReachOfModel() const {
  Reach reach{kLeastBits, kMostBits};
  if (task_.budget.target == BudgetTarget::kMeanBits) return reach;
  // Nothing but zeros still has steps and tables.
  const std::vector<double> least = LeastBitsOfMatrices();
  reach.least = std::max(reach.least, std::accumulate(least.begin(), least.end(), 0.0) / weights());
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
  matrix.row_step.assign(rows, 0);
  matrix.col_step.assign(cols, 0);
  if (settings_.trellis && settings_.row_feedback) matrix.row_key.assign(rows, 0);
  matrix.tables = DefaultEntropyTables(matrix.states);
  Array zeros(rows, cols, DType::kI16, task_.device);
  FillZero(zeros.view());
  const ConstTensor n = std::as_const(zeros).view();
  FitEntropyModel(matrix, n);
  return Pack(matrix, n);
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
    least_bits_ = LeastBitsOfMatrices();
    control_.emplace(sizes, budget_bits_ - 0.25 * kBudgetSlack * weights(), zeros, settings_.trellis,
                     least_bits_);
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

std::vector<uint32_t> EntropyCoder::ColumnOrder(size_t layer, InputKind input) const {
  return ProcessingOrder(statistics_->inputs[layer][static_cast<size_t>(input)].inverse_diagonal,
                         UseOfChannels(*statistics_, layer, input));
}

std::vector<StepPlan> EntropyCoder::PlanRows(size_t layer, InputKind input) const {
  std::vector<StepPlan> plans;
  for (const LinearKind kind : kLinearKinds) {
    if (InputOf(kind) != input) continue;
    plans.push_back(InContext(LinearTensorName(*config_.family, layer, kind), [&] {
      return PlanRowSteps(statistics_->linears[layer][static_cast<size_t>(kind)].outputs,
                          SignalOf(*statistics_, layer, kind), {});
    }));
  }
  return plans;
}

std::vector<StepPlan> EntropyCoder::TakeRows(size_t layer, InputKind input, Device device) {
  std::vector<StepPlan> rows;
  if (rows_ahead_.valid()) rows = rows_ahead_.get();
  if (rows.empty() || rows_of_ != std::pair(layer, input)) rows = PlanRows(layer, input);
  const bool last = input == kInputKinds.back();
  rows_of_ = {last ? layer + 1 : layer, last ? kInputKinds.front() : kInputKinds[static_cast<size_t>(input) + 1]};
  if (device.is_cuda() && rows_of_.first < config_.layers)
    rows_ahead_ = Later([this, of = rows_of_] { return PlanRows(of.first, of.second); });
  return rows;
}

std::vector<EntropyCoder::Solved> EntropyCoder::SolveStage(size_t layer, const StageInput& input,
                                                           std::vector<StepPlan>& rows,
                                                           const RateControl::Choice& choice,
                                                           const std::vector<StageMatrix>& stage,
                                                           std::vector<Array>& decoded) const {
  const auto columns = std::make_shared<const ColumnSteps>(PlanColumns(input.factor));
  MICA_CHECK(rows.size() == stage.size());
  std::vector<StepTask> tasks;
  decoded.clear();
  for (const StageMatrix& matrix : stage)
    decoded.emplace_back(matrix.weights.rows(), matrix.weights.cols(), DType::kF32, matrix.weights.device());
  for (size_t m = 0; m < stage.size(); ++m) {
    rows[m].columns = columns;
    tasks.push_back({stage[m].weights.view(), &rows[m], decoded[m].view()});
  }
  std::vector<StepSolution> solutions = SolveSteps(tasks, choice.log2_c,
                                                   {.trellis = settings_.trellis,
                                                    .window = settings_.trellis_window,
                                                    .ahead = settings_.trellis_ahead,
                                                    .lambda = settings_.lambda,
                                                    .zero_price = choice.zero_price},
                                                   *task_.group);
  std::vector<Solved> solved;
  for (size_t m = 0; m < stage.size(); ++m) {
    solved.push_back({layer, stage[m].kind, std::move(solutions[m]), choice.log2_c, choice.zero_price,
                      choice.predicted[m], input.factor->dead().size(),
                      static_cast<size_t>(input.factor->raises())});
  }
  return solved;
}

CodedMatrix EntropyCoder::Finish(Solved solved) const {
  EntropyMatrix& matrix = solved.solution.matrix;
  const Array on_device = std::move(solved.solution.n);
  const ConstTensor n = on_device.empty() ? IntegersOf(matrix) : on_device.view();
  FitEntropyModel(matrix, n);
  CodedMatrix coded{solved.kind, Pack(matrix, n), {}};
  const uint64_t counted = Counted(coded.packed);
  const StepReport& report = solved.solution.report;
  MatrixRecord& record = coded.record =
      RecordOf(coded.packed, matrix.rows, matrix.cols, static_cast<double>(counted),
               statistics_->inputs[solved.layer][static_cast<size_t>(InputOf(solved.kind))]);
  record.zero_share = report.zero_share;
  record.relative_error = report.relative_error;
  record.predicted_loss = report.loss;
  record.dead_channels = solved.dead_channels;
  record.damping_doublings = solved.damping_doublings;
  record.control = ControlRecord{
      .bits = counted,
      .zeros = report.zero_share * static_cast<double>(matrix.rows) * static_cast<double>(matrix.cols),
      .log2_c = solved.log2_c,
      .zero_price = solved.zero_price,
      .predicted_bits = solved.predicted.bits,
      .predicted_zeros = solved.predicted.zeros,
      .other = {}};
  return coded;
}

void EntropyCoder::Settle(Stage& stage) {
  if (!stage.packing.valid()) return;
  const double since = MonotonicSeconds();
  stage.packed = stage.packing.get();
  waited_ += MonotonicSeconds() - since;
  for (const CodedMatrix& matrix : stage.packed) stage.took.push_back(matrix.record.control.value());
}

void EntropyCoder::RecordStages(size_t open) {
  while (recorded_ + open < stages_.size()) {
    Stage& stage = stages_[recorded_++];
    Settle(stage);
    if (!stage.known) ShareSizes(stage.took);
    for (const ControlRecord& took : stage.took)
      control_->Record(static_cast<double>(took.bits.value()), took.zeros.value());
    if (control_->bits_so_far() > budget_bits_) FailOnBudget(stage.last, control_->bits_so_far());
  }
  while (recorded_ > 0 && stages_.front().packed.empty()) stages_.pop_front(), --recorded_;
}

void EntropyCoder::ShareSizes(std::vector<ControlRecord>& took) const {
  std::vector<double> mine;
  for (const ControlRecord& of_matrix : took)
    mine.insert(mine.end(), {static_cast<double>(of_matrix.bits.value()), of_matrix.zeros.value()});
  const std::vector<double> leaders = task_.group->Gather(mine)[0];
  if (task_.group->leads()) return;
  took.clear();
  for (size_t i = 0; i < leaders.size(); i += 2) {
    ControlRecord& of_matrix = took.emplace_back();
    of_matrix.bits = static_cast<uint64_t>(leaders[i]);
    of_matrix.zeros = leaders[i + 1];
  }
}

void EntropyCoder::FailOnBudget(const std::string& name, double bits) const {
  Fail(
      "--{} is {}, expected more: of {:.3f} bits per weight for all matrices, those up to {} alone take "
      "{:.3f}, tables and steps included",
      BudgetOption(task_.budget.target), fmt::format("{:.12g}", task_.budget.value), budget_bits_ / weights(),
      name, bits / weights());
}

void EntropyCoder::Solve(size_t layer, const StageInput& input, std::vector<StageMatrix>& stage) {
  std::vector<StepPlan> rows = TakeRows(layer, InputOf(stage.back().kind), stage.back().weights.device());
  if (layer + 1 == config_.layers && stage.back().kind == kLinearKinds.back())
    return SolveLast(layer, input, rows, stage);
  // The stage before may still be at its packing: its size is known one stage late, whatever the threads do.
  // In the last layer little is left to make up for a surprise.
  RecordStages(layer + 1 < config_.layers ? 1 : 0);
  RateControl::Choice choice = control_->Next(stage.size());
  std::vector<Array> decoded;
  std::vector<Solved> solved = SolveStage(layer, input, rows, choice, stage, decoded);
  double predicted = 0, stage_weights = 0;
  for (const RateControl::Prediction& one : choice.predicted) predicted += one.bits;
  for (const StageMatrix& matrix : stage)
    stage_weights += static_cast<double>(matrix.weights.rows() * matrix.weights.cols());
  const auto takes = [&] {
    double bits = 0;
    for (const Solved& one : solved)
      bits += one.solution.report.rough_bits + least_bits_[static_cast<size_t>(one.kind)];
    return bits;
  };
  // One weight that dwarfs its matrix, or the inputs of those that follow, takes what was meant for the
  // others: a stage that would leave them nothing gets its share of what is left.
  const double left = control_->bits_left() + predicted, rest = control_->weights_left();
  const double for_rest = rest * std::min(kLeastOfRest, kLeastShareOfRest * budget_bits_ / weights());
  if (takes() > left - for_rest) {
    LogWarningOnce(
        "{}: takes some {:.2f} bits per weight at the step of all others, which leaves those after it none; "
        "it gets a "
        "larger step. A weight that dwarfs all others makes such a model",
        LinearTensorName(*config_.family, layer, stage.back().kind), takes() / stage_weights);
    const double most = left * stage_weights / (rest + stage_weights);
    double low = choice.log2_c, high = low;
    const auto retry = [&](double log2_c) {
      choice.log2_c = log2_c;
      solved = SolveStage(layer, input, rows, choice, stage, decoded);
      (takes() > most ? low : high) = log2_c;
    };
    for (double rise = 1; takes() > most && rise <= kLargestRise; rise *= 2)
      retry(high = choice.log2_c + rise);
    for (int i = 0; i < kShrinkTries && high - low > 0.1; ++i) retry(0.5 * (low + high));
    if (choice.log2_c != high) retry(high);
  }
  for (size_t m = 0; m < stage.size(); ++m) stage[m].weights = std::move(decoded[m]);
  Stage& next = stages_.emplace_back();
  next.last = LinearTensorName(*config_.family, layer, stage.back().kind);
  if (!task_.group->leads()) return;
  next.packing = Later([this, solved = std::move(solved)]() mutable {
    std::vector<CodedMatrix> packed;
    for (Solved& one : solved) packed.push_back(Finish(std::move(one)));
    return packed;
  });
}

void EntropyCoder::SolveLast(size_t layer, const StageInput& input, std::vector<StepPlan>& rows,
                             std::vector<StageMatrix>& stage) {
  RecordStages(0);
  MICA_CHECK(stage.size() == 1);
  const double matrix_weights = static_cast<double>(stage[0].weights.rows() * stage[0].weights.cols());
  RateControl::Choice choice = control_->Next();
  std::vector<Array> decoded;
  const auto attempt_at = [&](double log2_c) {
    choice.log2_c = log2_c;
    std::vector<Solved> solved = SolveStage(layer, input, rows, choice, stage, decoded);
    CodedMatrix coded{stage[0].kind, {}, {}};
    std::vector<ControlRecord> took;
    if (task_.group->leads()) {
      coded = Finish(std::move(solved[0]));
      took.push_back(*coded.record.control);
    }
    ShareSizes(took);
    coded.record.control = took[0];
    return coded;
  };
  CodedMatrix attempt = attempt_at(choice.log2_c);
  // The total comes to just below the budget; a step of 1 / 512 octave changes it by less than the slack.
  double low = -1e9, high = 1e9;  // log2 c that stores too much, and that fits
  for (int i = 0; i < kLastMatrixTries; ++i) {
    const double excess = Excess(attempt);
    if (excess <= 0 && excess >= -kBudgetSlack * weights()) break;
    (excess > 0 ? low : high) = choice.log2_c;
    double next =
        choice.log2_c + (excess / matrix_weights + 0.25 * kBudgetSlack * weights() / matrix_weights) / 0.9;
    if (next <= low || next >= high) next = 0.5 * (std::max(low, high - 4) + std::min(high, low + 4));
    attempt = attempt_at(next);
  }
  // With few bits a weight the rate hardly falls with the step, and none may have fitted.
  for (double rise = 1; Excess(attempt) > 0 && high > 1e8 && rise <= kLargestRise; rise *= 2) {
    attempt = attempt_at(low = choice.log2_c + rise);
    if (Excess(attempt) <= 0) high = choice.log2_c, low -= rise;
  }
  for (int i = 0; i < kLastMatrixTries && high < 1e8 && high - low < 1e8; ++i) {
    if (Excess(attempt) <= 0 && Excess(attempt) >= -kBudgetSlack * weights()) break;
    attempt = attempt_at(0.5 * (low + high));
    (Excess(attempt) > 0 ? low : high) = choice.log2_c;
  }
  if (Excess(attempt) > 0 && high < 1e8) attempt = attempt_at(high);
  const std::string name = LinearTensorName(*config_.family, layer, stage[0].kind);
  if (Excess(attempt) > 0) FailOnBudget(name, budget_bits_ + Excess(attempt));
  stage[0].weights = std::move(decoded[0]);
  Stage& last = stages_.emplace_back();
  last.last = name;
  last.took.push_back(attempt.record.control.value());
  last.known = true;
  if (task_.group->leads()) last.packed.push_back(std::move(attempt));
  RecordStages(0);
  LogDebug("{:.2f} s waited for the sizes of packed matrices", waited_);
}

std::vector<CodedMatrix> EntropyCoder::Collect(size_t count) {
  std::vector<CodedMatrix> collected;
  for (Stage& stage : stages_) {
    if (collected.size() == count) break;
    Settle(stage);
    std::move(stage.packed.begin(), stage.packed.end(), std::back_inserter(collected));
    stage.packed.clear();
  }
  MICA_CHECK(collected.size() == count);  // whole stages
  return collected;
}

void EntropyCoder::Replay(const std::vector<const MatrixRecord*>& stage) {
  RecordStages(1);
  Stage& next = stages_.emplace_back();
  next.known = true;
  std::vector<RateControl::Prediction> predicted;
  for (const MatrixRecord* record : stage) {
    next.took.push_back(record->control.value());
    predicted.push_back({next.took.back().predicted_bits.value(), next.took.back().predicted_zeros.value()});
  }
  control_->Take(predicted);
}

}  // namespace mica
