// A whole model in memory, in the form that is kept for running, ready to continue texts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "device/device.h"
#include "device/memory_plan.h"
#include "model/key_cache.h"
#include "model/layer.h"
#include "model/weights.h"
#include "ops/packed_product/resident_weights.h"

namespace mica {

// Tokens of a prompt that pass through the model together.
inline constexpr size_t kPromptTokens = 512;

// Call from one thread at a time.
class RunningModel {
 public:
  // Reads and decodes all weights. Keeps the address of `weights`. Throws Error where a tensor is damaged or
  // the memory is not there; Interrupted after Ctrl-C.
  RunningModel(const ModelWeights& weights, Device device);

  const ModelConfig& config() const { return weights_->config(); }
  Device device() const { return device_; }
  // Of all weights that stay in memory.
  uint64_t weight_bytes() const;
  // That one token reads: all but the embedding, of which it takes a row.
  uint64_t bytes_per_token() const;
  // Weights of the matrices that are multiplied for a token.
  uint64_t weights_per_token() const;

  // The logits behind the last of `ids`, [vocab], which follow the tokens in `cache`. ids must lie in the
  // vocabulary, and the cache must have room for them; at least one. Throws Error naming the token where a
  // logit is NaN. The cache has the tokens afterwards, or as many as before where it throws.
  std::vector<float> Continue(std::span<const int32_t> ids, KeyCache& cache) const;
  // Those behind each of them, [ids, vocab].
  Matrix<float> ContinueAll(std::span<const int32_t> ids, KeyCache& cache) const;

 private:
  // x: the embeddings of ids, which come behind the tokens in `cache`.
  void Begin(std::span<const int32_t> ids, KeyCache& cache, Array& x) const;
  // The residual stream through all layers, whose keys are written into `cache`; it does not have the tokens
  // yet.
  void Layers(Tensor x, KeyCache& cache, PassMemory& memory) const;
  // Passes ids through the layers; x: the residual stream behind the last layer.
  void Pass(std::span<const int32_t> ids, KeyCache& cache, Array& x) const;
  // One token on a CUDA device; its logits, on the processor.
  ConstTensor PassToken(int32_t id, KeyCache& cache) const;
  // logits of rows of x.
  void Head(ConstTensor x, Tensor logits) const;
  // The number of what the layers' tables of angles are now: they change with the capacity of the cache.
  uint64_t TablesFor(const KeyCache& cache) const;

  const ModelWeights* weights_;
  Device device_;
  uint64_t number_;  // of this model in the process
  mutable size_t tables_capacity_ = 0;
  mutable uint64_t tables_ = 0;
  std::vector<DecoderLayer> layers_;
  ResidentWeights embedding_, own_head_;  // the head is the embedding where it has none of its own
  Array norm_;
};

// What a model and a text of `context` tokens take: weights (ModelWeights::PlannedResidentBytes), keys and
// values, activations.
MemoryPlan PlanRunning(const ModelWeights& weights, size_t context, int cache_bits, Device device);

}  // namespace mica
