// Coding `fixed`: every column has a whole number of bits, chosen over the whole model by one price of a bit.
#pragma once

#include <vector>

#include "compress/budget/allocation.h"
#include "compress/coder/coder.h"
#include "compress/coder/stage_queue.h"
#include "compress/fixed/solver.h"

namespace mica {

class FixedCoder final : public Coder {
 public:
  FixedCoder(const CoderTask& task, const FixedSettings& settings, const ModelConfig& config)
      : Coder(task, config), settings_(settings) {}

  const char* name() const override { return "fixed"; }
  void CheckBudget(const OtherBytes& other) const override;
  Reach ReachOfModel() const override;
  PackedMatrix Smallest(size_t rows, size_t cols) const override;
  double LeastBits(double other_bytes) const override;
  void Require(StatisticsSettings&) const override {}
  void Plan(const Statistics& statistics, const OtherBytes& other) override;
  double planned_bits_per_weight() const override { return allocation_.bits_per_weight; }
  void SetOtherBytes(size_t layer, const OtherBytes& other, uint64_t matrix_bytes) override;
  std::vector<uint32_t> ColumnOrder(size_t layer, InputKind input) const override;
  void Solve(size_t layer, const StageInput& input, std::vector<StageMatrix>& stage) override;
  std::vector<CodedMatrix> Collect(size_t count) override;
  void Replay(const std::vector<const MatrixRecord*>&) override {}  // widths are planned at once

 private:
  // Weights to be packed, still where they were solved, and what is known of them.
  struct Solved {
    size_t layer;
    LinearKind kind;
    FixedSolution solution;
    SolverReport report;
  };
  // Complete on return.
  Solved SolveMatrix(size_t layer, const StageInput& input, StageMatrix& matrix) const;
  CodedMatrix Finish(Solved solved) const;
  AllocationSettings Allocating(BudgetKind kind, double budget) const;
  BudgetKind kind() const;
  std::string limits() const override;

  const FixedSettings settings_;
  const Statistics* statistics_ = nullptr;
  std::vector<MatrixDemand> demands_;
  Allocation allocation_;
  StageQueue queue_;
};

}  // namespace mica
