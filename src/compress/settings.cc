#include "compress/settings.h"

#include <functional>
#include <optional>
#include <utility>

#include "base/context.h"
#include "base/error.h"
#include "record/options.h"

namespace mica {
namespace {

// Values as options have them.

template <typename T>
Json ToJson(const T& value) {
  return value;
}
Json ToJson(const std::optional<size_t>& value) { return value ? Json(*value) : Json(nullptr); }
constexpr std::pair<Coding, const char*> kCodings[] = {{Coding::kFixed, "fixed"},
                                                       {Coding::kEntropy, "entropy"},
                                                       {Coding::kGguf, "gguf"},
                                                       {Coding::kCompressedTensors, "compressed-tensors"}};

Json ToJson(Coding coding) {
  for (const auto& [known, name] : kCodings) {
    if (known == coding) return name;
  }
  MICA_CHECK(false);
}
Json ToJson(const GgufSettings& settings) { return GgufTypesText(settings.types); }
Json ToJson(GroupingMethod method) { return GroupingMethodName(method); }
Json ToJson(Estimator estimator) { return EstimatorName(estimator); }
Json ToJson(Precision precision) { return PrecisionName(precision); }
Json ToJson(std::optional<BosPlace> place) { return place ? Json(BosPlaceName(*place)) : Json(nullptr); }

template <typename T>
void FromJson(const Json& json, T& value) {
  value = json.get<T>();
}
void FromJson(const Json& json, std::optional<size_t>& value) { value = json.get<size_t>(); }
void FromJson(const Json& json, Coding& coding) {
  for (const auto& [known, name] : kCodings) {
    if (json == name) coding = known;
  }
}
void FromJson(const Json& json, GgufSettings& settings) {
  settings.types = ParseGgufTypes(json.get<std::string>());
}
void FromJson(const Json& json, GroupingMethod& method) {
  method = ParseGroupingMethod(json.get<std::string>());
}
void FromJson(const Json& json, Estimator& estimator) { estimator = ParseEstimator(json.get<std::string>()); }
void FromJson(const Json& json, std::optional<BosPlace>& place) {
  place = ParseBosPlace(json.get<std::string>());
}
void FromJson(const Json& json, Precision& precision) {
  precision = json == "bf16" ? Precision::kBf16 : Precision::kFp32;
}

// An option of the table and what it sets.
struct Binding {
  const char* option;
  std::function<Json(const CompressionSettings& settings)> read;  // null: another of its kind is set
  std::function<void(const Json& value, CompressionSettings& settings)> write;
};

// An option that sets one member.
template <typename Member>
Binding Bind(const char* option, Member member) {
  return {option, [=](const CompressionSettings& settings) { return ToJson(member(settings)); },
          [=](const Json& value, CompressionSettings& settings) { FromJson(value, member(settings)); }};
}

Binding BindBudget(const char* option, BudgetTarget target) {
  return {option,
          [=](const CompressionSettings& settings) {
            return settings.budget.target == target ? Json(settings.budget.value) : Json(nullptr);
          },
          [=](const Json& value, CompressionSettings& settings) {
            settings.budget = {target, value.get<double>()};
          }};
}

// Comes after the rate, which it must agree with.
void SetPattern(const Json& value, CompressionSettings& settings) {
  const std::string pattern = value.get<std::string>();
  const double rate = settings.sparsity.rate;
  settings.sparsity = {rate, 0, 0};
  if (pattern == "none" && rate != 0) Fail("--sparsity is {}, but --pattern is none", rate);
  SparsityPattern cells;
  if (!ParseCells(pattern, cells)) return;
  if (rate != 0 && rate != cells.rate)
    Fail("--sparsity is {}, but the pattern {} prunes exactly {}", rate, pattern, cells.rate);
  settings.sparsity = cells;
}

Json SourcesToJson(const CompressionSettings& settings) {
  Json sources = Json::array();
  for (const DataSpec& source : settings.calibration.sources) {
    sources.push_back(
        {{"kind", DataKindName(source.kind)}, {"path", source.path.string()}, {"weight", source.weight}});
  }
  return sources;
}

void SetSources(const Json& value, CompressionSettings& settings) {
  settings.calibration.sources.clear();
  for (const Json& source : value) {
    const std::string kind = source.value("kind", "text");
    DataSpec spec = kind == kBuiltInText ? BuiltInText() : MakeDataSpec(kind, source.at("path"));
    spec.weight = source.value("weight", 1.0);
    settings.calibration.sources.push_back(spec);
  }
}

const std::vector<Binding>& Bindings() {
  static const std::vector<Binding> bindings = {
      Bind(
          "coding", [](auto& s) -> auto& { return s.coding; }),
      BindBudget("bits", BudgetTarget::kMeanBits),
      BindBudget("bpw", BudgetTarget::kBitsPerWeight),
      BindBudget("size", BudgetTarget::kFileBytes),
      Bind(
          "sparsity", [](auto& s) -> auto& { return s.sparsity.rate; }),
      {"pattern", [](const auto& s) { return ToJson(PatternName(s.sparsity)); }, SetPattern},
      Bind(
          "grouping", [](auto& s) -> auto& { return s.information.grouping; }),
      Bind(
          "groups", [](auto& s) -> auto& { return s.information.groups; }),
      Bind(
          "estimator", [](auto& s) -> auto& { return s.information.estimator; }),
      Bind(
          "bit-options", [](auto& s) -> auto& { return s.fixed.bit_options; }),
      Bind(
          "group-size", [](auto& s) -> auto& { return s.fixed.group_size; }),
      Bind(
          "gguf-types", [](auto& s) -> auto& { return s.gguf; }),
      Bind(
          "compressed-tensors-bits", [](auto& s) -> auto& { return s.compressed_tensors.bits; }),
      Bind(
          "tensor-parallel", [](auto& s) -> auto& { return s.compressed_tensors.tensor_parallel; }),
      Bind(
          "damping", [](auto& s) -> auto& { return s.damping; }),
      Bind(
          "energy-weight", [](auto& s) -> auto& { return s.fixed.sensitivity.energy_weight; }),
      Bind(
          "information-weight", [](auto& s) -> auto& { return s.fixed.sensitivity.information_weight; }),
      Bind(
          "saliency-exponent", [](auto& s) -> auto& { return s.fixed.saliency_exponent; }),
      Bind(
          "trellis", [](auto& s) -> auto& { return s.entropy.trellis; }),
      Bind(
          "trellis-window", [](auto& s) -> auto& { return s.entropy.trellis_window; }),
      Bind(
          "trellis-ahead", [](auto& s) -> auto& { return s.entropy.trellis_ahead; }),
      Bind(
          "lambda", [](auto& s) -> auto& { return s.entropy.lambda; }),
      Bind(
          "row-feedback", [](auto& s) -> auto& { return s.entropy.row_feedback; }),
      Bind(
          "token-weights", [](auto& s) -> auto& { return s.fisher.token_weights; }),
      Bind(
          "sampled-labels", [](auto& s) -> auto& { return s.fisher.sampled_labels; }),
      Bind(
          "refine-passes", [](auto& s) -> auto& { return s.fixed.refine_passes; }),
      Bind(
          "statistics-windows", [](auto& s) -> auto& { return s.information.windows; }),
      Bind(
          "drift-compensation", [](auto& s) -> auto& { return s.drift.compensation; }),
      Bind(
          "drift-windows", [](auto& s) -> auto& { return s.drift.windows; }),
      Bind(
          "fisher-windows", [](auto& s) -> auto& { return s.fisher.windows; }),
      {"embedding-bits",
       [](const auto& s) { return s.embedding_bits == kSharedBits ? Json(nullptr) : Json(s.embedding_bits); },
       [](const Json& value, auto& s) { s.embedding_bits = value.template get<int>(); }},
      Bind(
          "dtype", [](auto& s) -> auto& { return s.arithmetic.precision; }),
      Bind(
          "samples", [](auto& s) -> auto& { return s.calibration.samples; }),
      Bind(
          "seqlen", [](auto& s) -> auto& { return s.calibration.seqlen; }),
      Bind(
          "bos", [](auto& s) -> auto& { return s.calibration.bos; }),
      {"seed", [](const auto& s) { return ToJson(s.seed); },
       [](const Json& value, auto& s) { s.seed = s.calibration.seed = value.template get<uint64_t>(); }},
      {"calib", SourcesToJson, SetSources},
  };
  return bindings;
}

// The binding of an option, none of those that only decide how the others are read.
const Binding* BindingOf(const Option& option) {
  for (const Binding& binding : Bindings()) {
    if (std::string(option.name) == binding.option) return &binding;
  }
  return nullptr;
}

// What the format has and vLLM takes.
void CheckForCompressedTensors(const CompressionSettings& settings) {
  const size_t group = settings.fixed.group_size;
  if (group != 32 && group != 64 && group != 128)
    Fail("--group-size is {}, expected 32, 64 or 128 for --coding compressed-tensors", group);
  if (settings.sparsity.rate > 0) {
    Fail(
        "--sparsity is {}, but compressed-tensors store every weight; leave it out, or give --coding fixed "
        "or entropy",
        settings.sparsity.rate);
  }
  if (settings.embedding_bits != 16) {
    Fail("--embedding-bits is {}, but compressed-tensors keep embedding and head in 16 bits",
         settings.embedding_bits);
  }
}

// All options, those that change nothing as well.
Json AllSettings(const CompressionSettings& settings) {
  Json json = Json::object();
  for (const Option& option : CompressionOptionTable()) {
    const Binding* binding = BindingOf(option);
    Json value = binding != nullptr ? binding->read(settings) : Json(nullptr);
    if (!value.is_null()) SetValue(json, option, std::move(value));
  }
  return json;
}

}  // namespace

void ApplyPreset(const std::string& preset, CompressionSettings& settings) {
  const std::string coding = ToJson(settings.coding);
  for (const Option& option : CompressionOptionTable()) {
    if (option.fast.is_null() && option.best.is_null() && option.codings.empty()) continue;
    BindingOf(option)->write(DefaultOf(option, preset, coding), settings);
  }
}

void CheckSettings(const CompressionSettings& settings) {
  const Json json = AllSettings(settings);
  for (const Option& option : CompressionOptionTable()) {
    if (const Json* value = ValueIn(json, option)) CheckedValue(option, *value);
  }
  if (settings.coding == Coding::kEntropy && settings.sparsity.n > 0) {
    Fail("--pattern {} needs --coding fixed", PatternName(settings.sparsity));
  }
  if (settings.coding == Coding::kGguf && settings.sparsity.rate > 0)
    Fail(
        "--sparsity is {}, but types of GGUF store every weight; leave it out, or give --coding fixed or "
        "entropy",
        settings.sparsity.rate);
  if (settings.coding == Coding::kCompressedTensors) CheckForCompressedTensors(settings);
  if (settings.fisher.token_weights && settings.fisher.windows < settings.calibration.samples) {
    Fail("--fisher-windows is {}, but --token-weights true needs the gradients of all {} calibration windows",
         settings.fisher.windows, settings.calibration.samples);
  }
}

Given GivenIn(const Json& json) {
  return [&json](const std::string& name) {
    return ValueIn(json, FindOption(CompressionOptionTable(), name)) != nullptr;
  };
}

void CompleteSettings(CompressionSettings& settings, const Given& given) {
  if (!given("grouping") && (given("groups") || given("estimator")))
    settings.information.grouping = GroupingMethod::kSpectral;
  if (!given("embedding-bits") && settings.coding == Coding::kGguf &&
      settings.budget.target == BudgetTarget::kFileBytes)
    settings.embedding_bits = kSharedBits;
  if (settings.coding == Coding::kCompressedTensors) settings.embedding_bits = 16;
  if (!given("bit-options") && settings.budget.target == BudgetTarget::kMeanBits &&
      settings.budget.value == 16)
    settings.fixed.bit_options = {16};
}

void RefuseIdleOptions(const CompressionSettings& settings, const Given& given) {
  const Json json = AllSettings(settings);
  for (const Option& option : CompressionOptionTable()) {
    const IdleRule* rule = IdleIn(option, json);
    if (rule == nullptr || !given(option.name)) continue;
    Fail("--{} changes nothing with --{} {}{}; leave it out, or give {}", option.name, rule->option,
         ValueText(rule->value), rule->because, rule->instead);
  }
}

Json SettingsToJson(const CompressionSettings& settings) {
  const Json all = AllSettings(settings);
  Json json = all;
  for (const Option& option : CompressionOptionTable()) {
    if (IdleIn(option, all) != nullptr) json.erase(KeyOf(option));
  }
  return json;
}

CompressionSettings SettingsFromJson(const Json& json, const std::string& where) {
  const Json values = ReadOptions(CompressionOptionTable(), json, where);
  const auto word = [&](const char* name) {
    return ValueOf(values, FindOption(CompressionOptionTable(), name)).get<std::string>();
  };
  const std::string preset = word("preset"), coding = word("coding");
  CompressionSettings settings;
  for (const Option& option : CompressionOptionTable()) {
    const Binding* binding = BindingOf(option);
    if (binding == nullptr) continue;
    const Json* given = ValueIn(values, option);
    const Json value = given != nullptr ? *given : DefaultOf(option, preset, coding);
    if (!value.is_null()) InContext(where, [&] { binding->write(value, settings); });
  }
  CompleteSettings(settings, GivenIn(values));
  return settings;
}

}  // namespace mica
