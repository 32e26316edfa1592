#include "record/samples.h"

#include "base/sha256.h"
#include "record/evaluation.h"
#include "record/identity.h"

namespace mica {

std::string SamplesMadeOf(const EvaluationRecord& original, const EvaluationRecord& compressed,
                          uint64_t tokens, std::span<const std::vector<int32_t>> prompts) {
  Identity identity;
  identity.Add("original", original.model.fingerprint);
  identity.Add("model", compressed.model.fingerprint);
  identity.Add("tokenizer", compressed.model.tokenizer);
  identity.Add("device", compressed.settings.device);
  identity.Add("tokens", Json(tokens));
  identity.Add(CodeIdentity(compressed.program));
  Json ids = Json::array();
  for (const std::vector<int32_t>& prompt : prompts) ids.push_back(prompt);
  identity.Add("prompts", std::move(ids));
  return Sha256Hex(std::string_view(ToJson(identity).dump()));
}

}  // namespace mica
