#include "compress/settings.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/error.h"

namespace mica {
namespace {

constexpr size_t kAllWindows = 65536;  // more than anybody calibrates on
constexpr int kWidths[] = {0, 2, 3, 4, 6, 8, 16};

bool IsWidth(int bits) {
  return std::find(std::begin(kWidths), std::end(kWidths), bits) != std::end(kWidths);
}

std::string PatternName(const SparsityPattern& sparsity) {
  if (sparsity.n > 0) return fmt::format("{}:{}", sparsity.n, sparsity.m);
  return sparsity.rate > 0 ? "unstructured" : "none";
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
    if (settings.grouping == GroupingMethod::kWaterfill) {
      add({"groups", "estimator"}, "--grouping waterfill, which forms no groups",
          "--grouping spectral, hierarchical or kmeans");
    }
  } else {
    add({"bit-options", "energy-weight", "information-weight", "saliency-exponent", "grouping", "groups",
         "estimator", "refine-passes"},
        "--coding entropy", "--coding fixed");
  }
  if (settings.drift_compensation == 0)
    add({"drift-windows", "drift-damping"}, "--drift-compensation 0", "--drift-compensation 0.5");
  if (settings.fisher_windows == 0)
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
  settings.trellis = defaults.trellis;
  settings.lambda = defaults.lambda;
  settings.row_feedback = defaults.row_feedback;
  settings.refine_passes = defaults.refine_passes;
  settings.statistics_windows = defaults.statistics_windows;
  settings.drift_compensation = defaults.drift_compensation;
  settings.drift_windows = defaults.drift_windows;
  // Widths need the rows' Fisher information alone, feedback over rows its products as well.
  settings.fisher_windows = settings.coding == Coding::kFixed ? 8 : defaults.fisher_windows;
  if (preset == Preset::kFast) {
    settings.trellis = false;
    settings.lambda = 0;  // without drift compensation the dead zone shrinks what reaches later layers
    settings.row_feedback = false;
    settings.refine_passes = 2;
    settings.statistics_windows = 8;
    settings.drift_compensation = 0;
    settings.fisher_windows = 4;
  }
  if (preset == Preset::kBest) {
    settings.refine_passes = 8;
    settings.statistics_windows = 32;
    settings.drift_windows = kAllWindows;
    settings.fisher_windows = 32;
  }
}

Coding ParseCoding(const std::string& name) {
  if (name == "fixed") return Coding::kFixed;
  if (name == "entropy") return Coding::kEntropy;
  Fail("--coding is '{}', expected fixed or entropy", name);
}

SparsityPattern ParseSparsity(double rate, const std::string& pattern) {
  if (!(rate >= 0 && rate < 1)) Fail("--sparsity is {}, expected 0 or more and less than 1", rate);
  if (pattern == "2:4" || pattern == "4:8") {
    if (rate != 0 && rate != 0.5)
      Fail("--sparsity is {}, but the pattern {} prunes exactly 0.5", rate, pattern);
    return pattern == "2:4" ? SparsityPattern{0.5, 2, 4} : SparsityPattern{0.5, 4, 8};
  }
  if (pattern == "none" && rate != 0) Fail("--sparsity is {}, but --pattern is none", rate);
  if (pattern != "none" && pattern != "unstructured") {
    Fail("--pattern is '{}', expected unstructured, 2:4 or 4:8", pattern);
  }
  return {rate, 0, 0};
}

uint64_t ParseBytes(const std::string& text, const std::string& option) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  std::string unit(end);
  if (!unit.empty() && (unit.back() == 'B' || unit.back() == 'b')) unit.pop_back();
  double factor = 0;
  if (unit.empty()) factor = 1;
  if (unit == "k" || unit == "K") factor = 1e3;
  if (unit == "M") factor = 1e6;
  if (unit == "G") factor = 1e9;
  const double bytes = value * factor;
  if (end == text.c_str() || factor == 0 || !(bytes >= 1 && bytes < 1e18)) {
    Fail("{} is '{}', expected a number of bytes such as 40000000, 40MB or 6.5GB", option, text);
  }
  return static_cast<uint64_t>(bytes);
}

void CheckSettings(const CompressionSettings& settings) {
  if (settings.target == BudgetTarget::kFileBytes) {
    if (!(settings.budget >= 1)) Fail("--size is {} bytes, expected more", settings.budget);
  } else if (!(settings.budget > 0 && settings.budget <= 17)) {
    Fail("--{} is {}, expected more than 0 and at most 16", TargetName(settings.target), settings.budget);
  }
  if (settings.bit_options.empty())
    Fail("--bit-options is empty, expected some of 0, 2, 3, 4, 6, 8 (or 16 alone)");
  for (const uint8_t bits : settings.bit_options) {
    if (!IsWidth(bits)) Fail("--bit-options has {}, expected some of 0, 2, 3, 4, 6, 8, 16", bits);
  }
  if (settings.group_size < 8 || settings.group_size > 65536) {
    Fail("--group-size is {}, expected 8 to 65536", settings.group_size);
  }
  if (!(settings.damping >= 0 && settings.damping <= 1))
    Fail("--damping is {}, expected 0 to 1", settings.damping);
  if (!IsWidth(settings.embedding_bits) || settings.embedding_bits == 0) {
    Fail("--embedding-bits is {}, expected 2, 3, 4, 6, 8 or 16", settings.embedding_bits);
  }
  if (settings.groups > 4096)
    Fail("--groups is {}, expected 0 (chosen by silhouette) to 4096", settings.groups);
  if (!(settings.drift_compensation >= 0 && settings.drift_compensation <= 1)) {
    Fail("--drift-compensation is {}, expected 0 to 1", settings.drift_compensation);
  }
  if (!(settings.drift_damping >= 0 && settings.drift_damping <= 1)) {
    Fail("--drift-damping is {}, expected 0 to 1", settings.drift_damping);
  }
  if (!(settings.lambda >= 0 && settings.lambda <= 4)) {
    Fail("--lambda is {}, expected 0 to 4", settings.lambda);
  }
  if (settings.refine_passes < 0 || settings.refine_passes > 100) {
    Fail("--refine-passes is {}, expected 0 to 100", settings.refine_passes);
  }
  if (settings.coding == Coding::kEntropy && settings.sparsity.n > 0) {
    Fail("--pattern {} needs --coding fixed", PatternName(settings.sparsity));
  }
  if (settings.statistics_windows == 0) Fail("--statistics-windows is 0, expected at least 1");
  if (settings.token_weights && settings.fisher_windows < settings.calibration.samples) {
    Fail("--fisher-windows is {}, but --token-weights true needs the gradients of all {} calibration windows",
         settings.fisher_windows, settings.calibration.samples);
  }
  if (settings.drift_windows == 0) {
    Fail("--drift-windows is 0, expected at least 1; --drift-compensation 0 does without them");
  }
  if (settings.calibration.samples == 0) Fail("--samples is 0, expected at least 1");
}

Given GivenIn(const Json& json) {
  return [&json](const std::string& name) { return json.contains(KeyOf(name)); };
}

void CompleteSettings(CompressionSettings& settings, const Given& given) {
  if (!given("grouping") && (given("groups") || given("estimator")))
    settings.grouping = GroupingMethod::kSpectral;
  if (!given("bit-options") && settings.target == BudgetTarget::kMeanBits && settings.budget == 16)
    settings.bit_options = {16};
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
               {"budget", {{"kind", TargetName(settings.target)}, {"value", settings.budget}}},
               {"sparsity", settings.sparsity.rate},
               {"pattern", PatternName(settings.sparsity)},
               {"grouping", GroupingMethodName(settings.grouping)},
               {"groups", settings.groups},
               {"estimator", EstimatorName(settings.estimator)},
               {"bit_options", settings.bit_options},
               {"group_size", settings.group_size},
               {"damping", settings.damping},
               {"energy_weight", settings.energy_weight},
               {"information_weight", settings.information_weight},
               {"saliency_exponent", settings.saliency_exponent},
               {"trellis", settings.trellis},
               {"lambda", settings.lambda},
               {"row_feedback", settings.row_feedback},
               {"token_weights", settings.token_weights},
               {"sampled_labels", settings.sampled_labels},
               {"refine_passes", settings.refine_passes},
               {"statistics_windows", settings.statistics_windows},
               {"drift_compensation", settings.drift_compensation},
               {"drift_damping", settings.drift_damping},
               {"drift_windows", settings.drift_windows},
               {"fisher_windows", settings.fisher_windows},
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
  reader.Read("groups", settings.groups);
  reader.Read("estimator", estimator);
  reader.Read("bit_options", settings.bit_options);
  reader.Read("group_size", settings.group_size);
  reader.Read("damping", settings.damping);
  reader.Read("energy_weight", settings.energy_weight);
  reader.Read("information_weight", settings.information_weight);
  reader.Read("saliency_exponent", settings.saliency_exponent);
  reader.Read("trellis", settings.trellis);
  reader.Read("lambda", settings.lambda);
  reader.Read("row_feedback", settings.row_feedback);
  reader.Read("token_weights", settings.token_weights);
  reader.Read("sampled_labels", settings.sampled_labels);
  reader.Read("refine_passes", settings.refine_passes);
  reader.Read("statistics_windows", settings.statistics_windows);
  reader.Read("drift_compensation", settings.drift_compensation);
  reader.Read("drift_damping", settings.drift_damping);
  reader.Read("drift_windows", settings.drift_windows);
  reader.Read("fisher_windows", settings.fisher_windows);
  reader.Read("embedding_bits", settings.embedding_bits);
  reader.Read("dtype", dtype);
  reader.Read("samples", settings.calibration.samples);
  reader.Read("seqlen", settings.calibration.seqlen);
  reader.Read("seed", settings.seed);
  if (const Json* budget = reader.Find("budget")) {
    KeyReader budget_reader(*budget, where + ", \"budget\"");
    std::string kind = "bits";
    budget_reader.Read("kind", kind);
    budget_reader.Read("value", settings.budget);
    budget_reader.Finish();
    if (kind != "bits" && kind != "bpw" && kind != "size") {
      Fail("{}: budget kind is \"{}\", expected bits, bpw or size", where, kind);
    }
    settings.target = kind == "bits"  ? BudgetTarget::kMeanBits
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
  settings.grouping = ParseGroupingMethod(grouping);
  settings.estimator = ParseEstimator(estimator);
  if (dtype != "bf16" && dtype != "fp32") Fail("{}: dtype is \"{}\", expected bf16 or fp32", where, dtype);
  settings.precision = dtype == "bf16" ? Precision::kBf16 : Precision::kFp32;
  settings.calibration.seed = settings.seed;
  CompleteSettings(settings, GivenIn(json));
  return settings;
}

}  // namespace mica
