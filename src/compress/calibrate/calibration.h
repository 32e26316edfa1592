// Calibration text: windows of tokens drawn from one or several texts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "io/text/datasets.h"
#include "io/text/tokenizer.h"
#include "record/compression.h"

namespace mica {

struct CalibrationSettings {
  std::vector<DataSpec> sources;  // weights are shares of the windows
  size_t samples = 128;           // windows
  size_t seqlen = 2048;           // tokens a window
  uint64_t seed = 0;
};

struct Calibration {
  size_t samples = 0;
  size_t seqlen = 0;
  std::vector<int32_t> ids;  // [samples, seqlen]
  CalibrationRecord provenance;

  size_t tokens() const { return ids.size(); }
  // `windows` of the windows, evenly spaced (all when there are no more); provenance is that of the whole.
  Calibration Subset(size_t windows) const;
};

// Each text is tokenised whole with one BOS in front; a window is seqlen consecutive tokens. The text is cut
// into as many equal stretches as it gives windows and each window starts at random inside its stretch;
// windows overlap only when the text is too short to keep them apart. The windows of the sources are
// interleaved. The same settings and files give the same windows. Throws Error when a text has fewer than
// seqlen tokens.
Calibration DrawCalibration(const CalibrationSettings& settings, const Tokenizer& tokenizer);

}  // namespace mica
