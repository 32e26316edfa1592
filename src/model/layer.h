// The decoder, one layer at a time: a layer's weights are prepared, all windows pass through it, and its
// memory is given back. Peak memory is one layer plus the activations, whatever the depth.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/matrix.h"
#include "device/array.h"
#include "device/precision.h"
#include "device/tensor.h"
#include "model/key_cache.h"
#include "model/layer_weights.h"
#include "model/weights.h"
#include "ops/attention/attention.h"
#include "ops/packed_product/resident_weights.h"
#include "ops/product/projection.h"
#include "ops/rope/rope.h"

namespace mica {

// The four inputs of a decoder layer's linear layers, in order: q, k, v share one; gate and up share one.
enum class InputKind { kAttention, kOutput, kMlp, kDown };
inline constexpr std::array kInputKinds = {InputKind::kAttention, InputKind::kOutput, InputKind::kMlp,
                                           InputKind::kDown};
InputKind InputOf(LinearKind kind);

// Called with the inputs of linear layers before they are used, [tokens, cols] of the type of the layer's
// products; rows are tokens in the order of x.
using InputHook = std::function<void(InputKind kind, ConstTensor inputs)>;

// Tokens that pass through a layer together: working memory of Forward without a hook is that of so many, or
// of one window when that is longer. On a processor more fall out of the last-level cache; a GPU needs them
// to fill its waves.
size_t PortionTokens(Device device);

// What Continue computes in. It may be used again for the next layer; work that is recorded needs one whose
// arrays do not grow afterwards.
struct PassMemory {
  Array raw_q, raw_k, raw_v, normed_q, normed_k, q, context, gate, up, outputs, normed_outputs;
};

// One decoder layer, ready to compute. The residual stream x is [tokens, hidden] FP32 on the
// layer's device: windows of `window`
// consecutive tokens (tokens is a multiple of window); positions start at 0 in each window and attention is
// causal inside it. Results do not depend on the number of threads, nor those of a window on the other
// windows (but for rounding where the processor lacks AVX-512). Call from one thread at a time.
class DecoderLayer {
 public:
  // Loads and prepares the weights of layer `index`. Keeps the address of weights.config().
  DecoderLayer(const ModelWeights& weights, size_t index, Arithmetic arithmetic);
  // With norms and biases only: SetLinear gives each matrix before it is used.
  DecoderLayer(const LayerWeights& weights, Arithmetic arithmetic);

  // With matrices in the form that running models keep (ops/packed_product); activations are FP32.
  static DecoderLayer Resident(const ModelWeights& weights, size_t index, Device device);

  // Sets or replaces one matrix, [rows, cols] FP32 on the layer's device, which is not kept.
  void SetLinear(LinearKind kind, ConstTensor weights);
  size_t weight_bytes() const;

  // x <- x + f norm(attention(norm(x))), then x <- x + f norm(mlp(norm(x))), f and the norms as the model has
  // them (ModelConfig::residual_factor, norms). With a hook each kind is handed out once, for
  // all of x; without one long x is computed in portions of whole windows, so that working memory stays
  // bounded.
  void Forward(Tensor x, size_t window, const InputHook& hook = {}) const;

  // The same for tokens [tokens, hidden] that follow those in `cache`, of which this is layer `index`; their keys
  // are written behind the others. How many there are is cache.past(). Of a resident layer. Ropes that depend on
  // the length of the text take the cache's capacity for it. On a CUDA device all of it can be recorded, once it
  // was done with the same memory; the record holds until it is done with a cache of another capacity.
  void Continue(Tensor x, KeyCache& cache, size_t index, PassMemory& memory) const;

  // The same in stages; each result is the input of the next linear layers. Forward is their composition.
  // Output buffers are resized.
  void AttentionInput(ConstTensor x, Array& normed) const;                         // of q, k, v
  void AttentionContext(ConstTensor normed, size_t window, Array& context) const;  // of o
  void AddAttention(ConstTensor context, Tensor x) const;                          // adds o(context)
  void MlpInput(ConstTensor x, Array& normed) const;                               // of gate, up
  void MlpHidden(ConstTensor normed, Array& hidden) const;                         // of down
  void AddMlp(ConstTensor hidden, Tensor x) const;                                 // adds down(hidden)

  // q and k after norm and rotary embedding, and v, head by head: [heads or kv_heads * tokens, head_dim] in
  // the type of the layer's products.
  struct Projections {
    Array q, k, v;
    // Where q and k have norms, what these take: [tokens, heads or kv_heads * head_dim] FP32.
    Array raw_q, raw_k;
  };
  void Project(ConstTensor normed, size_t window, Projections& out) const;
  // What attention is given of them.
  AttentionInputs AttentionOf(const Projections& projections) const;
  // context [tokens, heads * head_dim] of those; log_sums as in ops/attention/attention.h.
  void Attend(const Projections& projections, size_t window, Array& context, Tensor log_sums) const;

  const ModelConfig& config() const { return *config_; }
  DType operands() const { return arithmetic_.operands(); }
  Device device() const { return arithmetic_.device; }
  const PreparedWeights& linear(LinearKind kind) const {
    const PreparedWeights& weights = linears_[static_cast<size_t>(kind)];
    MICA_CHECK(weights.outputs() > 0);
    return weights;
  }
  // [1, outputs] FP32 on the device, or empty.
  ConstTensor bias(LinearKind kind) const { return biases_[static_cast<size_t>(kind)].view(); }
  Linear weights_and_bias(LinearKind kind) const { return {&linear(kind), bias(kind)}; }
  // [1, width] FP32 on the device, or empty.
  ConstTensor norm(NormKind kind) const { return norms_[static_cast<size_t>(kind)].view(); }
  // The tables that turn queries and keys, null where nothing does. Those of a window are there after a call of
  // Project for it.
  const RopeTable* query_rope() const { return rope_ == nullptr ? nullptr : &query_table_; }
  const RopeTable* key_rope() const;

 private:
  // What enters a block of the layer, as products take it: the norm of x, or x where there is none.
  ProductInputs Entering(NormKind norm, ConstTensor x) const;
  // The same, written.
  void Enter(NormKind norm, ConstTensor x, Array& normed) const;
  // x += residual_factor norm(linear(inputs)).
  void AddBranch(LinearKind kind, NormKind norm, ConstTensor inputs, Tensor x) const;
  // The same of resident weights.
  void AddResident(LinearKind kind, NormKind norm, const ProductInputs& inputs, Tensor x,
                   PassMemory& memory) const;
  bool resident() const { return !residents_[0].empty(); }
  // y = linear(x), FP32, in whichever form its weights are; kinds share x.
  struct OneLinear {
    LinearKind kind;
    Tensor y;
  };
  void Apply(ConstTensor x, std::initializer_list<OneLinear> linears) const;
  void ApplyResident(const ProductInputs& x, std::initializer_list<OneLinear> linears) const;
  void PrepareRope(size_t window) const;
  // The rows of raw with the norm of the heads, if there is one: raw itself, or `values`.
  ConstTensor NormedHeads(ConstTensor raw, NormKind norm, Array& values) const;

  const ModelConfig* config_ = nullptr;
  Arithmetic arithmetic_;
  std::array<PreparedWeights, kLinearKinds.size()> linears_;
  std::array<ResidentWeights, kLinearKinds.size()> residents_;  // in place of them
  std::array<Array, kLinearKinds.size()> biases_;
  std::array<Array, kNormKinds.size()> norms_;
  LayerTraits traits_;
  const RopeConfig* rope_ = nullptr;  // null: nothing turns
  mutable RopeTable query_table_, key_table_;  // the second only where queries grow with their position
  mutable size_t table_window_ = 0;            // that the tables were made for
};

// Bytes of the prepared output head that OutputHead keeps, 0 where memory has no room for all of it.
size_t KeptHeadBytes(const ModelConfig& config, Arithmetic arithmetic);

// The final norm and output head. The head's rows are prepared in slices of at most 8192 so that memory stays
// bounded; a head whose prepared form the memory has room for stays there from one call to the next. Call
// from one thread at a time.
class OutputHead {
 public:
  // Keeps the address of weights.
  OutputHead(const ModelWeights& weights, Arithmetic arithmetic);
  // nll[t] = -log softmax(logits(x[t]))[targets[t]] in nats; a negative target is skipped (0). x: [tokens,
  // hidden], before the norm.
  void NegativeLogLikelihood(ConstTensor x, std::span<const int32_t> targets, std::span<float> nll) const;
  // All logits, [tokens, vocab] FP32 (tests and small inputs).
  void Logits(ConstTensor x, Tensor logits) const;
  ConstTensor norm() const { return norm_.view(); }  // [1, hidden] FP32 on the device
  const Arithmetic& arithmetic() const { return arithmetic_; }
  size_t vocab() const { return weights_->config().vocab; }
  // Whether its prepared rows stay from one call to the next.
  bool keeps() const { return keeps_; }

  static constexpr size_t kSliceRows = 8192;

 private:
  size_t slices() const;
  // Calls use(first row, prepared rows) for each slice in order.
  void ForSlices(const std::function<void(size_t first, const PreparedWeights& rows)>& use) const;
  const ModelWeights* weights_;
  Arithmetic arithmetic_;
  bool keeps_;
  Array norm_;
  mutable std::vector<PreparedWeights> kept_;
};

}  // namespace mica
