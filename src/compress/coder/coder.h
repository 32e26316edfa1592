// What a coding of matrices does, whichever it is: plan all matrices of a model under one budget, solve those
// of an input together, pack them beside the next, and take up where a stopped run was. Each coding has a folder (fixed/, entropy/);
// which there are, only compress/coders.cc knows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/matrix.h"
#include "device/array.h"
#include "device/group.h"
#include "device/tensor.h"
#include "compress/budget/allocation.h"
#include "compress/budget/budget.h"
#include "compress/curvature/damped_factor.h"
#include "compress/inform/statistics.h"
#include "format/mask/sparsity_pattern.h"
#include "format/packed_matrix.h"
#include "model/config.h"
#include "model/layer.h"
#include "model/weights.h"
#include "record/compression.h"

namespace mica {

// What every coding is told.
struct CoderTask {
  Budget budget;
  SparsityPattern sparsity;
  const Group* group = &Group::Alone();
  Device device;  // that computes
};

// What the weight files hold besides the matrices, bytes.
struct OtherBytes {
  uint64_t expected = 0;  // with room for headers that turn out longer: what plans are made with
  uint64_t least = 0;     // as near as is known: what a plan is made with that has no such room
};

// What is stored of a matrix.
struct CodedMatrix {
  LinearKind kind;
  PackedMatrix packed;  // the bytes that are counted and stored
  MatrixRecord record;
};

// A matrix to be solved: its weights [rows, cols] FP32 on the device that computes, which become what a reader
// of the file gets.
struct StageMatrix {
  LinearKind kind;
  Array weights;
};

// The input of a stage.
struct StageInput {
  ConstTensor h;                               // second moments, [cols, cols] FP32 on the device that computes
  std::shared_ptr<const DampedFactor> factor;  // of h, in the coder's ColumnOrder
};

// Matrices come layer by layer in the order of kLinearKinds, those that share an input (a *stage*) together,
// each once: by Solve, or by Replay when an earlier run solved them. What is solved is packed beside the work
// that follows. Not for several threads at once. Of several ranks all solve the same stages, by parts or by waiting for
// the one that leads, and get the same weights; what is packed only the one that leads has.
class Coder {
 public:
  // Keeps the address of config.
  Coder(const CoderTask& task, const ModelConfig& config) : task_(task), config_(config) {}
  virtual ~Coder() = default;
  Coder(const Coder&) = delete;
  Coder& operator=(const Coder&) = delete;

  virtual const char* name() const = 0;  // as options and files have it

  // Throws Error when no plan can meet the budget, whatever the model's weights and inputs are: known before
  // any work.
  virtual void CheckBudget(const OtherBytes& other) const = 0;
  // What budgets in the task's measure can be, per planned weight (of a budget of file bytes: stored bits).
  virtual Reach ReachOfModel() const = 0;
  // Weights that the budget is spread over.
  virtual uint64_t PlannedWeights() const;
  // A matrix of this shape that is stored in as little as any, of the same parts as others: what its headers
  // take can be counted.
  virtual PackedMatrix Smallest(size_t rows, size_t cols) const = 0;
  // Bits that the matrices take at least when the budget is met.
  virtual double LeastBits(double other_bytes) const = 0;
  // Asks for what Plan needs to know.
  virtual void Require(StatisticsSettings& settings) const = 0;

  // Whether embedding and head are planned with the matrices, under one budget of file bytes that counts both.
  virtual bool plans_ends() const { return false; }
  // The grid that one of them is stored on, once planned: a number of compress/blocks/storage_target.h.
  virtual size_t GridOfEnd(TensorRole) const { return 0; }

  // Plans all matrices. Keeps the address of statistics. Throws Error when the budget is out of reach.
  virtual void Plan(const Statistics& statistics, const OtherBytes& other) = 0;
  // Bits per weight that the plan stores.
  virtual double planned_bits_per_weight() const = 0;
  // With a budget in file bytes: the files hold other bytes besides the matrices than was thought. Called
  // before a layer; matrix_bytes: stored for the matrices so far.
  virtual void SetOtherBytes(size_t layer, const OtherBytes& other, uint64_t matrix_bytes) = 0;

  // The order in which the columns of matrices that take this input are best processed, position -> channel,
  // from the statistics.
  virtual std::vector<uint32_t> ColumnOrder(size_t layer, InputKind input) const = 0;
  // The matrices of a stage, all that take the input.
  virtual void Solve(size_t layer, const StageInput& input, std::vector<StageMatrix>& stage) = 0;
  // The first `count` matrices that are solved and not collected yet, in order; waits until they are packed. On the
  // rank that leads.
  virtual std::vector<CodedMatrix> Collect(size_t count) = 0;
  virtual void Replay(const std::vector<const MatrixRecord*>& stage) = 0;

 protected:
  // What the coding stores matrices in, behind a range of budgets: "bit widths 2,3,4".
  virtual std::string limits() const = 0;
  // The budget as bits per weight (of code or stored, as the target says) of `weights` of the model, with
  // matrix_bytes of the others stored. reach: what those can take, in the same measure. Throws Error naming
  // the option, its value and what it may be when the budget lies outside.
  double BudgetPerWeight(const OtherBytes& other, const Reach& reach, uint64_t weights,
                         uint64_t matrix_bytes = 0) const;
  bool counts_file() const { return task_.budget.target == BudgetTarget::kFileBytes; }

  const CoderTask task_;
  const ModelConfig& config_;
};

// The figures that matrices of every coding have. code_bits: of codes alone.
MatrixRecord RecordOf(const PackedMatrix& packed, size_t rows, size_t cols, double code_bits,
                      const InputStatistics& input);

}  // namespace mica
