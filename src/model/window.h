// How many tokens the windows have that a model reads, where calibrating and evaluating alike.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>

#include "model/config.h"

namespace mica {

// Tokens of a window where no number is given and the model has as many positions.
inline constexpr size_t kUsualWindow = 2048;

// `asked`, or what suits the model: kUsualWindow, or its positions where it has learnt fewer. Warns, once for
// each length, of windows that are longer than those positions.
size_t WindowTokens(std::optional<size_t> asked, const ModelConfig& config);

// Tokens of a *run*: as many whole windows as have about kUsualWindow tokens, at least one. Sums over tokens
// are taken run by run, so that they follow the place of a token in the text and nothing else; work on more
// tokens at once takes whole runs.
constexpr size_t RunTokens(size_t window) {
  return (window >= kUsualWindow ? 1 : kUsualWindow / window) * window;
}

// Calls visit(first, count) for the rows of each run; rows: tokens from the beginning of a run.
template <typename Visit>
void ForRuns(size_t rows, size_t run_tokens, const Visit& visit) {
  for (size_t first = 0; first < rows; first += run_tokens) visit(first, std::min(run_tokens, rows - first));
}

}  // namespace mica
