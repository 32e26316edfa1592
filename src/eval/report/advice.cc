#include "eval/report/advice.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <numbers>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/shell.h"
#include "io/text/datasets.h"
#include "model/window.h"
#include "record/options.h"

namespace mica {
namespace {

constexpr double kGoodRetention = 95;  // percent: five stars
constexpr double kMismatchFactor = 2;  // excess of the worst set over the best one's
constexpr double kMismatchNats =
    0.02;  // and at least this much more, so that noise is not taken for mismatch
constexpr double kFewTokensPerColumn = 4;  // with fewer, nothing else can be judged
constexpr double kTokensPerColumn =
    16;                          // calibration tokens per input channel: moments known to about 1 / sqrt(16)
constexpr double kMostBits = 8;  // budgets that are suggested, bits
constexpr int kSweepPoints = 5;  // of a sweep that is suggested
constexpr double kLeastFixedBudget = 2, kLeastEntropyBudget = 1;

double GoodExcess() { return std::log(2 - kGoodRetention / 100); }

// Standard normal quantile of p in (0, 1), by bisection on the distribution function.
double NormalQuantile(double p) {
  double low = -10, high = 10;
  for (int step = 0; step < 80; ++step) {
    const double middle = (low + high) / 2;
    (0.5 * std::erfc(-middle / std::numbers::sqrt2) < p ? low : high) = middle;
  }
  return (low + high) / 2;
}

const std::optional<CompressionRecord>& RecordOf(const Comparison& comparison) {
  return comparison.compressed.model.compression;
}

SettingsRecord SettingsOf(const Comparison& comparison) {
  return RecordOf(comparison) ? RecordOf(comparison)->settings : SettingsRecord{};
}

std::vector<CalibrationSource> CalibrationSources(const Comparison& comparison) {
  if (!RecordOf(comparison)) return {};
  std::vector<CalibrationSource> sources = RecordOf(comparison)->settings.Sources();
  return sources.empty() ? RecordOf(comparison)->calibration.sources : sources;
}

std::string OriginalModelPath(const Comparison& comparison) {
  if (RecordOf(comparison) && RecordOf(comparison)->model.path) return *RecordOf(comparison)->model.path;
  return comparison.baseline.model.path.value_or("MODEL");
}

// The option that a budget was given with; none when the file names one that there is not.
const Option* BudgetOption(const BudgetRecord& budget) {
  for (const Option& option : CompressionOptionTable()) {
    if (std::string(option.one_of) == "budget" && budget.kind == option.name) return &option;
  }
  return nullptr;
}

// A part of a file's name that needs no quotes and names no directory, from any text.
std::string FileNamePart(const std::string& text) {
  constexpr size_t kMostBytes = 64;
  std::string part;
  for (const char c : text.substr(0, kMostBytes))
    part += std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '.' ? c : '_';
  return part;
}

// Whether the command line would take the value, which may come from any file.
bool IsPossible(const Option& option, const Json& value) {
  try {
    CheckedValue(option, value);
    return true;
  } catch (const Error&) {
    return false;
  }
}

void AddOption(const Option& option, const Json& value, ShellCommand& command) {
  if (value.is_null() || !IsPossible(option, value)) return;
  if (option.kind == OptionKind::kSwitch) {
    if (value == true) command.Switch(option.name);
  } else {
    const bool number = value.is_number_float();
    command.Option(option.name, number ? fmt::format("{:.10g}", value.get<double>()) : ValueText(value));
  }
}

void AddSources(const std::vector<CalibrationSource>& sources, ShellCommand& command) {
  for (const CalibrationSource& source : sources) {
    const bool built_in = source.kind == std::optional<std::string>(kBuiltInText);
    std::string text = built_in ? kBuiltInText : source.kind.value_or("text");
    if (!built_in) text.append("=").append(source.path.value_or("FILE"));
    command.Option("calib",
                   sources.size() > 1 ? fmt::format("{}:{:g}", text, source.weight.value_or(1)) : text);
  }
}

// `mica compress` as the model was compressed, but for `changes` (an object of keys) and, unless they are
// empty, the `sources`: from its directory where that is known, else with every setting that is not the usual
// one.
ShellCommand CompressCommand(const Comparison& comparison, const Json& changes,
                             const std::vector<CalibrationSource>& sources, const std::string& suffix) {
  const std::optional<std::string>& packed = comparison.compressed.model.path;
  std::string out = packed.value_or("OUT");
  while (out.size() > 1 && out.back() == '/') out.pop_back();
  ShellCommand command;
  command.words = {"mica", "compress"};
  if (packed) {
    command.Option("like", *packed);
    command.Operand(out + "-" + FileNamePart(suffix));
    AddSources(sources, command);
    for (const Option& option : CompressionOptionTable()) {
      if (const Json* value = ValueIn(changes, option)) AddOption(option, *value, command);
    }
    return command;
  }
  command.Operand(OriginalModelPath(comparison));
  command.Operand(out);
  const std::vector<CalibrationSource> calibration =
      sources.empty() ? CalibrationSources(comparison) : sources;
  AddSources(calibration, command);
  if (calibration.empty()) command.Option("calib", "KIND=FILE");
  // What is recorded with the calibration instead of with the settings.
  Json settings = ToJson(RecordOf(comparison) ? RecordOf(comparison)->calibration : CalibrationRecord{});
  const SettingsRecord recorded = SettingsOf(comparison);
  for (const auto& [key, value] : recorded.values.items()) settings[key] = value;
  Json wanted = EssentialSettings(settings);
  for (const auto& [key, value] : changes.items()) wanted[key] = value;
  for (const Option& option : CompressionOptionTable()) {
    const Json* value = ValueIn(wanted, option);
    if (value == nullptr || option.kind == OptionKind::kSources || IdleIn(option, wanted) != nullptr)
      continue;
    AddOption(option, *value, command);
  }
  return command;
}

// A set as --data names it: NAME:KIND=FILE, without the name where it is that of the kind.
std::string DataArgument(const std::string& name, const TextRecord& text) {
  const std::string kind = text.kind.value_or(name);
  constexpr DataKind kKinds[] = {DataKind::kWikitext2, DataKind::kPtb, DataKind::kC4, DataKind::kText};
  const bool known = std::any_of(std::begin(kKinds), std::end(kKinds),
                                 [&](DataKind one) { return kind == DataKindName(one); });
  return (kind == name && known ? "" : name + ":") + (known ? kind : "KIND") + "=" +
         text.path.value_or("FILE");
}

ShellCommand EvalCommand(const Comparison& comparison, const SetComparison& set) {
  const bool of_baseline = !set.baseline.log_perplexity;
  const EvaluationRecord& missing = of_baseline ? comparison.baseline : comparison.compressed;
  const EvaluationRecord& other = of_baseline ? comparison.compressed : comparison.baseline;
  const SetRecord* measured = Find(other.sets, set.name);
  ShellCommand command;
  command.words = {"mica", "eval"};
  command.Operand(of_baseline ? OriginalModelPath(comparison) : missing.model.path.value_or("OUT"));
  command.Option("data", DataArgument(set.name, measured != nullptr ? measured->data : TextRecord{}));
  if (!of_baseline && missing.reference && missing.reference->path)
    command.Option("reference", *missing.reference->path);
  Json settings = ToJson(other.settings);
  // The window that is usual with this model.
  if (const std::optional<uint64_t> positions = other.model.architecture.max_positions;
      positions && other.settings.seqlen == std::min<uint64_t>(*positions, kUsualWindow))
    settings.erase("seqlen");
  for (const Option& option : EvaluationOptionTable()) {
    if (option.place == OptionPlace::kKey || option.kind == OptionKind::kSources) continue;
    const Json* value = ValueIn(settings, option);
    if (value != nullptr && *value != option.value) AddOption(option, *value, command);
  }
  command.words.insert(
      command.words.end(),
      {"-o", fmt::format("{}-{}.json", of_baseline ? "baseline" : "compressed", FileNamePart(set.name))});
  return command;
}

// The search for the smallest file that keeps what five stars need on the texts that were measured; nothing where those,
// or how they were measured, are not what the command line would have.
std::optional<ShellCommand> SearchCommand(const Comparison& comparison) {
  const EvaluationRecord& result = comparison.compressed;
  if (!result.model.path || result.settings.convention != std::optional<std::string>("gptq")) return std::nullopt;
  const uint64_t usual = std::min<uint64_t>(result.model.architecture.max_positions.value_or(kUsualWindow), kUsualWindow);
  if (result.settings.seqlen != usual) return std::nullopt;
  ShellCommand command = CompressCommand(comparison, Json::object(), {}, fmt::format("{:g}percent", kGoodRetention));
  command.Option("min-retention", fmt::format("{:g}", kGoodRetention));
  for (const SetComparison& set : comparison.sets) {
    const SetRecord* const measured = Find(result.sets, set.name);
    if (measured == nullptr || !measured->data.path || !measured->data.kind) return std::nullopt;
    command.Option("data", DataArgument(set.name, measured->data));
  }
  if (result.settings.max_windows) command.Option("max-windows", fmt::format("{}", *result.settings.max_windows));
  return command;
}

// The run with its budget moved by `bits` per compressed weight; nothing when the budget is not
// recorded or stays where it is.
std::optional<Advice> MoveBudget(const Comparison& comparison, AdviceKind kind, double bits, double found) {
  const SettingsRecord settings = SettingsOf(comparison);
  const BudgetRecord budget = settings.Budget();
  const std::optional<double>& value = budget.value;
  const Option* option = BudgetOption(budget);
  if (!value || option == nullptr) return std::nullopt;
  const bool bytes = budget.kind == "size";
  double next = 0;
  if (bytes) {
    const auto weights = comparison.compression->compressed_weights;
    if (!weights) return std::nullopt;
    next = std::round(*value + bits * *weights / 8);
  } else {
    const double least = settings.Text("coding") == "entropy" ? kLeastEntropyBudget : kLeastFixedBudget;
    next = std::clamp(*value + bits, std::min(*value, least), std::max(*value, kMostBits));
  }
  if (next == *value) return std::nullopt;
  Json changes = Json::object();
  SetValue(changes, *option, next);
  Advice advice;
  advice.kind = kind;
  advice.found = found;
  advice.suggested = next;
  advice.sweep["budget"] = {{"kind", *budget.kind},
                            {"value", {{"from", std::min(*value, next)}, {"to", std::max(*value, next)}, {"points", kSweepPoints}}}};
  if (std::optional<ShellCommand> search = SearchCommand(comparison)) {
    advice.command = std::move(*search);
    return advice;
  }
  advice.guess = true;
  advice.command = CompressCommand(
      comparison, changes, {}, bytes ? fmt::format("{:.0f}MB", next / 1e6) : fmt::format("{:g}bits", next));
  return advice;
}

// What to do about the worst set's excess: fewer forced zeros, a freer pattern, or more bits.
std::optional<Advice> Relieve(const Comparison& comparison, double worst_excess) {
  const SettingsRecord settings = SettingsOf(comparison);
  const CompressionFigures& figures = *comparison.compression;
  const double sparsity = settings.Number("sparsity").value_or(0);
  const std::string pattern = settings.Text("pattern").value_or("none");
  const double bits = figures.mean_code_bits.value_or(4);
  const double factor = worst_excess / GoodExcess();  // by which the excess must fall
  if (sparsity > 0 && GaussianPruningError(sparsity) > GaussianGridError(bits)) {
    Advice advice;
    if (pattern.find(':') != std::string::npos) {
      const Json changes = {{"sparsity", sparsity}, {"pattern", "unstructured"}};
      advice.kind = AdviceKind::kPattern;
      advice.found = advice.suggested = sparsity;
      advice.command = CompressCommand(comparison, changes, {}, "unstructured");
      return advice;
    }
    const double allowed = GaussianPruningError(sparsity) / factor;
    double next = 0;
    while (next + 0.05 < sparsity && GaussianPruningError(next + 0.05) <= allowed) next += 0.05;
    if (next < 0.1) next = 0;  // a mask costs more than so few zeros save
    next = std::round(next * 100) / 100;
    advice.kind = AdviceKind::kSparsity;
    advice.found = sparsity;
    advice.suggested = next;
    advice.sweep["sparsity"] = {{"from", next}, {"to", sparsity}, {"points", kSweepPoints}};
    advice.command =
        CompressCommand(comparison, Json::object({{"sparsity", next}}), {}, fmt::format("{:g}sparse", next));
    return advice;
  }
  const double more =
      std::min(2.0, std::ceil(2 * std::log2(factor)) / 4);  // quarter bits, half a bit per factor 2
  return MoveBudget(comparison, AdviceKind::kBudget, std::max(0.25, more), bits);
}

std::optional<Advice> CheckMismatch(const Comparison& comparison, const SetComparison& worst,
                                    double best_excess) {
  if (*worst.excess_nats <= kMismatchFactor * std::max(0.0, best_excess) ||
      *worst.excess_nats - best_excess < kMismatchNats)
    return std::nullopt;
  const SetRecord* measured = Find(comparison.compressed.sets, worst.name);
  const std::string kind = measured != nullptr ? measured->data.kind.value_or(worst.name) : worst.name;
  std::vector<CalibrationSource> sources = CalibrationSources(comparison);
  if (sources.empty()) return std::nullopt;
  double total = 0;
  for (const CalibrationSource& source : sources) {
    if (source.kind == kind) return std::nullopt;
    total += source.weight.value_or(1);
  }
  for (CalibrationSource& source : sources)
    source.weight = std::round(500 * source.weight.value_or(1) / std::max(total, 1e-9)) / 1000;
  CalibrationSource more;
  more.kind = kind;
  more.path = "FILE";
  more.weight = 0.5;
  sources.push_back(more);
  Advice advice;
  advice.kind = AdviceKind::kCalibration;
  advice.set = worst.name;
  advice.found = *worst.excess_nats;
  advice.suggested = 0.5;
  advice.command = CompressCommand(comparison, Json::object(), sources, kind + "-calib");
  return advice;
}

std::optional<Advice> CheckSamples(const Comparison& comparison) {
  if (!RecordOf(comparison)) return std::nullopt;
  const CalibrationRecord& calibration = RecordOf(comparison)->calibration;
  if (calibration.tokens.value_or(0) == 0 || !calibration.samples) return std::nullopt;
  const auto tokens = static_cast<double>(*calibration.tokens);
  const auto samples = static_cast<double>(*calibration.samples);
  uint64_t most = 0;
  for (const LayerRecord& layer : RecordOf(comparison)->layers) {
    for (const auto& [name, matrix] : layer.linears) most = std::max(most, matrix.cols.value_or(0));
  }
  const auto cols = static_cast<double>(most);
  if (most == 0 || tokens >= kTokensPerColumn * cols) return std::nullopt;
  Advice advice;
  advice.kind = AdviceKind::kSamples;
  advice.found = tokens / cols;
  advice.suggested = std::ceil(samples * kTokensPerColumn * cols / tokens);
  advice.sweep["samples"] = {static_cast<uint64_t>(samples), static_cast<uint64_t>(advice.suggested)};
  advice.command =
      CompressCommand(comparison, Json::object({{"samples", static_cast<uint64_t>(advice.suggested)}}), {},
                      fmt::format("{:.0f}samples", advice.suggested));
  return advice;
}

}  // namespace

const char* AdviceName(AdviceKind kind) {
  switch (kind) {
    case AdviceKind::kMeasure:
      return "measure";
    case AdviceKind::kRoom:
      return "room";
    case AdviceKind::kSparsity:
      return "sparsity";
    case AdviceKind::kPattern:
      return "pattern";
    case AdviceKind::kBudget:
      return "budget";
    case AdviceKind::kCalibration:
      return "calibration";
    case AdviceKind::kSamples:
      return "samples";
  }
  return "";
}

double GaussianPruningError(double sparsity) {
  if (sparsity <= 0) return 0;
  if (sparsity >= 1) return 1;
  const double z = NormalQuantile((1 + sparsity) / 2);  // the values in (-z, z) are the pruned ones
  return sparsity - 2 * z * std::exp(-z * z / 2) / std::sqrt(2 * std::numbers::pi);
}

double GaussianGridError(double bits) { return 0.0115 * std::pow(3.25, 4 - bits); }

std::vector<Advice> Advise(const Comparison& comparison) {
  std::vector<Advice> advice;
  const auto add = [&](std::optional<Advice> one) {
    if (one) advice.push_back(std::move(*one));
  };
  const SetComparison* worst = nullptr;
  const SetComparison* best = nullptr;
  for (const SetComparison& set : comparison.sets) {
    if (!set.excess_nats) continue;
    if (worst == nullptr || *set.excess_nats > *worst->excess_nats) worst = &set;
    if (best == nullptr || *set.excess_nats < *best->excess_nats) best = &set;
  }
  if (worst != nullptr && comparison.compression) {
    if (worst->stars == 5) {
      const double excess = std::max(*worst->excess_nats, GoodExcess() / 16);
      add(MoveBudget(comparison, AdviceKind::kRoom,
                     -std::min(1.0, std::floor(2 * std::log2(GoodExcess() / excess)) / 4),
                     *worst->retention));
    } else {
      const std::optional<Advice> mismatch = CheckMismatch(comparison, *worst, *best->excess_nats);
      const std::optional<Advice> relief = Relieve(comparison, *worst->excess_nats);
      const std::optional<Advice> samples = CheckSamples(comparison);
      const bool few = samples && samples->found < kFewTokensPerColumn;
      if (few) add(samples);
      // Where the other sets are well, the text calibrated on is the first suspect.
      if (best->stars >= 4) add(mismatch);
      add(relief);
      if (best->stars < 4) add(mismatch);
      if (!few) add(samples);
    }
  }
  for (const SetComparison& set : comparison.sets) {
    if (set.excess_nats) continue;
    Advice one;
    one.kind = AdviceKind::kMeasure;
    one.set = set.name;
    one.command = EvalCommand(comparison, set);
    advice.push_back(one);
  }
  return advice;
}

}  // namespace mica
