#include "compress/device_memory.h"

#include <algorithm>

#include "base/log.h"
#include "compress/calibrate/layer_pass.h"
#include "compress/calibrate/residual_stream.h"
#include "model/layer.h"
#include "model/sizes.h"
#include "model/window.h"

namespace mica {
namespace {

// Arrays of a matrix's size, FP32, that a solver works with, and of its inputs' square.
constexpr uint64_t kMatrices = 6, kSquares = 4;

}  // namespace

MemoryPlan PlanCompression(const ModelConfig& config, const CompressionSettings& settings, uint64_t tokens,
                           bool resident) {
  const uint64_t value = DTypeBytes(settings.arithmetic.operands()), wide = sizeof(float);
  const uint64_t hidden = config.hidden, ffn = config.ffn, window = *settings.calibration.seqlen;
  const bool compared = settings.drift.compensation > 0;
  uint64_t layer = 0;
  for (const LinearKind kind : kLinearKinds) {
    const MatrixShape shape = LinearShape(config, kind);
    layer += uint64_t{shape.rows} * shape.cols;
  }
  // What an input's moments and its matrices' solver hold, of the input that holds most.
  uint64_t moments = 0, solver = 0;
  for (const InputKind input : kInputKinds) {
    uint64_t rows = 0;
    for (const LinearKind kind : kLinearKinds) {
      if (InputOf(kind) == input) rows += LinearShape(config, kind).rows;
    }
    const uint64_t cols = InputCols(config, input), square = cols * cols * wide;
    // Sums in FP64 by halves and in FP32, drift, and the mean that is made of them.
    moments = std::max(moments, square * (compared ? 4 : 3) + (compared ? hidden * cols * wide : 0));
    solver = std::max(solver, square * kSquares + rows * cols * wide * kMatrices);
  }
  const uint64_t portion = std::min<uint64_t>(
      tokens, std::max<uint64_t>(1, ResidualStream::kPortionTokens / RunTokens(window)) * RunTokens(window));
  const uint64_t run = compared ? std::min<uint64_t>(tokens, RunTokens(window)) : 0;
  const uint64_t compared_tokens =
      compared ? std::min<uint64_t>(tokens, std::max<uint64_t>(settings.drift.windows, 1) * window + run) : 0;

  MemoryPlan plan(settings.arithmetic.device);
  plan.Add("weights of a layer and the next", layer * (2 * wide + (compared ? 2 : 1) * value));
  plan.Add("moments or the solver's matrices", std::max(moments, solver));
  plan.Add("one portion of tokens",
           (portion + run) * (hidden * (wide + 2 * value) + ffn * (2 * wide + value)));
  if (resident) {
    const uint64_t streams = (tokens + (compared ? tokens : 0)) * hidden * sizeof(uint16_t);
    plan.Add("activations of all tokens",
             streams + (tokens + compared_tokens) * std::max<uint64_t>(ffn, config.q_width()) * value);
  }
  return plan;
}

Device PlaceActivations(const ModelConfig& config, const CompressionSettings& settings, uint64_t tokens) {
  const Device device = settings.arithmetic.device;
  if (!device.is_cuda()) return device;
  const MemoryPlan resident = PlanCompression(config, settings, tokens, true);
  if (resident.total() <= AvailableMemory(device)) {
    LogInfo("compressing takes about {}", resident.Describe());
    return device;
  }
  const MemoryPlan rest = PlanCompression(config, settings, tokens, false);
  rest.Check("compressing", "use a GPU with more memory, or the processor");
  MemoryPlan beside(Device::Cpu());
  beside.Add("activations of all tokens", resident.total() - rest.total());
  beside.Check("keeping activations on the processor", "use fewer --samples, or a GPU with more memory");
  LogInfo("compressing takes about {}, and {}", rest.Describe(), beside.Describe());
  return Device::Cpu();
}

}  // namespace mica
