// The calibration tokens' way through one decoder layer, with each matrix compressed just before its outputs
// are needed: every matrix sees the inputs that the matrices compressed before it produce.
#pragma once

#include <array>
#include <functional>
#include <span>

#include "base/matrix.h"
#include "compress/calibrate/drift.h"
#include "compress/calibrate/residual_stream.h"
#include "device/precision.h"
#include "model/layer.h"
#include "model/weights.h"

namespace mica {

// Input channels of the linear layers that share this input.
size_t InputCols(const ModelConfig& config, InputKind kind);

// The first of those linear layers ("mlp.gate_proj"), for messages.
const char* InputName(InputKind input);

// Called when the moments of an input are known (drift only with the original model): the caller compresses
// the matrices that take it and puts the results into the layer. The views are gone after the call. Calling
// original_goes_on, once these matrices of the original model are in its layer, lets that model go on to the next
// inputs on a thread and a queue of the device of its own, beside the rest of the solver's work; not calling it leaves
// that for later.
using InputSolver =
    std::function<void(InputKind input, const InputMoments& moments, const std::function<void()>& original_goes_on)>;

// The original model on the same tokens, to measure the drift against; its stream, cut into portions of one
// run, advances with the compressed one on evenly spaced runs that hold at least `windows` windows (the
// others stay behind).
struct Original {
  const DecoderLayer* layer = nullptr;  // not looked at behind the layers
  ResidualStream* stream = nullptr;
  size_t windows = 0;
};

// Some of the runs of all ranks, evenly spaced.
struct RunsTaken {
  size_t runs = 0, taken = 0;  // of how many, how many

  // So many that they hold at least original.windows. stream: the compressed model's.
  static RunsTaken Of(const Original& original, const ResidualStream& stream);
  static RunsTaken All() { return {1, 1}; }
  bool Takes(size_t run) const { return (run + 1) * taken / runs != run * taken / runs; }
};

// How much each calibration token of all ranks counts in the moments and the drift of an input; empty: all alike.
using TokenWeights = std::array<std::span<const float>, kInputKinds.size()>;

// Called after each portion of work; tokens: how many tokens went through how large a share of the layer.
using TokenProgress = std::function<void(uint64_t tokens)>;

// The input of a layer becomes its output in `stream`, while solve is called for each input in the order of
// kInputKinds and puts the matrices that take it into `layer`, which needs none of them before (nor does the
// original). Without solve the layer is passed through as it is, with the same roundings: a run that resumes
// gets the same stream. `original` may be empty. Memory: the stream, one stage's activations of all tokens
// in 16 bits (FP32 at that precision), one second moment.
void PassLayer(const DecoderLayer& layer, const ModelConfig& config, ResidualStream& stream,
               const Arithmetic& arithmetic, const InputSolver& solve, const Original& original,
               const TokenWeights& weights, const TokenProgress& progress);

// Sweeps over the tokens that PassLayer makes, for progress: each counts every token once.
inline constexpr size_t kLayerSweeps = 5;

}  // namespace mica
