#include "record/evaluation.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "record/fields.h"

namespace mica {

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<ArchitectureRecord>& record) {
  archive("class", record.architecture);
  archive("model_type", record.model_type);
  archive("layers", record.layers);
  archive("hidden", record.hidden);
  archive("heads", record.heads);
  archive("kv_heads", record.kv_heads);
  archive("head_dim", record.head_dim);
  archive("ffn", record.ffn);
  archive("vocab", record.vocab);
  archive("max_positions", record.max_positions);
  archive("rope_theta", record.rope_theta);
  archive("tied_head", record.tied_head);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<ModelRecord>& record) {
  archive("path", record.path);
  archive("fingerprint", record.fingerprint);
  archive("tokenizer", record.tokenizer);
  archive("architecture", record.architecture);
  archive("parameters", record.parameters);
  archive("file_bytes", record.file_bytes);
  archive("layout", record.layout);
  archive("compression", record.compression);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<ReferenceModel>& record) {
  archive("path", record.path);
  archive("fingerprint", record.fingerprint);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<EvaluationSettings>& record) {
  archive("convention", record.convention);
  archive("bos", record.bos);
  archive("seqlen", record.seqlen);
  archive("dtype", record.dtype);
  archive("as_running", record.as_running);
  archive.OrNull("max_windows", record.max_windows);
  archive("special_tokens", record.special_tokens);
  archive("threads", record.threads);
  archive("seed", record.seed);
  archive("device", record.device);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<TextRecord>& record) {
  archive("kind", record.kind);
  archive("path", record.path);
  archive("sha256", record.sha256);
  archive("content_sha256", record.content_sha256);
  archive("tokens_sha256", record.tokens_sha256);
  archive("bytes", record.bytes);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<TokenClassRecord>& record) {
  archive("from", record.from);
  archive("to", record.to);
  archive("tokens", record.tokens);
  archive("nll", record.nll);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<DivergenceRecord>& record) {
  archive("kl", record.kl);
  archive("same_top", record.same_top);
  archive("standard_error", record.standard_error);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<LostTokenRecord>& record) {
  archive("context", record.context);
  archive("token", record.token);
  archive("original", record.original);
  archive("compressed", record.compressed);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<SampleRecord>& record) {
  archive("set", record.set);
  archive("prompt", record.prompt);
  archive("original", record.original);
  archive.UnlessEmpty("lengths", record.lengths);
  archive.UnlessEmpty("kl", record.hundredths);
  archive("parting", record.parting);
  archive("compressed", record.compressed);
  archive("original_ended", record.original_ended);
  archive("compressed_ended", record.compressed_ended);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<SpeedRecord>& record) {
  archive("tokens", record.tokens);
  archive("tokens_per_second", record.tokens_per_second);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<RunningRecord>& record) {
  archive("weight_bytes", record.weight_bytes);
  archive("peak_memory_bytes", record.peak_memory_bytes);
  archive("prompt", record.prompt);
  archive("generated", record.generated);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<SamplesRecord>& record) {
  archive("made_of", record.made_of);
  archive("skipped", record.skipped);
  archive("tokens", record.tokens);
  archive("kl", record.kl);
  archive.UnlessEmpty("texts", record.texts);
  archive("original", record.original);
  archive("compressed", record.compressed);
  archive("seconds", record.seconds);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<SetRecord>& record) {
  archive("ppl", record.perplexity);
  archive("error", record.error);
  archive("time", record.seconds);
  archive("nll", record.nll);
  archive("bits_per_byte", record.bits_per_byte);
  archive("tokens", record.tokens);
  archive("scored_tokens", record.scored_tokens);
  archive("windows", record.windows);
  archive("window_nll", record.window_nll);
  archive("by_occurrence", record.by_occurrence);
  archive.UnlessEmpty("lost_tokens", record.lost_tokens);
  archive("text_tokens", record.text_tokens);
  archive("tokens_per_second", record.tokens_per_second);
  archive.UnlessEmpty("phases", record.phases);
  archive("data", record.data);
  archive("divergence", record.divergence);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<EvaluationRecord>& record) {
  archive("mica", record.program);
  archive("created", record.created);
  archive("model", record.model);
  archive("reference", record.reference);
  archive("settings", record.settings);
  archive("host", record.host);
  archive("datasets", record.sets);
  archive("time", record.time);
  archive("peak_memory_bytes", record.peak_memory_bytes);
  archive("gpu", record.gpu);
  archive("samples", record.samples);
  archive.Other(record.other);
}

namespace {

constexpr double kRounding = 0.001;  // relative, of a perplexity that is written with few digits

bool IsSet(const Json& json) {
  return json.is_object() && (json.contains("ppl") || json.contains("nll") || json.contains("error"));
}

bool IsNumber(const std::string& text) {
  double number = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), number);
  return read.ec == std::errc() && read.ptr == text.data() + text.size() && std::isfinite(number);
}

// What a file is that was taken for a result, where its keys tell.
const char* KindOf(const Json& json) {
  if (json.contains("verdict")) return ", it is a comparison";
  if (json.contains("layers") && json.contains("bits")) return ", it is the record of a compression";
  if (json.contains("architectures") || json.contains("model_type")) return ", it is a model's configuration";
  if (json.contains("compress") && json.contains("evaluate")) return ", it is an experiment";
  return "";
}

void RefuseNoObject(const Json& json, const std::string& where) {
  if (!json.is_object()) Fail("{}: is not a JSON object; expected a result of 'mica eval'", where);
}

// In files of others, why there is no perplexity may stand in its place.
Json WithReasonApart(Json set) {
  const auto reason = set.find("ppl");
  if (reason == set.end() || !reason->is_string() || IsNumber(reason->get<std::string>())) return set;
  if (!set.contains("error")) set["error"] = *reason;
  set.erase("ppl");
  return set;
}

SetRecord SetIn(const Json& json, const std::string& where, const std::string& name) {
  return FieldReader::Read<SetRecord>(json, fmt::format("{}, set {}", where, name), WrongTypes::kRefuse);
}

EvaluationRecord PlainFromJson(const Json& json, const std::string& where) {
  EvaluationRecord record = FieldReader::Read<EvaluationRecord>(json, where, WrongTypes::kSkip);
  record.other = nullptr;  // the sets
  for (const auto& [name, set] : json.items()) {
    if (IsSet(set)) record.sets.emplace_back(name, SetIn(WithReasonApart(set), where, name));
  }
  return record;
}

}  // namespace

EvaluationRecord EvaluationFromJson(const Json& json, const std::string& where) {
  RefuseNoObject(json, where);
  const auto datasets = json.find("datasets");
  if (datasets == json.end() || !datasets->is_object())
    Fail("{}: has no object \"datasets\"; expected a result of 'mica eval'", where);
  Json besides = json;  // all but the sets
  besides.erase("datasets");
  EvaluationRecord record = FieldReader::Read<EvaluationRecord>(besides, where, WrongTypes::kRefuse);
  for (const auto& [name, set] : datasets->items()) {
    if (!set.is_object())
      Fail("{}, \"datasets\": \"{}\" is {}, expected an object", where, name, set.type_name());
    if (IsSet(set)) record.sets.emplace_back(name, SetIn(set, where, name));
  }
  return record;
}

EvaluationRecord AnyEvaluationFromJson(const Json& json, const std::string& where) {
  RefuseNoObject(json, where);
  const bool ours = json.contains("mica") || json.contains("datasets");
  const Json sets = ours ? json.value("datasets", Json()) : json;
  if (*KindOf(json) != '\0' && std::none_of(sets.begin(), sets.end(), IsSet)) {
    Fail("{}: is no result of 'mica eval'{}; give the file that 'mica eval -o' wrote", where, KindOf(json));
  }
  EvaluationRecord record = ours ? EvaluationFromJson(json, where) : PlainFromJson(json, where);
  if (record.sets.empty()) {
    Fail(
        "{}: has no perplexities; expected a result of 'mica eval' or an object such as {{\"wikitext2\": "
        "{{\"ppl\": 5.79}}}}",
        where);
  }
  return record;
}

std::optional<double> LogPerplexity(const SetRecord& record) {
  const bool known = record.perplexity && std::isfinite(*record.perplexity);
  if (!record.nll || !std::isfinite(*record.nll))
    return known ? std::optional(std::log(*record.perplexity)) : std::nullopt;
  if (known && !(std::fabs(*record.nll - std::log(*record.perplexity)) <= kRounding))
    return std::log(*record.perplexity);
  return record.nll;
}

Json ToJson(const EvaluationRecord& record) { return FieldWriter::Write(record); }
Json ToJson(const EvaluationSettings& record) { return FieldWriter::Write(record); }

}  // namespace mica
