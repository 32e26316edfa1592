#include "eval/measure/evaluate.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <random>
#include <set>
#include <span>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/output.h"
#include "base/sha256.h"
#include "base/system.h"
#include "base/text.h"
#include "base/threads.h"
#include "base/units.h"
#include "eval/measure/follow_evaluation.h"
#include "eval/measure/standard_error.h"
#include "eval/measure/token_classes.h"
#include "io/text/tokenizer.h"
#include "model/config.h"
#include "model/fingerprint.h"
#include "model/gpu_record.h"
#include "model/vocabulary.h"
#include "model/weights.h"
#include "model/window.h"
#include "record/identity.h"

namespace mica {
namespace {

// A text on its way to be measured.
struct PreparedSet {
  DataSpec spec;
  Windows windows;
  double scored_bytes = 0;
  TextRecord text;
};

// Bytes of the text that the scored tokens stand for. token_bytes: [tokens] of the text; before: tokens of
// the windows in front of it.
double ScoredBytes(const std::vector<double>& token_bytes, size_t before, const Windows& windows) {
  double bytes = 0;
  for (size_t w = 0; w < windows.count(); ++w) {
    for (size_t t = windows.first_scored; t < windows.window; ++t)
      bytes += token_bytes[w * windows.window + t - before];
  }
  return bytes;
}

// Of the ids of a text, with BOS where it stands in front of it.
std::string TokensFingerprint(const Bos& bos, const std::vector<int32_t>& ids) {
  static_assert(std::endian::native == std::endian::little);
  Sha256 hash;
  if (bos.before_text()) hash.Update(std::as_bytes(std::span(&bos.id, 1)));
  hash.Update(std::as_bytes(std::span(ids)));
  return hash.Hex();
}

// A divergence compares predictions of the same tokens: a reference that comes with a tokenizer must make the
// same of the text.
void CheckSameTokens(const Tokenizer& of_reference, const std::string& text, const Bos& bos,
                     const TextRecord& found, const EvaluationRequest& request) {
  const std::vector<int32_t> ids =
      request.special_tokens ? of_reference.EncodeWithSpecial(text) : of_reference.Encode(text);
  if (TokensFingerprint(bos, ids) == found.tokens_sha256) return;
  Fail("{}: its tokenizer makes other tokens of {} than that of {}; expected models of the same tokens",
       request.reference.string(), *found.path, request.model.string());
}

// of_reference: a tokenizer that is not the same, or null.
PreparedSet Prepare(const DataSpec& spec, const Tokenizer& tokenizer, const Bos& bos,
                    const Tokenizer* of_reference, size_t seqlen, const EvaluationRequest& request) {
  ThrowIfInterrupted();
  PreparedSet set;
  set.spec = spec;
  const LoadedText loaded = LoadText(spec);
  set.text.kind = DataKindName(spec.kind);
  set.text.path = spec.path.string();
  set.text.sha256 = loaded.fingerprint;
  set.text.content_sha256 = loaded.content_fingerprint;
  set.text.bytes = loaded.file_bytes;
  const TextTokens tokens = tokenizer.EncodeWithBytes(loaded.text, request.special_tokens);
  set.text.tokens_sha256 = TokensFingerprint(bos, tokens.ids);
  if (of_reference != nullptr) CheckSameTokens(*of_reference, loaded.text, bos, set.text, request);
  set.windows =
      CutWindows(tokens.ids, bos, seqlen, request.convention, request.max_windows, spec.path.string());
  set.scored_bytes = ScoredBytes(tokens.bytes, bos.before_text(), set.windows);
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
  record.rope_theta = config.ropes.front().theta;
  record.tied_head = config.tied_head;
  return record;
}

// The record of the compression that weights in another program's format are what it ended in, beside the file or
// in its directory: those of other programs have none.
std::optional<CompressionRecord> CompressionOfOthers(const Checkpoint& checkpoint) {
  std::vector<std::filesystem::path> places = {RecordOf(checkpoint.directory())};
  if (checkpoint.gguf() != nullptr)
    places.insert(places.begin(), RecordOf(checkpoint.directory() / checkpoint.files().front().name));
  for (const std::filesystem::path& path : places) {
    if (!std::filesystem::exists(path)) continue;
    CompressionRecord found = CompressionFromJson(ReadJson(path), path.string(), WrongTypes::kSkip);
    if (found.file.bytes_after == checkpoint.file_bytes()) return found;
  }
  return std::nullopt;
}

// What a packed model says of its compression; nothing for a plain model, or with a warning when it is
// missing.
std::optional<CompressionRecord> CompressionOf(const ModelWeights& weights) {
  if (weights.checkpoint().gguf() != nullptr || weights.compressed_tensors())
    return CompressionOfOthers(weights.checkpoint());
  if (!weights.packed()) return std::nullopt;
  const std::filesystem::path path = RecordOf(weights.checkpoint().directory());
  if (std::filesystem::exists(path))
    return CompressionFromJson(ReadJson(path), path.string(), WrongTypes::kRefuse);
  LogWarning("{}: is missing, so the result will not say how the model was compressed", path.string());
  return std::nullopt;
}

void CheckNotCalibrated(const CompressionRecord& compression, const PreparedSet& set) {
  for (const CalibrationSource& source : compression.calibration.sources) {
    if (!SameText(source, set.text)) continue;
    Fail(
        "{}: is a text this model was calibrated on ({}), so its perplexity would flatter the model; use "
        "another text, or --force",
        set.spec.path.string(), source.path.value_or("same SHA-256"));
  }
}

// That of the reference, if it comes with one that is not the model's by its fingerprint.
std::optional<Tokenizer> OtherTokenizer(const Tokenizer& tokenizer, const std::filesystem::path& reference) {
  if (reference.empty() || !HasTokenizer(reference)) return std::nullopt;
  Tokenizer other = OpenTokenizer(reference);
  if (other.fingerprint() == tokenizer.fingerprint()) return std::nullopt;
  return other;
}

ModelRecord ModelOf(const ModelWeights& weights, const std::filesystem::path& path,
                    const Tokenizer& tokenizer, const std::optional<CompressionRecord>& compression) {
  ModelRecord record;
  record.path = path.string();
  record.fingerprint = ModelFingerprint(weights);
  record.tokenizer = tokenizer.fingerprint();
  record.architecture = ArchitectureOf(weights.config());
  record.parameters = ParameterCount(weights.config());
  record.file_bytes = weights.checkpoint().file_bytes();
  record.layout = weights.checkpoint().layout();
  record.compression = compression;
  return record;
}

// By the names that they have in results.
Ordered<double> PhasesOf(const PassSeconds& seconds, bool reference) {
  Ordered<double> phases = {{"weights", seconds.weights}, {"pass", seconds.pass}};
  if (reference)
    phases.insert(phases.end(), {{"reference", seconds.reference}, {"divergence", seconds.divergence}});
  return phases;
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
  if (set.scored_bytes > 0) record.bits_per_byte = bits / set.scored_bytes;
  record.tokens = tokens;
  record.scored_tokens = scored;
  record.windows = windows;
  record.window_nll = measured.window_nll;
  for (const TokenClass& c : ClassesByOccurrence(set.windows, measured.token_nll))
    record.by_occurrence.push_back({c.from, c.to, c.tokens, c.nll, {}});
  record.text_tokens = set.windows.text_tokens;
  record.tokens_per_second = static_cast<double>(tokens) / std::max(1e-9, measured.seconds.pass);
  record.phases = PhasesOf(measured.seconds, !measured.window_kl.empty());
  record.data = set.text;
  if (!measured.window_kl.empty()) {
    DivergenceRecord divergence;
    divergence.kl = measured.kl;
    divergence.same_top = measured.same_top;
    if (windows > 1) divergence.standard_error = StandardError(measured.window_kl);
    record.divergence = divergence;
  }
  return record;
}

// What decides the values of a stream that is kept: the model, the windows, the arithmetic.
std::string StreamName(const std::string& fingerprint, const Windows& windows, const PerplexitySettings& settings) {
  Sha256 hash;
  hash.Update(std::as_bytes(std::span(windows.ids)));
  return fmt::format("{} {} {} {} {}", fingerprint, hash.Hex(), windows.window,
                     PrecisionName(settings.arithmetic.precision), settings.arithmetic.device.Describe());
}

std::string Count(double value) {
  if (value >= 1e9) return fmt::format("{:.2f} G", value / 1e9);
  if (value >= 1e6) return fmt::format("{:.1f} M", value / 1e6);
  return fmt::format("{:.0f}", value);
}

}  // namespace

struct Evaluation::State {
  explicit State(const EvaluationRequest& asked);

  const EvaluationRequest request;
  const double began = MonotonicSeconds();
  const ModelWeights weights;
  const Tokenizer tokenizer;
  const Bos bos;
  const size_t seqlen;
  const std::optional<CompressionRecord> compression;
  std::optional<ModelWeights> reference;
  PerplexitySettings settings;
  std::vector<PreparedSet> sets;
  double texts_ready = 0;
  TokenLosses losses;
  std::optional<EvaluationRecord> description;
};

Evaluation::State::State(const EvaluationRequest& asked)
    : request(asked),
      weights(ModelWeights::Open(request.model)),
      tokenizer(OpenTokenizer(request.model, weights.config(), request.tokenizer)),
      bos(BosOf(request.bos, tokenizer, weights.config().model_type)),
      seqlen(WindowTokens(request.seqlen, weights.config())),
      compression(CompressionOf(weights)) {
  settings.arithmetic = {request.precision.value_or(FastestPrecision(request.device)), request.device, *request.group};
  settings.as_running = request.as_running;
  settings.activation_bytes = request.activation_bytes;
  if (!request.reference.empty()) reference.emplace(ModelWeights::Open(request.reference));
  const std::optional<Tokenizer> of_reference = OtherTokenizer(tokenizer, request.reference);
  for (const DataSpec& spec : request.data) {
    sets.push_back(Prepare(spec, tokenizer, bos, of_reference ? &*of_reference : nullptr, seqlen, request));
    if (compression && !request.force) CheckNotCalibrated(*compression, sets.back());
    CheckEvaluation(weights.config(), sets.back().windows, settings,
                    reference ? &reference->config() : nullptr);
  }
  texts_ready = MonotonicSeconds();
}

Evaluation::Evaluation(const EvaluationRequest& request) {
  if (request.data.empty()) Fail("no text to evaluate on; give at least one --data KIND=FILE");
  std::set<std::string> names;
  for (const DataSpec& spec : request.data) {
    if (!names.insert(spec.name).second) {
      Fail("--data '{}' is given twice; tell the sets apart with NAME:KIND=FILE", spec.name);
    }
  }
  ResetPeakResidentBytes();
  state_ = std::make_unique<State>(request);
}

Evaluation::~Evaluation() = default;
Evaluation::Evaluation(Evaluation&&) noexcept = default;

const EvaluationRecord& Evaluation::Describe() {
  State& state = *state_;
  if (state.description) return *state.description;
  const EvaluationRequest& request = state.request;
  const double began = MonotonicSeconds();
  EvaluationRecord result;
  result.program = ThisProgram();
  result.created = UtcTime();
  result.model = ModelOf(state.weights, request.model, state.tokenizer, state.compression);
  if (state.reference) {
    const std::string of_reference = ModelFingerprint(*state.reference);
    if (state.compression && state.compression->model.fingerprint.value_or(of_reference) != of_reference) {
      LogWarning("{}: is not the model that {} was compressed from", request.reference.string(),
                 request.model.string());
    }
    result.reference = ReferenceModel{request.reference.string(), of_reference, {}};
  }
  result.time.phases = {{"texts", state.texts_ready - state.began},
                        {"fingerprint", MonotonicSeconds() - began}};
  result.settings.convention = ConventionName(request.convention);
  result.settings.bos = BosPlaceName(PlaceIn(request.convention, state.bos.place));
  result.settings.seqlen = state.seqlen;
  result.settings.dtype = PrecisionName(state.settings.arithmetic.precision);
  if (request.as_running) result.settings.as_running = true;
  if (request.max_windows != 0) result.settings.max_windows = request.max_windows;
  result.settings.special_tokens = request.special_tokens;
  result.settings.threads = static_cast<uint64_t>(Threads());
  result.settings.seed = request.seed;
  result.settings.device = request.device.Describe();
  result.host = ThisHost();
  for (const PreparedSet& set : state.sets) {
    SetRecord record;
    record.data = set.text;
    result.sets.emplace_back(set.spec.name, record);
  }
  return state.description.emplace(std::move(result));
}

EvaluationRecord Evaluation::Measure(Progress& progress, const TokenLosses* original) {
  EvaluationRecord result = Describe();
  State& state = *state_;
  const EvaluationRequest& request = state.request;
  Ordered<double> sums;  // of the sets' phases
  for (size_t i = 0; i < state.sets.size(); ++i) {
    PreparedSet& set = state.sets[i];
    const double start = MonotonicSeconds();
    // A set may have the name of another phase.
    progress.Begin("eval " + set.spec.name, set.windows.ids.size(), "tokens");
    ShareEvaluation(request, set.windows, state.settings);
    state.settings.model_stream = state.settings.reference_stream = nullptr;
    if (request.passed && request.group->alone()) {
      const auto stream = [&](const std::string& fingerprint, const ModelConfig& config) {
        return request.passed->Of(StreamName(fingerprint, set.windows, state.settings), set.windows.ids.size(),
                                  config.hidden);
      };
      if (state.reference)
        state.settings.reference_stream = stream(*result.reference->fingerprint, state.reference->config());
      else if (!request.as_running)
        state.settings.model_stream = stream(*result.model.fingerprint, state.weights.config());
    }
    Perplexity measured = EvaluatePerplexity(
        state.weights, set.windows, state.settings,
        [&](uint64_t tokens, const std::string& detail) { progress.Advance(tokens, detail); },
        state.reference ? &*state.reference : nullptr);
    progress.Figure(set.spec.name, std::min(measured.perplexity, std::numeric_limits<double>::max()));
    progress.End();
    const double seconds = MonotonicSeconds() - start;
    result.sets[i].second = SetOf(set, measured, seconds);
    const std::vector<float>* before = original == nullptr ? nullptr : Find(*original, set.spec.name);
    if (before != nullptr && before->size() == measured.token_nll.size())
      result.sets[i].second.lost_tokens =
          LostTokenRecords(set.windows, state.tokenizer, *before, measured.token_nll);
    state.losses.emplace_back(set.spec.name, std::move(measured.token_nll));
    AddSeconds(sums, result.sets[i].second.phases);
    set.windows.ids = {};
  }
  result.time.phases.insert(result.time.phases.end(), sums.begin(), sums.end());
  result.time.total = MonotonicSeconds() - state.began;
  result.peak_memory_bytes = PeakResidentBytes();
  result.gpu = GpuOf(state.request.device);
  return result;
}

const TokenLosses& Evaluation::losses() const { return state_->losses; }

std::vector<SamplePrompt> Evaluation::Prompts(const SampleSettings& settings) const {
  const State& state = *state_;
  const size_t positions = state.weights.config().max_positions;
  std::vector<SamplePrompt> prompts = GivenPrompts(settings, state.tokenizer, positions);
  std::mt19937_64 random(state.request.seed);
  for (size_t i = 0; i < settings.count; ++i) {
    const PreparedSet& set = state.sets[i % state.sets.size()];
    prompts.push_back(CutPrompt(set.spec.name, set.windows, state.tokenizer, positions, random));
  }
  return prompts;
}

EvaluationRecord Evaluate(const EvaluationRequest& request, Progress& progress) {
  return Evaluation(request).Measure(progress);
}

std::string SummaryTable(const EvaluationRecord& result) {
  const ModelRecord& model = result.model;
  const EvaluationSettings& settings = result.settings;
  std::string text =
      Printable(fmt::format("{}: {}, {} parameters, {} ({})", model.path.value(),
                            model.architecture.architecture.value(),
                            Count(static_cast<double>(model.parameters.value())),
                            FormatBytes(static_cast<double>(model.file_bytes.value())), model.layout.value()),
                std::string::npos) +
      "\n";
  text += fmt::format("perplexity by convention {}, windows of {} tokens, {}, {}\n\n",
                      settings.convention.value(), settings.seqlen.value(), settings.dtype.value(),
                      result.gpu ? *result.gpu->name : fmt::format("{} threads", settings.threads.value()));
  std::vector<std::vector<std::string>> rows = {
      {"set", "perplexity", "nats/token", "bits/byte", "windows", "tokens", "time", "tokens/s"}};
  for (const auto& [name, set] : result.sets) {
    rows.push_back({name, FormatPerplexity(set.nll.value(), 3), fmt::format("{:.4f}", set.nll.value()),
                    set.bits_per_byte ? fmt::format("{:.4f}", *set.bits_per_byte) : "-",
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
  text += fmt::format("\n{} in all, peak memory {}, model {}\n", FormatDuration(result.time.total.value()),
                      FormatBytes(static_cast<double>(result.peak_memory_bytes.value())),
                      model.fingerprint.value().substr(0, 12));
  return text;
}

}  // namespace mica
