// The backward pass down to the outputs of the linear layers: what the final loss feels of each of them, for
// Fisher information.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "device/precision.h"
#include "device/tensor.h"
#include "model/layer.h"
#include "model/weights.h"
#include "ops/product/product.h"

namespace mica {

// One linear layer over a run of tokens, on the device that computes.
struct LinearGradient {
  size_t layer = 0;
  LinearKind kind = LinearKind::kQ;
  size_t first_token = 0;  // place of row 0: in `ids`, or where BackwardSettings::places says its run is
  ConstTensor inputs;      // [tokens, cols], as the forward pass had them
  ConstTensor gradient;    // [tokens, rows] FP32: d(sum of negative log likelihoods) / d(outputs)
};
// Called on the thread that called RunBackward; views are gone after the call. Every (layer, kind, token)
// comes exactly once: groups of windows in rising order, in a group the layers from the last to the first, in
// a layer runs of whole windows in rising order. Which windows make a run depends on `window` only.
using GradientHook = std::function<void(const LinearGradient& gradient)>;

struct BackwardSettings {
  Arithmetic arithmetic;  // of all products, forward and backward; sums and gradients are FP32
  // Labels are the text's own next tokens (empirical Fisher information) or drawn from the model's
  // distribution (true Fisher information) with this seed.
  bool sample_labels = false;
  uint64_t seed = 0;
  // Where given, called with d(sum of negative log likelihoods) / d(rows of the embedding), [tokens, hidden]
  // FP32 on the device that computes, after the hooks of that layer for a run. first_token:
  // place in `ids` of row 0.
  std::function<void(size_t first_token, ConstTensor gradient)> at_embedding;
  // Of the first token of each run of ids (model/window.h), where they are not a whole text: the place in that which
  // the hooks are told, and which labels are drawn by.
  std::vector<size_t> places = {};
  // Where given, called after the hooks of a layer for a run: the gradients of all its matrices have come.
  std::function<void(size_t layer)> run_done;
  // Where given, called after the last run of a layer in a group; last: in the last group. Ranks that do this together
  // have as many groups, though one may have a run less than others, and none in the last group.
  std::function<void(size_t layer, bool last)> layer_done;
  // The most runs that a rank has, where several do it together; 0: as many as ids have.
  size_t most_runs = 0;
  // Called with the number of tokens one layer has been done for, forward and backward: 2 * layers *
  // ids.size() in all.
  std::function<void(size_t tokens)> advance = [](size_t) {};
};

struct BackwardResult {
  double nll = 0.0;        // sum over the predictions of the text's own next tokens, nats
  size_t predictions = 0;  // window - 1 in each window
};

// Runs the model forward and backward over windows of `window` consecutive ids (ids.size() a multiple of it)
// and hands out the gradients of the summed negative log likelihood of each window's window - 1 predictions.
// Runs of max(1, 2048 / window) windows are taken together in groups whose stored inputs, layers * tokens *
// hidden * 4 bytes, fit stored_bytes; at least one run is. Each matrix of a layer is read twice a group. Peak
// memory: stored_bytes (or one run), one layer's weights twice, and the activations of one run. Independent
// of stored_bytes and of the number of threads, bit by bit. Throws Error as reading and Embed do, and
// Interrupted.
BackwardResult RunBackward(const ModelWeights& weights, std::span<const int32_t> ids, size_t window,
                           size_t stored_bytes, const BackwardSettings& settings, const GradientHook& hook);

}  // namespace mica
