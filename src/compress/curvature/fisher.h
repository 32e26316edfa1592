// How much the final loss feels each output of each matrix: Fisher information from a backward pass.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/matrix.h"
#include "base/progress.h"
#include "compress/calibrate/calibration.h"
#include "compress/curvature/output_information.h"
#include "device/precision.h"
#include "model/layer.h"
#include "model/weights.h"
#include "ops/product/product.h"

namespace mica {

struct FisherSettings {
  size_t windows = 8;  // calibration windows of the backward pass, evenly spaced; 0: none
  // Also the products of the gradients of different outputs, in blocks that keep all of them together below
  // kOutputMomentBytes.
  bool output_moments = false;
  bool token_weights = false;  // needs all calibration windows
  // Labels are drawn from the model's distribution with this seed (the true Fisher information) instead of
  // the text's own next tokens (the empirical one).
  bool sampled_labels = false;
  uint64_t seed = 0;
  Arithmetic arithmetic = Precision::kBf16;
  // Of the inputs of all layers that the backward pass stores; the result does not depend on it, but weights
  // are read twice as often when half as many windows fit.
  size_t stored_bytes = size_t{2} << 30;
};

// Moments of the gradients of all matrices: whole for small models, blocks of 128 outputs for 13B ones.
inline constexpr size_t kOutputMomentBytes = size_t{1} << 30;
// Outputs in one block of moments of a matrix with `rows` of them, in a model of this shape.
size_t OutputBlock(const ModelConfig& config, size_t rows);
// Bytes of a CUDA device that the sums of all of them take (ops/gram/block_gram.h).
uint64_t OutputSumBytes(const ModelConfig& config);

struct FisherInformation {
  // By layer and kind: means over tokens of products of the gradients of the labels' summed negative log
  // likelihood. Empty when no windows were asked for.
  std::vector<std::array<OutputInformation, kLinearKinds.size()>> outputs;
  // By layer and input: [tokens of all calibration windows] how much a token should count in the moments of
  // that input, mean 1: the square root of the squared norm of its gradients at the outputs of the matrices
  // that take the input, each relative to the matrix's mean. Empty unless asked for.
  std::vector<std::array<std::vector<float>, kInputKinds.size()>> token_weights;
  // [hidden, hidden] mean over tokens of g g^T, g the same gradient at the residual stream before the first
  // layer: what an error of a token's embedding costs. Empty when no windows were asked for.
  Matrix<float> embedding;
};

// Throws Error when token weights are asked for and not every window is to be seen.
FisherInformation MeasureFisher(const ModelWeights& weights, const Calibration& calibration,
                                const FisherSettings& settings, Progress& progress);

}  // namespace mica
