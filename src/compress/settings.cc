#include "compress/settings.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/error.h"
#include "device/precision.h"
#include "format/mask/sparsity_pattern.h"

namespace mica {
namespace {

constexpr size_t kAllWindows = 65536;  // more than anybody calibrates on
constexpr int kWidths[] = {0, 2, 3, 4, 6, 8, 16};

bool IsWidth(int bits) {
  return std::find(std::begin(kWidths), std::end(kWidths), bits) != std::end(kWidths);
}

const char* TargetName(BudgetTarget target) {
  switch (target) {
    case BudgetTarget::kMeanBits:
      return "bits";
    case BudgetTarget::kBitsPerWeight:
      return "bpw";
    case BudgetTarget::kFileBytes:
      return "size";
  }
  return "";
}

// Reads the keys of an object once each; Finish complains of those nobody asked for.
class KeyReader {
 public:
  KeyReader(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
    if (!json_.is_object()) Fail("{}: is {}, expected an object", where_, json_.type_name());
  }
  template <typename T>
  void Read(const char* key, T& value) {
    known_.push_back(key);
    const auto found = json_.find(key);
    if (found == json_.end()) return;
    try {
      value = found->template get<T>();
    } catch (const nlohmann::json::exception&) {
      Fail("{}: \"{}\" is {}, which is not of the right type", where_, key, found->dump());
    }
  }
  const Json* Find(const char* key) {
    known_.push_back(key);
    const auto found = json_.find(key);
    return found == json_.end() ? nullptr : &*found;
  }
  void Finish() const {
    for (const auto& item : json_.items()) {
      if (std::find(known_.begin(), known_.end(), item.key()) == known_.end()) {
        Fail("{}: unknown key \"{}\", expected one of {}", where_, item.key(), fmt::join(known_, ", "));
      }
    }
  }

 private:
  const Json& json_;
  std::string where_;
  std::vector<std::string> known_;
};

// The key of an option in JSON.
std::string KeyOf(std::string option) {
  std::replace(option.begin(), option.end(), '-', '_');
  return option;
}

// An option that changes nothing `with` what else is set.
struct IdleOption {
  const char* name;
  const char* with;
  const char* instead;
};

std::vector<IdleOption> IdleOptions(const CompressionSettings& settings) {
  std::vector<IdleOption> idle;
  const auto add = [&](std::initializer_list<const char*> names, const char* with, const char* instead) {
    for (const char* name : names) idle.push_back({name, with, instead});
  };
  if (settings.coding == Coding::kFixed) {
    add({"trellis", "lambda", "row-feedback"}, "--coding fixed", "--coding entropy");
    if (settings.sparsity.rate == 0)
      add({"saliency-exponent"}, "--sparsity 0", "--sparsity 0.5 or --pattern 2:4");
    if (settings.information.grouping == GroupingMethod::kWaterfill) {
      add({"groups", "estimator"}, "--grouping waterfill, which forms no groups",
          "--grouping spectral, hierarchical or kmeans");
    }
  } else {
    add({"bit-options", "energy-weight", "information-weight", "saliency-exponent", "grouping", "groups",
         "estimator", "refine-passes"},
        "--coding entropy", "--coding fixed");
  }
  if (settings.drift.compensation == 0)
    add({"drift-windows", "drift-damping"}, "--drift-compensation 0", "--drift-compensation 0.5");
  if (settings.fisher.windows == 0)
    add({"sampled-labels", "row-feedback"}, "--fisher-windows 0", "--fisher-windows 16");
  return idle;
}

}  // namespace

Preset ParsePreset(const std::string& name) {
  if (name == "fast") return Preset::kFast;
  if (name == "balanced") return Preset::kBalanced;
  if (name == "best") return Preset::kBest;
  Fail("--preset is '{}', expected fast, balanced or best", name);
}

void ApplyPreset(Preset preset, CompressionSettings& settings) {
  const CompressionSettings defaults;
  settings.entropy.trellis = defaults.entropy.trellis;
  settings.entropy.lambda = defaults.entropy.lambda;
  settings.entropy.row_feedback = defaults.entropy.row_feedback;
  settings.fixed.refine_passes = defaults.fixed.refine_passes;
  settings.information.windows = defaults.information.windows;
  settings.drift.compensation = defaults.drift.compensation;
  settings.drift.windows = defaults.drift.windows;
  // Widths need the rows' Fisher information alone, feedback over rows its products as well.
  settings.fisher.windows = settings.coding == Coding::kFixed ? 8 : defaults.fisher.windows;
  if (preset == Preset::kFast) {
    settings.entropy.trellis = false;
    settings.entropy.lambda =
        0;  // without drift compensation the dead zone shrinks what reaches later layers
    settings.entropy.row_feedback = false;
    settings.fixed.refine_passes = 2;
    settings.information.windows = 8;
    settings.drift.compensation = 0;
    settings.fisher.windows = 4;
  }
  if (preset == Preset::kBest) {
    settings.fixed.refine_passes = 8;
    settings.information.windows = 32;
    settings.drift.windows = kAllWindows;
    settings.fisher.windows = 32;
  }
}

Coding ParseCoding(const std::string& name) {
  if (name == "fixed") return Coding::kFixed;
  if (name == "entropy") return Coding::kEntropy;
  Fail("--coding is '{}', expected fixed or entropy", name);
}

SparsityPattern ParseSparsity(double rate, const std::string& pattern) {
  if (!(rate >= 0 && rate < 1)) Fail("--sparsity is {}, expected 0 or more and less than 1", rate);
  if (SparsityPattern cells; ParseCells(pattern, cells)) {
    if (rate != 0 && rate != cells.rate)
      Fail("--sparsity is {}, but the pattern {} prunes exactly {}", rate, pattern, cells.rate);
    return cells;
  }
  if (pattern == "none" && rate != 0) Fail("--sparsity is {}, but --pattern is none", rate);
  if (pattern != "none" && pattern != "unstructured") {
    Fail("--pattern is '{}', expected unstructured, {}", pattern, CellNames());
  }
  return {rate, 0, 0};
}

void CheckSettings(const CompressionSettings& settings) {
  if (settings.budget.target == BudgetTarget::kFileBytes) {
    if (!(settings.budget.value >= 1)) Fail("--size is {} bytes, expected more", settings.budget.value);
  } else if (!(settings.budget.value > 0 && settings.budget.value <= 17)) {
    Fail("--{} is {}, expected more than 0 and at most 16", TargetName(settings.budget.target),
         settings.budget.value);
  }
  if (settings.fixed.bit_options.empty())
    Fail("--bit-options is empty, expected some of 0, 2, 3, 4, 6, 8 (or 16 alone)");
  for (const uint8_t bits : settings.fixed.bit_options) {
    if (!IsWidth(bits)) Fail("--bit-options has {}, expected some of 0, 2, 3, 4, 6, 8, 16", bits);
  }
  if (settings.fixed.group_size < 8 || settings.fixed.group_size > 65536) {
    Fail("--group-size is {}, expected 8 to 65536", settings.fixed.group_size);
  }
  if (!(settings.damping >= 0 && settings.damping <= 1))
    Fail("--damping is {}, expected 0 to 1", settings.damping);
  if (!IsWidth(settings.embedding_bits) || settings.embedding_bits == 0) {
    Fail("--embedding-bits is {}, expected 2, 3, 4, 6, 8 or 16", settings.embedding_bits);
  }
  if (settings.information.groups > 4096)
    Fail("--groups is {}, expected 0 (chosen by silhouette) to 4096", settings.information.groups);
  if (!(settings.drift.compensation >= 0 && settings.drift.compensation <= 1)) {
    Fail("--drift-compensation is {}, expected 0 to 1", settings.drift.compensation);
  }
  if (!(settings.drift.damping >= 0 && settings.drift.damping <= 1)) {
    Fail("--drift-damping is {}, expected 0 to 1", settings.drift.damping);
  }
  if (!(settings.entropy.lambda >= 0 && settings.entropy.lambda <= 4)) {
    Fail("--lambda is {}, expected 0 to 4", settings.entropy.lambda);
  }
  if (settings.fixed.refine_passes < 0 || settings.fixed.refine_passes > 100) {
    Fail("--refine-passes is {}, expected 0 to 100", settings.fixed.refine_passes);
  }
  if (settings.coding == Coding::kEntropy && settings.sparsity.n > 0) {
    Fail("--pattern {} needs --coding fixed", PatternName(settings.sparsity));
  }
  if (settings.information.windows == 0) Fail("--statistics-windows is 0, expected at least 1");
  if (settings.fisher.token_weights && settings.fisher.windows < settings.calibration.samples) {
    Fail("--fisher-windows is {}, but --token-weights true needs the gradients of all {} calibration windows",
         settings.fisher.windows, settings.calibration.samples);
  }
  if (settings.drift.windows == 0) {
    Fail("--drift-windows is 0, expected at least 1; --drift-compensation 0 does without them");
  }
  if (settings.calibration.samples == 0) Fail("--samples is 0, expected at least 1");
}

Given GivenIn(const Json& json) {
  return [&json](const std::string& name) { return json.contains(KeyOf(name)); };
}

void CompleteSettings(CompressionSettings& settings, const Given& given) {
  if (!given("grouping") && (given("groups") || given("estimator")))
    settings.information.grouping = GroupingMethod::kSpectral;
  if (!given("bit-options") && settings.budget.target == BudgetTarget::kMeanBits &&
      settings.budget.value == 16)
    settings.fixed.bit_options = {16};
}

void RefuseIdleOptions(const CompressionSettings& settings, const Given& given) {
  for (const IdleOption& option : IdleOptions(settings)) {
    if (!given(option.name)) continue;
    Fail("--{} changes nothing with {}; leave it out, or give {}", option.name, option.with, option.instead);
  }
}

Json SettingsToJson(const CompressionSettings& settings) {
  Json sources = Json::array();
  for (const DataSpec& source : settings.calibration.sources) {
    sources.push_back(
        {{"kind", DataKindName(source.kind)}, {"path", source.path.string()}, {"weight", source.weight}});
  }
  Json json = {{"coding", settings.coding == Coding::kFixed ? "fixed" : "entropy"},
               {"budget", {{"kind", TargetName(settings.budget.target)}, {"value", settings.budget.value}}},
               {"sparsity", settings.sparsity.rate},
               {"pattern", PatternName(settings.sparsity)},
               {"grouping", GroupingMethodName(settings.information.grouping)},
               {"groups", settings.information.groups},
               {"estimator", EstimatorName(settings.information.estimator)},
               {"bit_options", settings.fixed.bit_options},
               {"group_size", settings.fixed.group_size},
               {"damping", settings.damping},
               {"energy_weight", settings.fixed.sensitivity.energy_weight},
               {"information_weight", settings.fixed.sensitivity.information_weight},
               {"saliency_exponent", settings.fixed.saliency_exponent},
               {"trellis", settings.entropy.trellis},
               {"lambda", settings.entropy.lambda},
               {"row_feedback", settings.entropy.row_feedback},
               {"token_weights", settings.fisher.token_weights},
               {"sampled_labels", settings.fisher.sampled_labels},
               {"refine_passes", settings.fixed.refine_passes},
               {"statistics_windows", settings.information.windows},
               {"drift_compensation", settings.drift.compensation},
               {"drift_damping", settings.drift.damping},
               {"drift_windows", settings.drift.windows},
               {"fisher_windows", settings.fisher.windows},
               {"embedding_bits", settings.embedding_bits},
               {"dtype", PrecisionName(settings.precision)},
               {"samples", settings.calibration.samples},
               {"seqlen", settings.calibration.seqlen},
               {"seed", settings.seed},
               {"calib", sources}};
  for (const IdleOption& option : IdleOptions(settings)) json.erase(KeyOf(option.name));
  return json;
}

CompressionSettings SettingsFromJson(const Json& json, const std::string& where) {
  CompressionSettings settings;
  KeyReader reader(json, where);
  std::string coding = "fixed", pattern = "unstructured", grouping = "waterfill", estimator = "gaussian",
              dtype = "bf16";
  double sparsity = 0;
  std::string preset = "balanced";
  reader.Read("preset", preset);
  reader.Read("coding", coding);
  settings.coding = ParseCoding(coding);
  ApplyPreset(ParsePreset(preset), settings);
  reader.Read("sparsity", sparsity);
  reader.Read("pattern", pattern);
  reader.Read("grouping", grouping);
  reader.Read("groups", settings.information.groups);
  reader.Read("estimator", estimator);
  reader.Read("bit_options", settings.fixed.bit_options);
  reader.Read("group_size", settings.fixed.group_size);
  reader.Read("damping", settings.damping);
  reader.Read("energy_weight", settings.fixed.sensitivity.energy_weight);
  reader.Read("information_weight", settings.fixed.sensitivity.information_weight);
  reader.Read("saliency_exponent", settings.fixed.saliency_exponent);
  reader.Read("trellis", settings.entropy.trellis);
  reader.Read("lambda", settings.entropy.lambda);
  reader.Read("row_feedback", settings.entropy.row_feedback);
  reader.Read("token_weights", settings.fisher.token_weights);
  reader.Read("sampled_labels", settings.fisher.sampled_labels);
  reader.Read("refine_passes", settings.fixed.refine_passes);
  reader.Read("statistics_windows", settings.information.windows);
  reader.Read("drift_compensation", settings.drift.compensation);
  reader.Read("drift_damping", settings.drift.damping);
  reader.Read("drift_windows", settings.drift.windows);
  reader.Read("fisher_windows", settings.fisher.windows);
  reader.Read("embedding_bits", settings.embedding_bits);
  reader.Read("dtype", dtype);
  reader.Read("samples", settings.calibration.samples);
  reader.Read("seqlen", settings.calibration.seqlen);
  reader.Read("seed", settings.seed);
  if (const Json* budget = reader.Find("budget")) {
    KeyReader budget_reader(*budget, where + ", \"budget\"");
    std::string kind = "bits";
    budget_reader.Read("kind", kind);
    budget_reader.Read("value", settings.budget.value);
    budget_reader.Finish();
    if (kind != "bits" && kind != "bpw" && kind != "size") {
      Fail("{}: budget kind is \"{}\", expected bits, bpw or size", where, kind);
    }
    settings.budget.target = kind == "bits"  ? BudgetTarget::kMeanBits
                             : kind == "bpw" ? BudgetTarget::kBitsPerWeight
                                             : BudgetTarget::kFileBytes;
  }
  if (const Json* sources = reader.Find("calib")) {
    if (!sources->is_array())
      Fail("{}: \"calib\" is {}, expected an array of texts", where, sources->type_name());
    for (const Json& source : *sources) {
      KeyReader source_reader(source, where + ", \"calib\"");
      std::string kind = "text", path;
      double weight = 1;
      source_reader.Read("kind", kind);
      source_reader.Read("path", path);
      source_reader.Read("weight", weight);
      source_reader.Finish();
      DataSpec spec = ParseDataSpec(kind + "=" + path);
      spec.weight = weight;
      settings.calibration.sources.push_back(spec);
    }
  }
  reader.Finish();
  settings.sparsity = ParseSparsity(sparsity, pattern);
  settings.information.grouping = ParseGroupingMethod(grouping);
  settings.information.estimator = ParseEstimator(estimator);
  if (dtype != "bf16" && dtype != "fp32") Fail("{}: dtype is \"{}\", expected bf16 or fp32", where, dtype);
  settings.precision = dtype == "bf16" ? Precision::kBf16 : Precision::kFp32;
  settings.calibration.seed = settings.seed;
  CompleteSettings(settings, GivenIn(json));
  return settings;
}

}  // namespace mica
