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
#include "model/vocabulary.h"
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

PreparedSet Prepare(const DataSpec& spec, const Tokenizer& tokenizer, size_t seqlen,
                    const EvaluationRequest& request) {
  ThrowIfInterrupted();
  PreparedSet set;
  set.spec = spec;
  const LoadedText loaded = LoadText(spec);
  set.sha256 = loaded.fingerprint;
  set.file_bytes = loaded.file_bytes;
  const std::vector<int32_t> ids =
      request.special_tokens ? tokenizer.EncodeWithSpecial(loaded.text) : tokenizer.Encode(loaded.text);
  set.windows = CutWindows(ids, tokenizer.text_bos(), seqlen, request.convention, request.max_windows,
                           spec.path.string());
  set.scored_bytes = ScoredBytes(tokenizer, set.windows);
  LogDebug("{}: {} tokens, {} windows of {}", spec.name, set.windows.text_tokens, set.windows.count(),
           seqlen);
  return set;
}

ArchitectureRecord ArchitectureOf(const ModelConfig& config) {
  ArchitectureRecord record;
  record.architecture = config.architecture;
  record.model_type = config.model_type;
  record.layers = config.layers;
  record.hidden = config.hidden;
  record.heads = config.heads;
  record.kv_heads = config.kv_heads;
  record.head_dim = config.head_dim;
  record.ffn = config.ffn;
  record.vocab = config.vocab;
  record.max_positions = config.max_positions;
  record.rope_theta = config.rope_theta;
  record.tied_head = config.tied_head;
  return record;
}

// What a packed model says of its compression; nothing for a plain model, or with a warning when it is
// missing.
std::optional<CompressionRecord> CompressionOf(const ModelWeights& weights) {
  if (!weights.packed()) return std::nullopt;
  const std::filesystem::path path = weights.checkpoint().directory() / kCompressionFile;
  if (std::filesystem::exists(path))
    return CompressionFromJson(ReadJson(path), path.string(), WrongTypes::kRefuse);
  LogWarning("{}: is missing, so the result will not say how the model was compressed", path.string());
  return std::nullopt;
}

void CheckNotCalibrated(const CompressionRecord& compression, const PreparedSet& set) {
  for (const CalibrationSource& source : compression.calibration.sources) {
    if (source.sha256 != set.sha256) continue;
    Fail(
        "{}: is a text this model was calibrated on ({}), so its perplexity would flatter the model; use "
        "another text, or --force",
        set.spec.path.string(), source.path.value_or("same SHA-256"));
  }
}

ModelRecord ModelOf(const ModelWeights& weights, const std::filesystem::path& path,
                    const std::string& fingerprint, const std::optional<CompressionRecord>& compression) {
  ModelRecord record;
  record.path = path.string();
  record.fingerprint = fingerprint;
  record.architecture = ArchitectureOf(weights.config());
  record.parameters = ParameterCount(weights.config());
  record.file_bytes = weights.checkpoint().file_bytes();
  record.layout = weights.checkpoint().layout();
  record.compression = compression;
  return record;
}

SetRecord SetOf(const PreparedSet& set, const Perplexity& measured, double seconds) {
  const size_t windows = set.windows.count();
  const uint64_t tokens = set.windows.ids.size();
  const uint64_t scored = windows * set.windows.scored_per_window();
  const double bits = measured.nll * static_cast<double>(scored) / std::numbers::ln2;
  SetRecord record;
  record.perplexity = measured.perplexity;
  record.seconds = seconds;
  record.nll = measured.nll;
  record.bits_per_byte = bits / std::max(1.0, set.scored_bytes);
  record.tokens = tokens;
  record.scored_tokens = scored;
  record.windows = windows;
  record.window_nll = measured.window_nll;
  for (const TokenClass& c : ClassesByOccurrence(set.windows, measured.token_nll))
    record.by_occurrence.push_back({c.from, c.to, c.tokens, c.nll, {}});
  record.text_tokens = set.windows.text_tokens;
  record.tokens_per_second = static_cast<double>(tokens) / std::max(1e-9, seconds);
  record.data.kind = DataKindName(set.spec.kind);
  record.data.path = set.spec.path.string();
  record.data.sha256 = set.sha256;
  record.data.bytes = set.file_bytes;
  if (!measured.window_kl.empty()) {
    DivergenceRecord divergence;
    divergence.kl = measured.kl;
    divergence.same_top = measured.same_top;
    if (windows > 1) divergence.standard_error = StandardError(measured.window_kl);
    record.divergence = divergence;
  }
  return record;
}

std::string Count(double value) {
  if (value >= 1e9) return fmt::format("{:.2f} G", value / 1e9);
  if (value >= 1e6) return fmt::format("{:.1f} M", value / 1e6);
  return fmt::format("{:.0f}", value);
}

}  // namespace

EvaluationRecord Evaluate(const EvaluationRequest& request, Progress& progress) {
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
  const Tokenizer tokenizer = OpenTokenizer(request.model, config);
  const size_t seqlen = request.seqlen != 0 ? request.seqlen : std::min(kDefaultSeqlen, config.max_positions);

  PerplexitySettings settings;
  settings.precision = request.precision.value_or(FastestPrecision());
  settings.activation_bytes = request.activation_bytes;

  const std::optional<CompressionRecord> compression = CompressionOf(weights);
  std::optional<ModelWeights> reference;
  if (!request.reference.empty()) reference.emplace(ModelWeights::Open(request.reference));
  std::vector<PreparedSet> sets;
  for (const DataSpec& spec : request.data) {
    sets.push_back(Prepare(spec, tokenizer, seqlen, request));
    if (compression && !request.force) CheckNotCalibrated(*compression, sets.back());
    CheckEvaluation(config, sets.back().windows, settings, reference ? &reference->config() : nullptr);
  }
  const double texts_ready = MonotonicSeconds();
  const std::string fingerprint = weights.Fingerprint();

  EvaluationRecord result;
  result.time.phases = {{"texts", texts_ready - began}, {"fingerprint", MonotonicSeconds() - texts_ready}};
  result.program = ThisProgram();
  result.created = UtcTime();
  result.model = ModelOf(weights, request.model, fingerprint, compression);
  if (reference) {
    const std::string origin =
        compression ? compression->model.fingerprint.value_or(fingerprint) : fingerprint;
    const std::string of_reference = reference->Fingerprint();
    if (weights.packed() && origin != of_reference)
      LogWarning("{}: is not the model that {} was compressed from", request.reference.string(),
                 request.model.string());
    result.reference = ReferenceModel{request.reference.string(), of_reference, {}};
  }
  result.settings.convention = ConventionName(request.convention);
  result.settings.seqlen = seqlen;
  result.settings.dtype = PrecisionName(settings.precision);
  if (request.max_windows != 0) result.settings.max_windows = request.max_windows;
  result.settings.special_tokens = request.special_tokens;
  result.settings.threads = static_cast<uint64_t>(Threads());
  result.settings.seed = request.seed;
  result.settings.device = "cpu";
  result.host = ThisHost();
  for (PreparedSet& set : sets) {
    const double start = MonotonicSeconds();
    progress.Begin(set.spec.name, set.windows.ids.size(), "tokens");
    const Perplexity measured = EvaluatePerplexity(
        weights, set.windows, settings,
        [&](uint64_t tokens, const std::string& detail) { progress.Advance(tokens, detail); },
        reference ? &*reference : nullptr);
    progress.Figure(set.spec.name, measured.perplexity);
    progress.End();
    const double seconds = MonotonicSeconds() - start;
    result.sets.emplace_back(set.spec.name, SetOf(set, measured, seconds));
    result.time.phases.emplace_back(set.spec.name, seconds);
    set.windows.ids = {};
  }
  result.peak_memory_bytes = PeakResidentBytes();
  return result;
}

std::string SummaryTable(const EvaluationRecord& result) {
  const ModelRecord& model = result.model;
  const EvaluationSettings& settings = result.settings;
  std::string text = fmt::format(
      "{}: {}, {} parameters, {} ({})\n", model.path.value(), model.architecture.architecture.value(),
      Count(static_cast<double>(model.parameters.value())),
      FormatBytes(static_cast<double>(model.file_bytes.value())), model.layout.value());
  text += fmt::format("perplexity by convention {}, windows of {} tokens, {}, {} threads\n\n",
                      settings.convention.value(), settings.seqlen.value(), settings.dtype.value(),
                      settings.threads.value());
  std::vector<std::vector<std::string>> rows = {
      {"set", "perplexity", "nats/token", "bits/byte", "windows", "tokens", "time", "tokens/s"}};
  for (const auto& [name, set] : result.sets) {
    rows.push_back({name, fmt::format("{:.3f}", set.perplexity.value()),
                    fmt::format("{:.4f}", set.nll.value()), fmt::format("{:.4f}", set.bits_per_byte.value()),
                    fmt::format("{}", set.windows.value()), fmt::format("{}", set.tokens.value()),
                    FormatDuration(set.seconds.value()),
                    fmt::format("{:.0f}", set.tokens_per_second.value())});
  }
  if (result.reference) {
    rows[0].insert(rows[0].end(), {"KL, nats", "same top token"});
    size_t row = 1;
    for (const auto& [name, set] : result.sets) {
      const DivergenceRecord& divergence = set.divergence.value();
      rows[row].push_back(fmt::format("{:.5f}", divergence.kl.value()));
      rows[row++].push_back(fmt::format("{:.2f} %", 100 * divergence.same_top.value()));
    }
  }
  text += AlignedTable(rows);
  double seconds = 0;
  for (const auto& [phase, of_phase] : result.time.phases) seconds += of_phase;
  text += fmt::format("\n{} in all, peak memory {}, model {}\n", FormatDuration(seconds),
                      FormatBytes(static_cast<double>(result.peak_memory_bytes.value())),
                      model.fingerprint.value().substr(0, 12));
  return text;
}

}  // namespace mica
