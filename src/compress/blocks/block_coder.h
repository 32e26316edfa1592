// Codings whose matrices are stored on grids of blocks in another program's format (StorageTarget): a grid
// for each matrix, or for those that must agree, chosen over the whole model under one budget.
#pragma once

#include <memory>
#include <vector>

#include "compress/blocks/grid_losses.h"
#include "compress/blocks/solver.h"
#include "compress/blocks/storage_target.h"
#include "compress/budget/choose_options.h"
#include "compress/coder/coder.h"
#include "compress/coder/stage_queue.h"

namespace mica {

class BlockCoder final : public Coder {
 public:
  // plans_ends: see Coder; only with a budget of file bytes.
  BlockCoder(const CoderTask& task, std::unique_ptr<StorageTarget> target, const BlockSettings& settings,
             bool plans_ends, const ModelConfig& config)
      : Coder(task, config), target_(std::move(target)), settings_(settings), plans_ends_(plans_ends) {}

  const char* name() const override { return target_->name(); }
  void CheckBudget(const OtherBytes& other) const override;
  Reach ReachOfModel() const override;
  uint64_t PlannedWeights() const override;
  PackedMatrix Smallest(size_t rows, size_t cols) const override;
  double LeastBits(double other_bytes) const override;
  void Require(StatisticsSettings& settings) const override;
  bool plans_ends() const override { return plans_ends_; }
  size_t GridOfEnd(TensorRole role) const override {
    return role == TensorRole::kHead ? head_grid_ : embedding_grid_;
  }
  void Plan(const Statistics& statistics, const OtherBytes& other) override;
  double planned_bits_per_weight() const override { return bits_per_weight_; }
  void SetOtherBytes(size_t, const OtherBytes&, uint64_t) override {}  // what matrices take is known before
  std::vector<uint32_t> ColumnOrder(size_t, InputKind) const override { return {}; }
  void Solve(size_t layer, const StageInput& input, std::vector<StageMatrix>& stage) override;
  std::vector<CodedMatrix> Collect(size_t count) override;
  void Replay(const std::vector<const MatrixRecord*>&) override {}  // grids are chosen at once

 private:
  struct Solved {
    size_t layer;
    LinearKind kind;
    size_t grid;
    BlockSolution solution;
    SolverReport report;
  };
  // Matrices that are stored alike: what they may choose among, and what each choice takes and loses.
  struct Unit {
    TensorRole role;  // kLinear, or kEmbedding or kHead, which have no kinds
    size_t layer;
    std::vector<LinearKind> kinds;
    std::vector<size_t> grids;
    std::vector<UnitOption> options;
  };

  // What the budget counts of a matrix.
  double BudgetBits(size_t grid, size_t rows, size_t cols) const;
  // Bits alone; losses of what is not known are 0.
  std::vector<Unit> Units() const;
  bool SolvesSample(size_t layer) const;
  size_t GridOfMatrix(size_t layer, LinearKind kind) const {
    return chosen_[layer * kLinearKinds.size() + static_cast<size_t>(kind)];
  }
  // Complete on return.
  Solved SolveMatrix(size_t layer, const StageInput& input, StageMatrix& matrix) const;
  CodedMatrix Finish(Solved solved) const;
  std::string limits() const override;

  const std::unique_ptr<StorageTarget> target_;
  const BlockSettings settings_;
  const bool plans_ends_;
  const Statistics* statistics_ = nullptr;
  std::vector<size_t> chosen_;  // [layers x kinds] grids
  size_t embedding_grid_ = 0, head_grid_ = 0;
  double bits_per_weight_ = 0;
  StageQueue queue_;
};

}  // namespace mica
