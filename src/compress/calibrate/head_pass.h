// What the calibration tokens bring to the output head: its inputs are what the final norm makes of the
// residual stream behind the last layer.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compress/calibrate/layer_pass.h"
#include "compress/calibrate/residual_stream.h"
#include "device/array.h"
#include "device/precision.h"
#include "model/weights.h"

namespace mica {

// Of the head's inputs x, [hidden, hidden] FP32 on the device that computes.
struct HeadMoments {
  Array h;      // E[w x x^T] over tokens, w the weight of each
  Array drift;  // E[w (x_original - x) x^T]; empty without the original model's stream
};

// [tokens] 1 - p(next token) for each token of the stream behind the last layer: what is expected of it under p
// is 1 - sum p^2, the trace of the second derivative of the loss by the logits. Tokens that predict nothing,
// the last of their windows, have 0. ids: the stream's. Throws Error as OutputHead does.
std::vector<float> HeadTokenWeights(const ModelWeights& weights, std::span<const int32_t> ids,
                                    const ResidualStream& stream, const Arithmetic& arithmetic);

// weights: of the tokens, or empty for 1 each. original: its stream behind its last layer, or none.
HeadMoments MeasureHeadInputs(const ModelWeights& model, const ResidualStream& stream,
                              const Original& original, std::span<const float> weights,
                              const Arithmetic& arithmetic, const TokenProgress& progress);

}  // namespace mica
