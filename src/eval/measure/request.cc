#include "eval/measure/request.h"

#include <optional>
#include <string>

#include "base/context.h"
#include "base/error.h"
#include "record/options.h"

namespace mica {

EvaluationRequest RequestFromJson(const Json& json, const std::string& where) {
  const Json values = ReadOptions(EvaluationOptionTable(), json, where);
  const auto value = [&](const char* name) {
    return ValueOf(values, FindOption(EvaluationOptionTable(), name));
  };
  EvaluationRequest request;
  request.convention = ParseConvention(value("convention"));
  if (const Json bos = value("bos"); !bos.is_null()) request.bos = ParseBosPlace(bos);
  request.special_tokens = value("special-tokens");
  request.force = value("force");
  request.max_windows = value("max-windows");
  if (const Json seqlen = value("seqlen"); !seqlen.is_null()) request.seqlen = seqlen.get<size_t>();
  if (const Json bytes = value("activation-memory"); !bytes.is_null())
    request.activation_bytes = bytes.get<uint64_t>();
  if (const Json reference = value("reference"); !reference.is_null())
    request.reference = reference.get<std::string>();
  if (const Json tokenizer = value("tokenizer"); !tokenizer.is_null())
    request.tokenizer = tokenizer.get<std::string>();
  if (const std::string dtype = value("dtype"); dtype != "auto")
    request.precision = dtype == "bf16" ? Precision::kBf16 : Precision::kFp32;
  request.as_running = value("as-running");
  for (const Json& set : ValueOf(values, FindOption(EvaluationOptionTable(), "data"))) {
    std::optional<std::string> name;
    if (set.contains("name")) name = set.at("name").get<std::string>();
    request.data.push_back(
        InContext(where, [&] { return MakeDataSpec(set.value("kind", "text"), set.at("path"), name); }));
  }
  if (request.data.empty()) Fail("{}: \"data\" names no text to evaluate on", where);
  return request;
}

}  // namespace mica
