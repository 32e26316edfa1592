// Calibration text: windows of tokens drawn from one or several texts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/text/datasets.h"
#include "io/text/tokenizer.h"
#include "model/bos.h"
#include "record/compression.h"

namespace mica {

struct CalibrationSettings {
  std::vector<DataSpec> sources = {BuiltInText()};  // weights are shares of the windows
  size_t samples = 128;                             // windows
  std::optional<size_t> seqlen;  // tokens a window; none: what suits the model (model/window.h)
  std::optional<BosPlace> bos;   // none: what suits the model (model/bos.h)
  uint64_t seed = 0;
};

struct Calibration {
  size_t samples = 0;
  size_t seqlen = 0;
  std::vector<int32_t> ids;  // [samples, seqlen]
  CalibrationRecord provenance;
  // Of `ids`, those that do not repeat what other windows have: tokens by the kContext tokens up to them.
  size_t distinct_tokens = 0;

  size_t tokens() const { return ids.size(); }
  // `windows` of the windows, evenly spaced (all when there are no more); provenance is that of the whole.
  Calibration Subset(size_t windows) const;
};

// Tokens in a row that make two places of a text the same.
inline constexpr size_t kContext = 16;

// Windows of each source: shares of `samples` in proportion to the weights, at least one each. Throws Error
// for weights that are not positive and for fewer samples than sources.
std::vector<size_t> WindowsOfSources(const std::vector<DataSpec>& sources, size_t samples);

// Of ids [windows, window], those whose context, the kContext tokens up to them (less at the start of a
// window), occurs for the first time: a text that is drawn from twelve times over, and one of a thousand
// equal documents, have few.
size_t DistinctTokens(std::span<const int32_t> ids, size_t window);

// One line that says how few of the tokens are distinct and what to do; empty where they are many. Also where
// they are few for matrices of up to `widest_input` input channels.
std::string CalibrationWarning(const Calibration& calibration, size_t widest_input);

// Each text is tokenised whole, BOS in front where the model has one; a window is seqlen consecutive tokens.
// The text is cut into as many equal stretches as it gives windows and each window starts at random inside
// its stretch; windows overlap only when the text is too short to keep them apart. In place kWindow BOS takes
// the place of each window's first token. The windows of the sources are interleaved. The same settings and
// files give the same windows. Throws Error when a text has fewer than seqlen tokens. settings.seqlen must be
// known; model_type: that of the model, which BOS depends on.
Calibration DrawCalibration(const CalibrationSettings& settings, const Tokenizer& tokenizer,
                            std::string_view model_type);

}  // namespace mica
