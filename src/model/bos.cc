#include "model/bos.h"

#include <utility>

#include "base/error.h"

namespace mica {
namespace {

constexpr std::pair<BosPlace, const char*> kPlaces[] = {
    {BosPlace::kText, "text"}, {BosPlace::kWindow, "window"}, {BosPlace::kNone, "none"}};

}  // namespace

const char* BosPlaceName(BosPlace place) {
  for (const auto& [known, name] : kPlaces) {
    if (known == place) return name;
  }
  MICA_CHECK(false);
}

BosPlace ParseBosPlace(const std::string& name) {
  for (const auto& [place, known] : kPlaces) {
    if (name == known) return place;
  }
  Fail("--bos is {}, expected text, window or none", name);
}

BosPlace DefaultBos(const Tokenizer& tokenizer, std::string_view model_type) {
  if (model_type.starts_with("gemma") && tokenizer.has_bos()) return BosPlace::kWindow;
  return tokenizer.text_bos() ? BosPlace::kText : BosPlace::kNone;
}

void Bos::BeginWindows(std::span<int32_t> ids, size_t window) const {
  for (size_t first = 0; first < ids.size(); first += window) ids[first] = id;
}

Bos BosOf(std::optional<BosPlace> asked, const Tokenizer& tokenizer, std::string_view model_type) {
  const BosPlace place = asked.value_or(DefaultBos(tokenizer, model_type));
  if (place == BosPlace::kNone) return {};
  if (!tokenizer.has_bos()) {
    Fail("--bos is {}, but the tokenizer has no token that begins a text (BOS); leave it out, or give none",
         BosPlaceName(place));
  }
  return {place, tokenizer.bos()};
}

}  // namespace mica
