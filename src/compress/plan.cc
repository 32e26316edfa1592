#include "compress/plan.h"

#include <algorithm>

#include "base/dtype.h"
#include "compress/budget/demands.h"
#include "compress/calibrate/layer_pass.h"
#include "compress/calibrate/residual_stream.h"
#include "compress/calibrate/token_blocks.h"
#include "compress/curvature/fisher.h"
#include "compress/ends.h"
#include "model/weights.h"
#include "model/window.h"

namespace mica {
namespace {

constexpr double kOverheadBits = 0.3;  // of scales, zeros and padding, a weight
constexpr uint64_t kSolverCopies = 4;  // FP32 matrices of an input that solving holds besides the weights
constexpr uint64_t kSolverCopiesOnGpu = 7, kInputMatricesOnGpu = 6;  // where matrices are solved at once
constexpr uint64_t kInputMatrices = 4;  // FP32 cols x cols: H, D, and the factor with its work
constexpr uint64_t kEndCopies = 2;      // FP32 matrices of a whole vocabulary
constexpr uint64_t kMeasureCopies = 3;  // FP32 of an input's cols x cols, and of its largest matrix: factor, steps, their work
constexpr uint64_t kSweepMatrices = 6;  // the same while it sums: H and D of a block, in FP64, and of those before

// Whether statistics hold the moments of all matrices' outputs.
bool HasOutputMoments(const CompressionSettings& settings) {
  return settings.coding != Coding::kFixed && settings.entropy.row_feedback && settings.fisher.windows > 0;
}

}  // namespace

uint64_t EndBytes(const CompressionSettings& settings, const ModelConfig& config) {
  const bool on_gpu = settings.arithmetic.device.is_cuda();
  const uint64_t vocabulary = uint64_t{config.vocab} * config.hidden,
                 at_once = std::min<uint64_t>(config.vocab, kSolvedRows) * config.hidden;
  if (settings.embedding_bits == 16) return vocabulary * sizeof(float);
  return (kEndCopies * vocabulary + (on_gpu ? kSolverCopiesOnGpu : kSolverCopies) * at_once +
          (on_gpu ? kInputMatricesOnGpu : kInputMatrices) * config.hidden * config.hidden) *
         sizeof(float);
}

uint64_t InputsAtOnceBytes(const ModelConfig& config) {
  uint64_t values = 0;
  for (const InputKind input : kInputKinds) {
    uint64_t largest = 0;
    for (const LinearKind kind : kLinearKinds) {
      const MatrixShape shape = LinearShape(config, kind);
      if (InputOf(kind) == input) largest = std::max(largest, uint64_t{shape.rows} * shape.cols);
    }
    const uint64_t cols = InputCols(config, input);
    values += kMeasureCopies * (cols * cols + largest);
  }
  return values * sizeof(float);
}

MemoryPlan PlanCompression(const CompressionSettings& settings, const ModelConfig& config, bool resident) {
  const Arithmetic& arithmetic = settings.arithmetic;
  const bool on_gpu = arithmetic.device.is_cuda(), drifts = settings.drift.compensation > 0;
  const uint64_t window = settings.calibration.seqlen.value();
  const TokenBlocks blocks(settings.calibration.samples * window, window, *arithmetic.group);
  const uint64_t tokens = blocks.MineTokens();
  const uint64_t of_original =
      drifts ? std::min<uint64_t>(settings.drift.windows * window * tokens / blocks.tokens() + window, tokens) : 0;
  const uint64_t value_bytes = DTypeBytes(arithmetic.operands());

  uint64_t weights = 0, widest = 0, of_input = 0;
  for (const InputKind input : kInputKinds) {
    uint64_t matrices = 0;
    for (const LinearKind kind : kLinearKinds) {
      if (InputOf(kind) != input) continue;
      const MatrixShape shape = LinearShape(config, kind);
      matrices += uint64_t{shape.rows} * shape.cols;
    }
    weights += matrices;
    widest = std::max<uint64_t>(widest, InputCols(config, input));
    of_input = std::max(of_input, matrices);
  }
  const uint64_t run = RunTokens(window);
  const uint64_t portion =
      std::min(tokens, std::max<uint64_t>(1, ResidualStream::kPortionTokens / run) * run);
  const uint64_t of_token = (3 * config.hidden + 2 * config.ffn + config.q_width()) * sizeof(float),
                 passing = portion * of_token;
  // On a GPU a run of the original passes beside the solver.
  const uint64_t ahead = on_gpu && drifts && resident ? std::min(tokens, run) * of_token : 0;

  // Fisher information comes before, and stores its own activations in a share of what is free.
  const bool summed = on_gpu && HasOutputMoments(settings);
  // A slice of the head in both directions, and what it makes of a run.
  const uint64_t slice = std::min(config.vocab, OutputHead::kSliceRows),
                 head = slice * (3 * config.hidden + std::min(tokens, run)) * sizeof(float);
  const uint64_t fisher = summed ? OutputSumBytes(config) + 2 * passing + head : 0;

  MemoryPlan plan(arithmetic.device);
  if (resident) {
    plan.Add("activations of all tokens",
             (drifts ? 2 : 1) * tokens * config.hidden * sizeof(uint16_t) +
                 (tokens + of_original) * std::max(config.ffn, config.q_width()) * value_bytes);
  }
  const uint64_t layer = weights * ((on_gpu ? 2 : 1) * sizeof(float) + (drifts ? 2 : 1) * value_bytes);
  const uint64_t solver = std::max({fisher, kSweepMatrices * widest * widest * sizeof(float) + passing,
                                    ((on_gpu ? kInputMatricesOnGpu : kInputMatrices) * widest * widest +
                                     (on_gpu ? kSolverCopiesOnGpu : kSolverCopies) * of_input) *
                                            sizeof(float) +
                                        ahead});
  plan.Add("a layer's weights", layer);
  plan.Add("moments and solver", solver);
  // They come before and after the layers.
  const uint64_t ends = EndBytes(settings, config);
  if (ends > layer + solver) plan.Add("embedding and output head", ends - layer - solver);
  return plan;
}

Placement PlaceActivations(const CompressionSettings& settings, const ModelConfig& config) {
  const Device device = settings.arithmetic.device;
  Placement here{device, PlanCompression(settings, config, true)};
  if (!device.is_cuda() || here.plan.total() <= AvailableMemory(device)) return here;
  Placement there{Device::Cpu(), PlanCompression(settings, config, false)};
  there.plan.Check("compressing", "use a GPU with more memory, or the processor");
  MemoryPlan resting(Device::Cpu());
  resting.Add("activations of all tokens", here.plan.total() - there.plan.total());
  resting.Check("keeping the activations of all tokens on the processor",
                "use fewer --samples, or a GPU with more memory");
  return there;
}

double EstimatedMatrixBytes(const CompressionSettings& settings, const ModelConfig& config) {
  const double value = settings.budget.value, zeros = settings.sparsity.rate;
  const auto weights = static_cast<double>(CompressedWeights(config));
  switch (settings.budget.target) {
    case BudgetTarget::kFileBytes:
      return value;
    case BudgetTarget::kBitsPerWeight:
      return value * weights / 8;
    case BudgetTarget::kMeanBits:
      break;
  }
  // Zeros cost a mask, of one bit a weight, in place of their codes.
  return (value * (1 - zeros) + (zeros > 0 ? 1 : 0) + kOverheadBits) * weights / 8;
}

uint64_t EstimatedStatisticsBytes(const CompressionSettings& settings, const ModelConfig& config) {
  const uint64_t ends = (settings.fisher.windows > 0 ? 1 : 0) + (config.tied_head ? 1 : 0);
  return ends * config.hidden * config.hidden * sizeof(float) +
         (HasOutputMoments(settings) ? kOutputMomentBytes : 0);
}

}  // namespace mica
