// Coding `entropy`: a uniform grid whose steps follow from information, its integers coded by their entropy;
// one rate control for the whole model.
#pragma once

#include <memory>
#include <optional>

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
  PackedMatrix Smallest(size_t rows, size_t cols) const override;
  double LeastBits(double other_bytes) const override;
  void Require(StatisticsSettings& settings) const override;
  void Plan(const Statistics& statistics, const OtherBytes& other) override;
  double planned_bits_per_weight() const override { return budget_bits_ / weights(); }
  void SetOtherBytes(size_t layer, const OtherBytes& other, uint64_t matrix_bytes) override;
  void BeginInput(MatrixView<const float> h) override;
  CodedMatrix Solve(size_t layer, LinearKind kind, MatrixView<const float> w) override;
  void Replay(const MatrixRecord& record) override;

 private:
  // One matrix at one step.
  struct Attempt {
    PackedMatrix packed;
    Matrix<float> weights;
    StepReport report;
    double counted_bits = 0;  // of the budget's kind
  };
  Attempt Try(MatrixView<const float> w, const StepPlan& plan, const RateControl::Choice& choice) const;

  double weights() const;  // of the whole model
  // Ever larger steps until a matrix takes `most` bits or fewer, then back as far as it still does; both stay
  // at the largest step where none does.
  void Shrink(MatrixView<const float> w, const StepPlan& plan, double most, RateControl::Choice& choice,
              Attempt& attempt) const;
  // By how much the total exceeds the budget, bits.
  double Excess(const Attempt& attempt) const {
    return control_->bits_so_far() + attempt.counted_bits - budget_bits_;
  }
  StepSettings step_settings() const;
  std::string limits() const override { return "--coding entropy"; }
  // What the budget may be for the whole model, bits per weight.
  Reach ReachOfModel() const;

  const EntropySettings settings_;
  const Statistics* statistics_ = nullptr;
  std::optional<RateControl> control_;
  double budget_bits_ = 0;  // of all matrices
  std::shared_ptr<const ColumnSteps> columns_;
};

}  // namespace mica
