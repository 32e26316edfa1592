#include "eval/measure/evaluate.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/output.h"
#include "base/system.h"
#include "base/threads.h"
#include "base/units.h"
#include "eval/measure/standard_error.h"
#include "eval/measure/token_classes.h"
#include "io/text/tokenizer.h"
#include "model/config.h"
#include "model/weights.h"

namespace mica {
namespace {

constexpr size_t kDefaultSeqlen = 2048;

// A text on its way to be measured.
struct PreparedSet {
  DataSpec spec;
  Windows windows;
  double scored_bytes = 0;
  std::string sha256;
  uint64_t file_bytes = 0;
};

double ScoredBytes(const Tokenizer& tokenizer, const Windows& windows) {
  double bytes = 0;
  for (size_t w = 0; w < windows.count(); ++w) {
    for (size_t t = windows.first_scored; t < windows.window; ++t) {
      bytes += static_cast<double>(tokenizer.PieceBytes(windows.ids[w * windows.window + t]));
    }
  }
  return bytes;
}

PreparedSet Prepare(const DataSpec& spec, const Tokenizer& tokenizer, int32_t bos, size_t seqlen,
                    const EvaluationRequest& request) {
  ThrowIfInterrupted();
  PreparedSet set;
  set.spec = spec;
  const LoadedText loaded = LoadText(spec);
  set.sha256 = loaded.fingerprint;
  set.file_bytes = loaded.file_bytes;
  const std::vector<int32_t> ids =
      request.special_tokens ? tokenizer.EncodeWithSpecial(loaded.text) : tokenizer.Encode(loaded.text);
  set.windows = CutWindows(ids, bos, seqlen, request.convention, request.max_windows, spec.path.string());
  set.scored_bytes = ScoredBytes(tokenizer, set.windows);
  LogDebug("{}: {} tokens, {} windows of {}", spec.name, set.windows.text_tokens, set.windows.count(),
           seqlen);
  return set;
}

Json ArchitectureJson(const ModelConfig& config) {
  return {{"class", config.architecture},    {"model_type", config.model_type},
          {"layers", config.layers},         {"hidden", config.hidden},
          {"heads", config.heads},           {"kv_heads", config.kv_heads},
          {"head_dim", config.head_dim},     {"ffn", config.ffn},
          {"vocab", config.vocab},           {"max_positions", config.max_positions},
          {"rope_theta", config.rope_theta}, {"tied_head", config.tied_head}};
}

// The content of a packed model's compression.json; null for a plain model, or with a warning when it is
// missing.
Json CompressionFacts(const ModelWeights& weights) {
  if (!weights.packed()) return nullptr;
  const std::filesystem::path facts = weights.checkpoint().directory() / "compression.json";
  if (std::filesystem::exists(facts)) return ReadJson(facts);
  LogWarning("{}: is missing, so the result will not say how the model was compressed", facts.string());
  return nullptr;
}

void CheckNotCalibrated(const Json& facts, const PreparedSet& set) {
  const Json* sources = FindAt(facts, "calibration/sources");
  if (sources == nullptr || !sources->is_array()) return;
  for (const Json& source : *sources) {
    if (TextAt(source, "sha256") != set.sha256) continue;
    Fail(
        "{}: is a text this model was calibrated on ({}), so its perplexity would flatter the model; use "
        "another text, or --force",
        set.spec.path.string(), TextAt(source, "path").value_or("same SHA-256"));
  }
}

Json ModelJson(const ModelWeights& weights, const std::filesystem::path& path, const std::string& fingerprint,
               const Json& facts) {
  const Checkpoint& checkpoint = weights.checkpoint();
  Json model = {{"path", path.string()},
                {"fingerprint", fingerprint},
                {"architecture", ArchitectureJson(weights.config())},
                {"parameters", ParameterCount(weights.config())},
                {"file_bytes", checkpoint.file_bytes()},
                {"layout", checkpoint.layout()}};
  if (!facts.is_null()) model["compression"] = facts;
  return model;
}

Json SetJson(const PreparedSet& set, const Perplexity& measured, double seconds) {
  const size_t windows = set.windows.count();
  const uint64_t tokens = set.windows.ids.size();
  const uint64_t scored = windows * set.windows.scored_per_window();
  const double bits = measured.nll * static_cast<double>(scored) / std::numbers::ln2;
  Json classes = Json::array();
  for (const TokenClass& c : ClassesByOccurrence(set.windows, measured.token_nll)) {
    classes.push_back({{"from", c.from}, {"to", c.to}, {"tokens", c.tokens}, {"nll", c.nll}});
  }
  Json json = {{"ppl", measured.perplexity},
               {"time", seconds},
               {"nll", measured.nll},
               {"bits_per_byte", bits / std::max(1.0, set.scored_bytes)},
               {"tokens", tokens},
               {"scored_tokens", scored},
               {"windows", windows},
               {"window_nll", measured.window_nll},
               {"by_occurrence", classes},
               {"text_tokens", set.windows.text_tokens},
               {"tokens_per_second", static_cast<double>(tokens) / std::max(1e-9, seconds)},
               {"data",
                {{"kind", DataKindName(set.spec.kind)},
                 {"path", set.spec.path.string()},
                 {"sha256", set.sha256},
                 {"bytes", set.file_bytes}}}};
  if (!measured.window_kl.empty()) {
    json["divergence"] = {{"kl", measured.kl}, {"same_top", measured.same_top}};
    if (windows > 1) json["divergence"]["standard_error"] = StandardError(measured.window_kl);
  }
  return json;
}

std::string Count(double value) {
  if (value >= 1e9) return fmt::format("{:.2f} G", value / 1e9);
  if (value >= 1e6) return fmt::format("{:.1f} M", value / 1e6);
  return fmt::format("{:.0f}", value);
}

}  // namespace

Json Evaluate(const EvaluationRequest& request, Progress& progress) {
  if (request.data.empty()) Fail("no text to evaluate on; give at least one --data KIND=FILE");
  std::set<std::string> names;
  for (const DataSpec& spec : request.data) {
    if (!names.insert(spec.name).second) {
      Fail("--data '{}' is given twice; tell the sets apart with NAME:KIND=FILE", spec.name);
    }
  }
  const double began = MonotonicSeconds();
  ResetPeakResidentBytes();
  const ModelWeights weights = ModelWeights::Open(request.model);
  const ModelConfig& config = weights.config();
  const Tokenizer tokenizer = Tokenizer::Open(request.model);
  const int32_t bos = tokenizer.bos();
  const size_t seqlen = request.seqlen != 0 ? request.seqlen : std::min(kDefaultSeqlen, config.max_positions);

  PerplexitySettings settings;
  settings.precision = request.precision.value_or(FastestPrecision());
  settings.activation_bytes = request.activation_bytes;

  const Json facts = CompressionFacts(weights);
  std::optional<ModelWeights> reference;
  if (!request.reference.empty()) reference.emplace(ModelWeights::Open(request.reference));
  std::vector<PreparedSet> sets;
  for (const DataSpec& spec : request.data) {
    sets.push_back(Prepare(spec, tokenizer, bos, seqlen, request));
    if (!request.force) CheckNotCalibrated(facts, sets.back());
    CheckEvaluation(config, sets.back().windows, settings, reference ? &reference->config() : nullptr);
  }
  const double texts_ready = MonotonicSeconds();
  const std::string fingerprint = weights.checkpoint().Fingerprint();
  Json time = {{"texts", texts_ready - began}, {"fingerprint", MonotonicSeconds() - texts_ready}};

  Json result;
  result["mica"] = {{"version", Version()}, {"commit", Commit()}};
  result["created"] = UtcTime();
  result["model"] = ModelJson(weights, request.model, fingerprint, facts);
  if (reference) {
    const std::string origin = TextAt(facts, "model/fingerprint").value_or(fingerprint);
    const std::string of_reference = reference->checkpoint().Fingerprint();
    if (weights.packed() && origin != of_reference)
      LogWarning("{}: is not the model that {} was compressed from", request.reference.string(),
                 request.model.string());
    result["reference"] = {{"path", request.reference.string()}, {"fingerprint", of_reference}};
  }
  result["settings"] = {{"convention", ConventionName(request.convention)},
                        {"seqlen", seqlen},
                        {"dtype", PrecisionName(settings.precision)},
                        {"max_windows", request.max_windows != 0 ? Json(request.max_windows) : Json(nullptr)},
                        {"special_tokens", request.special_tokens},
                        {"threads", Threads()},
                        {"seed", request.seed},
                        {"device", "cpu"}};
  result["host"] = {{"name", HostName()}, {"processor", ProcessorName()}};
  result["datasets"] = Json::object();
  Json last = Json::object();
  for (PreparedSet& set : sets) {
    const double start = MonotonicSeconds();
    progress.Begin(set.spec.name, set.windows.ids.size(), "tokens");
    const Perplexity measured = EvaluatePerplexity(
        weights, set.windows, settings,
        [&](uint64_t tokens, const std::string& detail) { progress.Advance(tokens, detail); },
        reference ? &*reference : nullptr);
    last[set.spec.name] = measured.perplexity;
    progress.Note("last", {{"ppl", last}});
    progress.End();
    const double seconds = MonotonicSeconds() - start;
    result["datasets"][set.spec.name] = SetJson(set, measured, seconds);
    time[set.spec.name] = seconds;
    set.windows.ids = {};
  }
  result["time"] = time;
  result["peak_memory_bytes"] = PeakResidentBytes();
  return result;
}

std::string SummaryTable(const Json& result) {
  const Json& model = result["model"];
  const Json& settings = result["settings"];
  std::string text =
      fmt::format("{}: {}, {} parameters, {} ({})\n", model["path"].get<std::string>(),
                  model["architecture"]["class"].get<std::string>(), Count(model["parameters"].get<double>()),
                  FormatBytes(model["file_bytes"].get<double>()), model["layout"].get<std::string>());
  text += fmt::format("perplexity by convention {}, windows of {} tokens, {}, {} threads\n\n",
                      settings["convention"].get<std::string>(), settings["seqlen"].get<size_t>(),
                      settings["dtype"].get<std::string>(), settings["threads"].get<int>());
  std::vector<std::vector<std::string>> rows = {
      {"set", "perplexity", "nats/token", "bits/byte", "windows", "tokens", "time", "tokens/s"}};
  for (const auto& [name, set] : result["datasets"].items()) {
    rows.push_back({name, fmt::format("{:.3f}", set["ppl"].get<double>()),
                    fmt::format("{:.4f}", set["nll"].get<double>()),
                    fmt::format("{:.4f}", set["bits_per_byte"].get<double>()),
                    fmt::format("{}", set["windows"].get<size_t>()),
                    fmt::format("{}", set["tokens"].get<size_t>()), FormatDuration(set["time"].get<double>()),
                    fmt::format("{:.0f}", set["tokens_per_second"].get<double>())});
  }
  if (result.contains("reference")) {
    rows[0].insert(rows[0].end(), {"KL, nats", "same top token"});
    size_t row = 1;
    for (const Json& set : result["datasets"]) {
      const Json& divergence = set["divergence"];
      rows[row].push_back(fmt::format("{:.5f}", divergence["kl"].get<double>()));
      rows[row++].push_back(fmt::format("{:.2f} %", 100 * divergence["same_top"].get<double>()));
    }
  }
  text += AlignedTable(rows);
  double seconds = 0;
  for (const Json& phase : result["time"]) seconds += phase.get<double>();
  text += fmt::format("\n{} in all, peak memory {}, model {}\n", FormatDuration(seconds),
                      FormatBytes(result["peak_memory_bytes"].get<double>()),
                      model["fingerprint"].get<std::string>().substr(0, 12));
  return text;
}

}  // namespace mica
