// What a reader sees of the models' own words: samples of text, the tokens that lost most, and what generating
// costs.
#pragma once

#include <string>
#include <vector>

#include "eval/report/comparison.h"
#include "eval/report/report.h"
#include "eval/report/strings.h"

namespace mica {

// Least divergence, in nats, that a token has whose shade is 1, 2, ...
inline constexpr double kShadeNats[kShades] = {0.1, 0.3, 1, 3};
int ShadeOf(double nats);

// Samples and lost tokens of the compressed result; no blocks where it has neither. What in them does not fit
// together (lengths beyond the text) is shown without shades.
Section SamplesSection(const Comparison& comparison, Language language);

// Rows of the table of costs, {item, baseline, compressed}: speed and memory of generation. The baseline's are
// those of the original, or of a baseline that is a compressed model itself.
std::vector<std::vector<std::string>> GenerationRows(const Comparison& comparison, Language language);

}  // namespace mica
