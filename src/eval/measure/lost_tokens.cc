#include "eval/measure/lost_tokens.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "generate/text_stream.h"
#include "io/container/safetensors.h"

namespace mica {
namespace {

constexpr double kSameMean = 1e-6;  // relative: the same numbers, summed in another order

double Rounded(float nats) { return std::round(1000 * static_cast<double>(nats)) / 1000; }

LostTokenRecord RecordOf(const LostToken& token, const Windows& windows, const Tokenizer& tokenizer) {
  const auto ids = std::span(windows.ids).subspan(token.window * windows.window, token.place + 1);
  const size_t shown = std::min(kLostContext, token.place);
  TokenText text(tokenizer, ids.first(token.place - shown));
  LostTokenRecord record;
  record.context.emplace();
  for (const int32_t id : ids.subspan(token.place - shown, shown)) *record.context += text.Add(id);
  record.token = text.Add(ids.back());
  if (record.token->empty()) record.token = text.Finish();
  record.original = Rounded(token.original);
  record.compressed = Rounded(token.compressed);
  return record;
}

}  // namespace

void WriteTokenLosses(const std::filesystem::path& path, const TokenLosses& losses) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, nats] : losses) specs.push_back({name, DType::kF32, {nats.size()}});
  SafetensorsWriter writer(path, std::move(specs));
  for (const auto& [name, nats] : losses) writer.Write(std::as_bytes(std::span(nats)));
  writer.Commit();
}

TokenLosses ReadTokenLosses(const std::filesystem::path& path) {
  TokenLosses losses;
  for (const TensorView& tensor : OpenSafetensors(path).tensors) {
    if (tensor.dtype != DType::kF32 || tensor.shape.size() != 1)
      Fail("{}: {} is {} {}, expected losses of tokens, F32 in one row; delete the file", path.string(), tensor.name,
           TypeName(tensor), ShapeText(tensor.shape));
    std::vector<float> nats(tensor.elements());
    ReadFloats(tensor, 0, nats);
    losses.emplace_back(tensor.name, std::move(nats));
  }
  return losses;
}

bool AreOf(const TokenLosses& losses, const EvaluationRecord& record) {
  return std::ranges::all_of(record.sets, [&](const auto& entry) {
    const auto& [name, set] = entry;
    const std::vector<float>* nats = Find(losses, name);
    if (nats == nullptr || nats->empty() || !set.nll || set.scored_tokens != nats->size()) return false;
    double sum = 0;
    for (const float value : *nats) sum += value;
    return std::abs(sum / static_cast<double>(nats->size()) - *set.nll) <= kSameMean * std::max(1.0, *set.nll);
  });
}

std::vector<LostToken> LostTokens(const Windows& windows, std::span<const float> original,
                                  std::span<const float> compressed, size_t most) {
  MICA_CHECK(original.size() == windows.count() * windows.scored_per_window());
  MICA_CHECK(compressed.size() == original.size());
  std::vector<std::pair<float, size_t>> worst;  // loss and place, a heap whose first is the smallest of them
  const auto before = [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  };
  for (size_t i = 0; i < original.size(); ++i) {
    const std::pair<float, size_t> one = {compressed[i] - original[i], i};
    if (!(one.first > 0) || !std::isfinite(one.first)) continue;
    if (worst.size() == most && (most == 0 || !before(one, worst.front()))) continue;
    if (worst.size() == most) {
      std::ranges::pop_heap(worst, before);
      worst.pop_back();
    }
    worst.push_back(one);
    std::ranges::push_heap(worst, before);
  }
  std::ranges::sort(worst, before);
  std::vector<LostToken> tokens;
  for (const auto& [loss, i] : worst) {
    const size_t scored = windows.scored_per_window();
    tokens.push_back({i / scored, windows.first_scored + i % scored, original[i], compressed[i]});
  }
  return tokens;
}

std::vector<LostTokenRecord> LostTokenRecords(const Windows& windows, const Tokenizer& tokenizer,
                                              std::span<const float> original,
                                              std::span<const float> compressed) {
  std::vector<LostTokenRecord> records;
  for (const LostToken& token : LostTokens(windows, original, compressed, kLostTokens))
    records.push_back(RecordOf(token, windows, tokenizer));
  return records;
}

}  // namespace mica
