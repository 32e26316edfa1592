#include "compress/calibrate/calibration.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "base/error.h"

namespace mica {
namespace {

constexpr double kRepeated = 0.8;        // share of distinct tokens below which windows repeat one another
constexpr size_t kTokensPerChannel = 4;  // with fewer, moments say little of how channels go together

}  // namespace

// By largest remainder.
std::vector<size_t> WindowsOfSources(const std::vector<DataSpec>& sources, size_t samples) {
  double total = 0;
  for (const DataSpec& source : sources) {
    if (!(source.weight > 0) || !std::isfinite(source.weight)) {
      Fail("--calib {}: weight {} is not positive; give a share such as 0.5", source.path.string(),
           source.weight);
    }
    total += source.weight;
  }
  if (samples < sources.size()) {
    Fail("--samples is {}, expected at least {}, one a calibration text", samples, sources.size());
  }
  std::vector<size_t> windows(sources.size());
  std::vector<double> remainder(sources.size());
  for (size_t i = 0; i < sources.size(); ++i) {
    const double share = static_cast<double>(samples) * sources[i].weight / total;
    windows[i] = std::max<size_t>(1, static_cast<size_t>(share));
    remainder[i] = share - static_cast<double>(windows[i]);
  }
  std::vector<size_t> order(sources.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return remainder[a] > remainder[b]; });
  size_t given = std::accumulate(windows.begin(), windows.end(), size_t{0});
  for (size_t k = 0; given < samples; ++k, ++given) ++windows[order[k % order.size()]];
  while (given > samples) {  // weights so unequal that "at least one" gave too many
    --*std::max_element(windows.begin(), windows.end());
    --given;
  }
  return windows;
}

size_t DistinctTokens(std::span<const int32_t> ids, size_t window) {
  std::vector<uint64_t> contexts;
  contexts.reserve(ids.size());
  for (size_t begin = 0; begin < ids.size(); begin += window) {
    for (size_t t = begin; t < std::min(ids.size(), begin + window); ++t) {
      const size_t first = std::max(begin, t + 1 - std::min(t + 1, kContext));
      uint64_t hash = 0x9E3779B97F4A7C15u;
      for (size_t i = first; i <= t; ++i) {
        hash = (hash ^ static_cast<uint64_t>(static_cast<uint32_t>(ids[i]))) * 0xBF58476D1CE4E5B9u;
        hash ^= hash >> 29;
      }
      // Where a window begins, less than a context is known: what is there may be anywhere in the text.
      if (t + 1 - first == std::min(kContext, window)) contexts.push_back(hash);
    }
  }
  std::sort(contexts.begin(), contexts.end());
  const auto distinct = static_cast<size_t>(std::unique(contexts.begin(), contexts.end()) - contexts.begin());
  if (contexts.empty()) return 0;
  return static_cast<size_t>(std::llround(static_cast<double>(ids.size()) * static_cast<double>(distinct) /
                                          static_cast<double>(contexts.size())));
}

std::string CalibrationWarning(const Calibration& calibration, size_t widest_input) {
  const size_t tokens = calibration.tokens(), distinct = calibration.distinct_tokens;
  const bool repeated = static_cast<double>(distinct) < kRepeated * static_cast<double>(tokens);
  const bool few = distinct < kTokensPerChannel * widest_input;
  if (!repeated && !few) return "";
  std::string text = fmt::format("{} calibration tokens", tokens);
  if (repeated) {
    const double times = static_cast<double>(tokens) / static_cast<double>(std::max<size_t>(1, distinct));
    text += fmt::format(", of which only {} are distinct: the {} windows repeat the text {:.1f} times",
                        distinct, calibration.samples, times);
  }
  if (few)
    text += fmt::format("; matrices have up to {} input channels, so moments lean on damping", widest_input);
  return text + (repeated ? "; give more text" : "; use more --samples");
}

Calibration DrawCalibration(const CalibrationSettings& settings, const Tokenizer& tokenizer,
                            std::string_view model_type) {
  if (settings.sources.empty())
    Fail("no calibration text; give --calib KIND=FILE, or leave it out for the built-in text");
  const size_t seqlen = settings.seqlen.value();
  if (seqlen < 8) Fail("calibration windows of {} tokens are too short, expected at least 8", seqlen);
  const std::vector<size_t> windows = WindowsOfSources(settings.sources, settings.samples);
  const Bos bos = BosOf(settings.bos, tokenizer, model_type);

  Calibration calibration;
  calibration.samples = settings.samples;
  calibration.seqlen = seqlen;
  std::vector<std::vector<int32_t>> drawn(settings.sources.size());  // [windows, seqlen] a source
  for (size_t i = 0; i < settings.sources.size(); ++i) {
    const DataSpec& source = settings.sources[i];
    const LoadedText loaded = LoadText(source);
    std::vector<int32_t> ids(bos.before_text(), bos.id);
    const std::vector<int32_t> encoded = tokenizer.Encode(loaded.text);
    ids.insert(ids.end(), encoded.begin(), encoded.end());
    if (ids.size() < seqlen) {
      Fail(
          "{}: has {} tokens, expected at least one window of {}; use a longer text or a smaller "
          "--seqlen",
          source.path.string(), ids.size(), seqlen);
    }
    std::mt19937_64 random(settings.seed * 0x9E3779B97F4A7C15u + i + 1);
    const size_t count = windows[i];
    const bool apart = ids.size() / count >= seqlen;  // each window finds room in a stretch of its own
    const size_t starts = ids.size() - seqlen + 1;
    for (size_t w = 0; w < count; ++w) {
      const size_t first = apart ? ids.size() * w / count : starts * w / count;
      const size_t end = apart ? ids.size() * (w + 1) / count - seqlen + 1 : starts * (w + 1) / count;
      const size_t start = first + random() % std::max<size_t>(1, end - first);
      drawn[i].insert(drawn[i].end(), ids.begin() + start, ids.begin() + start + seqlen);
    }
    calibration.provenance.sources.push_back({.kind = DataKindName(source.kind),
                                              .path = source.path.string(),
                                              .sha256 = loaded.fingerprint,
                                              .content_sha256 = loaded.content_fingerprint,
                                              .weight = source.weight,
                                              .windows = windows[i],
                                              .other = {}});
  }
  calibration.ids.reserve(settings.samples * seqlen);
  // Interleaved, so that any leading part of the windows is a fair sample of the mixture.
  for (size_t w = 0; calibration.ids.size() < settings.samples * seqlen; ++w) {
    for (size_t i = 0; i < drawn.size(); ++i) {
      const size_t next = w * windows[i] / *std::max_element(windows.begin(), windows.end());
      const size_t after = (w + 1) * windows[i] / *std::max_element(windows.begin(), windows.end());
      calibration.ids.insert(calibration.ids.end(), drawn[i].begin() + next * seqlen,
                             drawn[i].begin() + after * seqlen);
    }
  }
  if (bos.place == BosPlace::kWindow) bos.BeginWindows(calibration.ids, seqlen);
  calibration.provenance.tokenizer = tokenizer.fingerprint();
  calibration.provenance.bos = BosPlaceName(bos.place);
  calibration.distinct_tokens = DistinctTokens(calibration.ids, seqlen);
  calibration.provenance.samples = settings.samples;
  calibration.provenance.seqlen = seqlen;
  calibration.provenance.tokens = calibration.ids.size();
  calibration.provenance.seed = settings.seed;
  return calibration;
}

Calibration Calibration::Subset(size_t windows) const {
  if (windows >= samples) return *this;
  Calibration subset;
  subset.samples = windows;
  subset.seqlen = seqlen;
  subset.provenance = provenance;
  for (size_t w = 0; w < windows; ++w) {
    const auto first = ids.begin() + static_cast<std::ptrdiff_t>(w * samples / windows * seqlen);
    subset.ids.insert(subset.ids.end(), first, first + static_cast<std::ptrdiff_t>(seqlen));
  }
  return subset;
}

}  // namespace mica
