#include "record/identity.h"

#include <fmt/format.h>

#include "base/error.h"
#include "record/options.h"

namespace mica {
namespace {

constexpr size_t kShownCharacters = 16;  // of a value: enough of a SHA-256 to tell two apart

std::string Shown(const Json* value) {
  if (value == nullptr) return "none";
  return (value->is_string() ? value->get<std::string>() : value->dump()).substr(0, kShownCharacters);
}

std::string Clause(const std::string& part, const Json* before, const Json* now) {
  return fmt::format("{} {} against {}", part, Shown(before), Shown(now));
}

// The flag of a setting's key: "--group-size" of "group_size".
std::string FlagOf(const std::string& key) {
  for (const Option& option : CompressionOptionTable()) {
    if (KeyOf(option) == key) return "--" + std::string(option.name);
  }
  return "\"" + key + "\"";  // of a file of another version
}

// Where windows had BOS. Results of versions that did not record it had it where the tokenizer put it: in
// front of a text of all models but Qwen's, and in each window by convention llamacpp.
std::optional<std::string> PlaceOfBos(const EvaluationRecord& record) {
  const std::optional<std::string>& model_type = record.model.architecture.model_type;
  if (record.settings.bos || !record.program.version || !model_type) return record.settings.bos;
  if (model_type->starts_with("qwen")) return "none";
  return record.settings.convention == "llamacpp" ? "window" : "text";
}

}  // namespace

void Identity::Add(std::string part, Json value) {
  MICA_CHECK(Find(parts_, part) == nullptr);
  if (!value.is_null()) parts_.emplace_back(std::move(part), std::move(value));
}

void Identity::Add(const Identity& parts) {
  for (const auto& [part, value] : parts.parts()) Add(part, value);
}

std::vector<std::string> Differences(const Identity& before, const Identity& now, Unrecorded unrecorded) {
  std::vector<std::string> clauses;
  const bool strict = unrecorded == Unrecorded::kDiffers;
  for (const auto& [part, value] : before.parts()) {
    const Json* other = Find(now.parts(), part);
    if (other == nullptr ? strict : *other != value) clauses.push_back(Clause(part, &value, other));
  }
  for (const auto& [part, value] : now.parts()) {
    if (strict && Find(before.parts(), part) == nullptr) clauses.push_back(Clause(part, nullptr, &value));
  }
  return clauses;
}

std::string JoinClauses(const std::vector<std::string>& clauses) {
  std::string text;
  for (const std::string& clause : clauses) text += (text.empty() ? "" : "; ") + clause;
  return text;
}

Json ToJson(const Identity& identity) {
  Json json = Json::object();
  for (const auto& [part, value] : identity.parts()) json[part] = value;
  return json;
}

Identity IdentityFromJson(const Json& json, const std::string& where) {
  if (!json.is_object()) Fail("{}: expected a JSON object, found {}", where, json.type_name());
  Identity identity;
  for (const auto& [part, value] : json.items()) identity.Add(part, value);
  return identity;
}

Identity CodeIdentity(const Program& program) {
  Identity identity;
  identity.Add("code", program.version.value_or("?") + " " + program.commit.value_or("?"));
  return identity;
}

Identity CalibrationIdentity(const CalibrationRecord& calibration) {
  Identity identity;
  identity.Add("tokenizer", calibration.tokenizer);
  identity.Add("--bos", calibration.bos);
  for (size_t i = 0; i < calibration.sources.size(); ++i) {
    const CalibrationSource& source = calibration.sources[i];
    const std::string text = fmt::format("calibration text {}", i + 1);
    identity.Add(text, source.sha256);
    identity.Add("kind of " + text, source.kind);
    identity.Add("weight of " + text, source.weight);
    identity.Add("windows of " + text, source.windows);
  }
  return identity;
}

Identity CompressionIdentity(const CompressionRecord& record) {
  Identity identity;
  identity.Add("model", record.model.fingerprint);
  identity.Add(CalibrationIdentity(record.calibration));
  for (const auto& [key, value] : record.settings.values.items()) {
    // The texts above, which count by what is in them, and the place that was asked for or that suits.
    if (key == "calib" || key == "bos") continue;
    if (key == "budget") {
      const BudgetRecord budget = record.settings.Budget();
      identity.Add("--" + budget.kind.value_or("budget"), budget.value);
    } else {
      identity.Add(FlagOf(key), value);
    }
  }
  identity.Add(CodeIdentity(record.program));
  return identity;
}

bool SameText(const CalibrationSource& calibration, const TextRecord& evaluated) {
  for (const auto& one : {calibration.sha256, calibration.content_sha256}) {
    if (one && (one == evaluated.sha256 || one == evaluated.content_sha256)) return true;
  }
  return false;
}

TokensBy SeenIn(const EvaluationRecord& one, const EvaluationRecord& other) {
  bool seen = false;
  for (const auto& [name, set] : one.sets) {
    const SetRecord* const same = Find(other.sets, name);
    if (same == nullptr) continue;
    if (!set.data.tokens_sha256 || !same->data.tokens_sha256) return TokensBy::kTokenizer;
    seen = true;
  }
  return seen ? TokensBy::kIds : TokensBy::kTokenizer;
}

Identity MeasurementIdentity(const EvaluationRecord& record, TokensBy tokens) {
  Identity identity;
  identity.Add("convention", record.settings.convention);
  identity.Add("bos", PlaceOfBos(record));
  identity.Add("seqlen", record.settings.seqlen);
  identity.Add("dtype", record.settings.dtype);
  identity.Add("special tokens", record.settings.special_tokens);
  if (tokens == TokensBy::kTokenizer) identity.Add("tokenizer", record.model.tokenizer);
  for (const auto& [name, set] : record.sets) {
    if (tokens == TokensBy::kIds) identity.Add("tokens of " + name, set.data.tokens_sha256);
    identity.Add("text of " + name, set.data.sha256);
    identity.Add("kind of " + name, set.data.kind);
  }
  return identity;
}

Identity EvaluationIdentity(const EvaluationRecord& record) {
  Identity identity;
  identity.Add("model", record.model.fingerprint);
  if (record.reference) identity.Add("reference", record.reference->fingerprint);
  identity.Add(MeasurementIdentity(record));
  identity.Add("as running", record.settings.as_running);
  identity.Add("max windows", record.settings.max_windows);
  identity.Add("device", record.settings.device);
  identity.Add(CodeIdentity(record.program));
  return identity;
}

}  // namespace mica
