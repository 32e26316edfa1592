// How many tokens the windows have that a model reads, where calibrating and evaluating alike.
#pragma once

#include <cstddef>
#include <optional>

#include "model/config.h"

namespace mica {

// Tokens of a window where no number is given and the model has as many positions.
inline constexpr size_t kUsualWindow = 2048;

// `asked`, or what suits the model: kUsualWindow, or its positions where it has learnt fewer. Warns, once for each
// length, of windows that are longer than those positions.
size_t WindowTokens(std::optional<size_t> asked, const ModelConfig& config);

}  // namespace mica
