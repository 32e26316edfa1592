// Coding `entropy`: a uniform grid whose steps follow from information, its integers coded by their entropy;
// one rate control for the whole model.
#pragma once

#include <deque>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "compress/budget/rate_control.h"
#include "compress/coder/coder.h"
#include "compress/entropy/solver.h"
#include "compress/inform/steps.h"

namespace mica {

class EntropyCoder final : public Coder {
 public:
  EntropyCoder(const CoderTask& task, const EntropySettings& settings, const ModelConfig& config)
      : Coder(task, config), settings_(settings) {}

  const char* name() const override { return "entropy"; }
  void CheckBudget(const OtherBytes& other) const override;
  Reach ReachOfModel() const override;
  PackedMatrix Smallest(size_t rows, size_t cols) const override;
  double LeastBits(double other_bytes) const override;
  void Require(StatisticsSettings& settings) const override;
  void Plan(const Statistics& statistics, const OtherBytes& other) override;
  double planned_bits_per_weight() const override { return budget_bits_ / weights(); }
  void SetOtherBytes(size_t layer, const OtherBytes& other, uint64_t matrix_bytes) override;
  std::vector<uint32_t> ColumnOrder(size_t layer, InputKind input) const override;
  void Solve(size_t layer, const StageInput& input, std::vector<StageMatrix>& stage) override;
  std::vector<CodedMatrix> Collect(size_t count) override;
  void Replay(const std::vector<const MatrixRecord*>& stage) override;

 private:
  // What is known of a solved matrix, to be packed.
  struct Solved {
    size_t layer;
    LinearKind kind;
    StepSolution solution;
    double log2_c, zero_price;
    RateControl::Prediction predicted;
    size_t dead_channels, damping_doublings;
  };
  // A stage that was solved: what is packed of it, and when it is, what it took.
  struct Stage {
    std::future<std::vector<CodedMatrix>> packing;
    std::vector<CodedMatrix> packed;
    std::vector<ControlRecord> took;  // by matrix, once that is known
    bool known = false;               // what it took, on all ranks
    std::string last;                 // name of its last matrix, for messages
  };

  // decoded: out, the stage's weights as a reader gets them.
  // rows: as PlanRows says of the stage.
  std::vector<Solved> SolveStage(size_t layer, const StageInput& input, std::vector<StepPlan>& rows,
                                 const RateControl::Choice& choice, const std::vector<StageMatrix>& stage,
                                 std::vector<Array>& decoded) const;
  // What the plans of a stage's matrices say of rows; nothing but statistics decides that.
  std::vector<StepPlan> PlanRows(size_t layer, InputKind input) const;
  // The same; where a GPU solves, those of the stage behind it are made meanwhile.
  std::vector<StepPlan> TakeRows(size_t layer, InputKind input, Device device);
  CodedMatrix Finish(Solved solved) const;
  // The last matrix of the model at the step that just meets the budget.
  void SolveLast(size_t layer, const StageInput& input, std::vector<StepPlan>& rows,
                 std::vector<StageMatrix>& stage);
  // Waits for a stage.
  void Settle(Stage& stage);
  // What the leading rank knows of matrices, for all.
  void ShareSizes(std::vector<ControlRecord>& took) const;
  // Tells the rate control of all stages but the last `open` ones.
  void RecordStages(size_t open);

  double weights() const;  // of the whole model
  // What the budget counts of a matrix.
  uint64_t Counted(const PackedMatrix& packed) const;
  // That of each matrix of the model, were its integers all zero: steps and tables are stored all the same.
  std::vector<double> LeastBitsOfMatrices() const;
  // By how much the total exceeds the budget, bits.
  double Excess(const CodedMatrix& attempt) const {
    return control_->bits_so_far() + static_cast<double>(*attempt.record.control->bits) - budget_bits_;
  }
  [[noreturn]] void FailOnBudget(const std::string& name, double bits) const;
  std::string limits() const override { return "--coding entropy"; }

  const EntropySettings settings_;
  const Statistics* statistics_ = nullptr;
  std::optional<RateControl> control_;
  double budget_bits_ = 0;  // of all matrices
  std::vector<double> least_bits_;
  mutable std::map<std::pair<size_t, size_t>, double> least_of_shapes_;  // bits of zeros, which take seconds
  std::deque<Stage> stages_;  // those that are not both recorded and collected
  size_t recorded_ = 0;       // of these, from the front
  double waited_ = 0;  // seconds, for packing
  std::pair<size_t, InputKind> rows_of_ = {};         // the stage that rows_ahead_ is of
  std::future<std::vector<StepPlan>> rows_ahead_;  // waits for its thread when it goes
};

}  // namespace mica
