// Coding `fixed`: every column has a whole number of bits, chosen over the whole model by one price of a bit.
#pragma once

#include <vector>

#include "compress/budget/allocation.h"
#include "compress/coder/coder.h"
#include "compress/fixed/solver.h"

namespace mica {

class FixedCoder final : public Coder {
 public:
  FixedCoder(const CoderTask& task, const FixedSettings& settings, const ModelConfig& config)
      : Coder(task, config), settings_(settings) {}

  const char* name() const override { return "fixed"; }
  void CheckBudget(const OtherBytes& other) const override;
  PackedMatrix Smallest(size_t rows, size_t cols) const override;
  double LeastBits(double other_bytes) const override;
  void Require(StatisticsSettings&) const override {}
  void Plan(const Statistics& statistics, const OtherBytes& other) override;
  double planned_bits_per_weight() const override { return allocation_.bits_per_weight; }
  void SetOtherBytes(size_t layer, const OtherBytes& other, uint64_t matrix_bytes) override;
  void BeginInput(MatrixView<const float> h) override { h_ = h; }
  CodedMatrix Solve(size_t layer, LinearKind kind, MatrixView<const float> w) override;
  void Replay(const MatrixRecord&) override {}  // widths are planned at once

 private:
  AllocationSettings Allocating(BudgetKind kind, double budget) const;
  BudgetKind kind() const;
  std::string limits() const override;

  const FixedSettings settings_;
  const Statistics* statistics_ = nullptr;
  std::vector<MatrixDemand> demands_;
  Allocation allocation_;
  MatrixView<const float> h_;
};

}  // namespace mica
