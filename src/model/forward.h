// The decoder, one layer at a time: a layer's weights are prepared, all windows pass through it, and its
// memory is given back. Peak memory is one layer plus the activations, whatever the depth.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "base/half.h"
#include "base/matrix.h"
#include "kernels/matmul.h"
#include "model/weights.h"

namespace mica {

// Inputs of linear layers: [tokens, cols], FP32 or BF16 as the precision of the model asks; exactly one view
// is not empty.
struct ActivationView {
  MatrixView<const float> fp32;
  MatrixView<const BF16> bf16;
  size_t tokens() const { return fp32.data != nullptr ? fp32.rows : bf16.rows; }
  size_t cols() const { return fp32.data != nullptr ? fp32.cols : bf16.cols; }
};

// A buffer for such inputs.
class Activations {
 public:
  Activations() = default;
  Activations(size_t tokens, size_t cols, Precision precision);
  ActivationView view() const;
  Precision precision() const { return precision_; }
  Matrix<float>& fp32() { return fp32_; }
  Matrix<BF16>& bf16() { return bf16_; }

 private:
  Precision precision_ = Precision::kFp32;
  Matrix<float> fp32_;
  Matrix<BF16> bf16_;
};

// The four inputs of a decoder layer's linear layers, in order: q, k, v share one; gate and up share one.
enum class InputKind { kAttention, kOutput, kMlp, kDown };
inline constexpr std::array kInputKinds = {InputKind::kAttention, InputKind::kOutput, InputKind::kMlp,
                                           InputKind::kDown};
InputKind InputOf(LinearKind kind);

// Called with the inputs of linear layers before they are used; rows are tokens in the order of x.
using InputHook = std::function<void(InputKind kind, const ActivationView& inputs)>;

// One decoder layer, ready to compute. The residual stream x is [tokens, hidden] FP32: windows of `window`
// consecutive tokens (tokens is a multiple of window); positions start at 0 in each window and attention is
// causal inside it. Results do not depend on the number of threads.
class DecoderLayer {
 public:
  // Loads and prepares the weights of layer `index`.
  DecoderLayer(const ModelWeights& weights, size_t index, Precision precision);

  // Replaces one matrix ([rows, cols] FP32), for the compressed one to be used from now on.
  void SetLinear(LinearKind kind, MatrixView<const float> weights);
  size_t weight_bytes() const;

  // x <- x + attention(norm(x)), then x <- x + mlp(norm(x)).
  void Forward(MatrixView<float> x, size_t window, const InputHook& hook = {}) const;

  // The same in stages; each result is the input of the next linear layers. Forward is their composition.
  void AttentionInput(MatrixView<const float> x, Activations& normed) const;  // inputs of q, k, v
  void AttentionContext(const ActivationView& normed, size_t window,
                        Activations& context) const;                            // input of o
  void AddAttention(const ActivationView& context, MatrixView<float> x) const;  // x += o(context)
  void MlpInput(MatrixView<const float> x, Activations& normed) const;          // inputs of gate, up
  void MlpHidden(const ActivationView& normed, Activations& hidden) const;      // input of down
  void AddMlp(const ActivationView& hidden, MatrixView<float> x) const;         // x += down(hidden)

 private:
  const ModelConfig* config_ = nullptr;
  Precision precision_ = Precision::kFp32;
  std::array<PreparedWeights, kLinearKinds.size()> linears_;
  std::array<std::vector<float>, kLinearKinds.size()> biases_;
  std::vector<float> attention_norm_, mlp_norm_;
  std::vector<float> rope_cos_, rope_sin_;  // [max window, head_dim / 2], extended on demand
};

// The final norm and output head. The head's rows are prepared in slices of at most 8192 so that memory stays
// bounded.
class OutputHead {
 public:
  OutputHead(const ModelWeights& weights, Precision precision);
  // nll[t] = -log softmax(logits(x[t]))[targets[t]] in nats; a negative target is skipped (0). x: [tokens,
  // hidden], before the norm.
  void NegativeLogLikelihood(MatrixView<const float> x, std::span<const int32_t> targets,
                             std::span<float> nll) const;
  // All logits, [tokens, vocab] FP32 (tests and small inputs).
  void Logits(MatrixView<const float> x, MatrixView<float> logits) const;

 private:
  const ModelWeights* weights_;
  Precision precision_;
  std::vector<float> norm_;
};

}  // namespace mica
