#include "eval/report/comparison.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "base/json.h"
#include "base/system.h"
#include "eval/measure/standard_error.h"
#include "eval/report/advice.h"

namespace mica {
namespace {

constexpr size_t kDepthRows = 16;  // rows of the histogram by depth
constexpr const char* kParts[] = {"codes",      "scales", "zeros", "mask",   "order", "groups",  "padding",
                                  "embeddings", "head",   "norms", "biases", "plain", "headers", "other"};

// The object that holds the sets: "datasets" of mica's results, or the file itself.
const Json& Sets(const Json& result, const std::string& path) {
  if (!result.is_object()) Fail("{}: is not a JSON object; expected a result of 'mica eval'", path);
  if (const Json* sets = FindAt(result, "datasets"); sets != nullptr && sets->is_object()) return *sets;
  for (const auto& [name, value] : result.items()) {
    if (value.is_object() && (value.contains("ppl") || value.contains("error"))) return result;
  }
  Fail(
      "{}: has no perplexities; expected a result of 'mica eval' or an object such as {{\"wikitext2\": "
      "{{\"ppl\": 5.79}}}}",
      path);
}

// The set `name`, or nullptr when it is absent or is not a set (other keys of a plain result file).
const Json* FindSet(const Json& sets, const std::string& name) {
  const auto found = sets.find(name);
  if (found == sets.end() || !found->is_object() || !(found->contains("ppl") || found->contains("error")))
    return nullptr;
  return &*found;
}

SetFigures ReadSet(const Json* set, const std::string& name, const std::string& path) {
  SetFigures figures;
  if (set == nullptr) return figures;
  figures.perplexity = NumberAt(*set, "ppl");
  if (figures.perplexity && !(*figures.perplexity >= 1)) {
    Fail("{}: set {} has perplexity {}, expected a number of at least 1", path, name, *figures.perplexity);
  }
  figures.seconds = NumberAt(*set, "time");
  figures.tokens_per_second = NumberAt(*set, "tokens_per_second");
  figures.bits_per_byte = NumberAt(*set, "bits_per_byte");
  if (!figures.perplexity) figures.error = TextAt(*set, "error").value_or(TextAt(*set, "ppl").value_or(""));
  return figures;
}

// Standard error of the mean difference of two results' windows, the same text window by window.
std::optional<double> ExcessError(const Json& baseline, const Json& compressed) {
  const Json* a = FindAt(baseline, "window_nll");
  const Json* b = FindAt(compressed, "window_nll");
  if (a == nullptr || b == nullptr || !a->is_array() || !b->is_array() || a->size() != b->size() ||
      a->size() < 2)
    return std::nullopt;
  std::vector<double> differences;
  for (size_t i = 0; i < a->size(); ++i) {
    if (!(*a)[i].is_number() || !(*b)[i].is_number()) return std::nullopt;
    differences.push_back((*b)[i].get<double>() - (*a)[i].get<double>());
  }
  return StandardError(differences);
}

std::vector<ClassComparison> CompareClasses(const Json& baseline, const Json& compressed) {
  const Json* a = FindAt(baseline, "by_occurrence");
  const Json* b = FindAt(compressed, "by_occurrence");
  std::vector<ClassComparison> classes;
  if (a == nullptr || b == nullptr || !a->is_array() || !b->is_array() || a->size() != b->size())
    return classes;
  double tokens = 0, loss = 0;
  for (size_t i = 0; i < a->size(); ++i) {
    const auto of = [i](const Json* side, const char* key) { return NumberAt((*side)[i], key).value_or(0); };
    for (const char* key : {"from", "to", "tokens"}) {
      if (of(a, key) != of(b, key)) return {};
    }
    ClassComparison row;
    row.from = static_cast<uint64_t>(of(a, "from"));
    row.to = static_cast<uint64_t>(of(a, "to"));
    row.share = of(a, "tokens");
    row.baseline_nll = of(a, "nll");
    row.excess_nats = of(b, "nll") - of(a, "nll");
    tokens += row.share;
    loss += row.share * row.excess_nats;
    classes.push_back(row);
  }
  for (ClassComparison& row : classes) {
    row.loss_share = loss > 0 ? row.share * row.excess_nats / loss : 0;
    row.share /= std::max(1.0, tokens);
  }
  return classes;
}

std::vector<SetComparison> CompareSets(const Json& baseline, const std::string& baseline_path,
                                       const Json& compressed, const std::string& compressed_path) {
  std::vector<SetComparison> sets;
  const auto add = [&](const std::string& name) {
    SetComparison set;
    set.name = name;
    set.baseline = ReadSet(FindSet(baseline, name), name, baseline_path);
    set.compressed = ReadSet(FindSet(compressed, name), name, compressed_path);
    if (set.baseline.perplexity && set.compressed.perplexity) {
      const double base = *set.baseline.perplexity, now = *set.compressed.perplexity;
      set.change_percent = 100 * (now - base) / base;
      set.retention = 100 * (1 - (now - base) / base);
      set.excess_nats = std::log(now / base);
      set.excess_error = ExcessError(*FindSet(baseline, name), *FindSet(compressed, name));
      set.kl = NumberAt(*FindSet(compressed, name), "divergence/kl");
      set.kl_error = NumberAt(*FindSet(compressed, name), "divergence/standard_error");
      set.same_top = NumberAt(*FindSet(compressed, name), "divergence/same_top");
      set.classes = CompareClasses(*FindSet(baseline, name), *FindSet(compressed, name));
      set.stars = StarsOf(*set.retention);
    }
    sets.push_back(std::move(set));
  };
  for (const auto& [name, value] : baseline.items()) {
    if (FindSet(baseline, name) != nullptr) add(name);
  }
  for (const auto& [name, value] : compressed.items()) {
    if (FindSet(compressed, name) != nullptr && FindSet(baseline, name) == nullptr) add(name);
  }
  return sets;
}

std::string ValueText(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// Adds a clause when both files record the value at `path` and the values differ.
void CheckEqual(const Json& baseline, const Json& compressed, const std::string& path,
                const std::string& what, std::vector<std::string>& differences) {
  const Json* a = FindAt(baseline, path);
  const Json* b = FindAt(compressed, path);
  if (a == nullptr || b == nullptr || *a == *b) return;
  differences.push_back(
      fmt::format("{} {} against {}", what, ValueText(*a).substr(0, 16), ValueText(*b).substr(0, 16)));
}

std::vector<std::string> Differences(const Json& baseline, const Json& baseline_sets, const Json& compressed,
                                     const Json& compressed_sets) {
  std::vector<std::string> differences;
  CheckEqual(baseline, compressed, "settings/convention", "convention", differences);
  CheckEqual(baseline, compressed, "settings/seqlen", "seqlen", differences);
  CheckEqual(baseline, compressed, "settings/dtype", "dtype", differences);
  CheckEqual(baseline, compressed, "settings/special_tokens", "special tokens", differences);
  for (const auto& [name, value] : baseline_sets.items()) {
    const Json* a = FindSet(baseline_sets, name);
    const Json* b = FindSet(compressed_sets, name);
    if (a == nullptr || b == nullptr) continue;
    CheckEqual(*a, *b, "data/sha256", "text of " + name, differences);
    CheckEqual(*a, *b, "data/kind", "kind of " + name, differences);
    CheckEqual(*a, *b, "windows", "windows of " + name, differences);
  }
  // The compressed model must come from the baseline's model; two compressed models, from the same one.
  const auto origin = [](const Json& result) {
    if (auto fingerprint = TextAt(result, "model/compression/model/fingerprint")) return fingerprint;
    return TextAt(result, "model/fingerprint");
  };
  const bool baseline_packed = FindAt(baseline, "model/compression") != nullptr;
  const bool compressed_packed = FindAt(compressed, "model/compression") != nullptr;
  if (baseline_packed && !compressed_packed) {
    differences.push_back("the first file is of a compressed model and the second is not: are they swapped?");
  } else if (compressed_packed) {
    const auto a = origin(baseline), b = origin(compressed);
    if (a && b && *a != *b) {
      differences.push_back(fmt::format("original model {} against {}", a->substr(0, 16), b->substr(0, 16)));
    }
  }
  return differences;
}

// Means of a group of matrices, each weighted by its number of weights.
class WidthSums {
 public:
  void Add(const Json& linear) {
    const double weights = NumberAt(linear, "rows").value_or(1) * NumberAt(linear, "cols").value_or(1);
    for (const char* key : kMeans) {
      const auto value = NumberAt(linear, key);
      if (value) means_[key].first += *value * weights, means_[key].second += weights;
    }
    const Json* histogram = FindAt(linear, "histogram");
    if (histogram == nullptr || !histogram->is_object()) return;
    double total = 0;
    for (const auto& [width, value] : histogram->items())
      total += value.is_number() ? value.get<double>() : 0;
    if (total <= 0) return;
    with_widths_ += weights;
    for (const auto& [width, value] : histogram->items()) {
      if (value.is_number()) widths_[std::atoi(width.c_str())] += value.get<double>() / total * weights;
    }
  }

  WidthRow Row(const std::string& label) const {
    WidthRow row;
    row.label = label;
    for (const auto& [width, sum] : widths_) row.share[width] = sum / with_widths_;
    row.mean_bits = Mean("mean_code_bits");
    row.zero_share = Mean("zero_share");
    row.silhouette = Mean("silhouette");  // 0 where nothing was clustered
    if (row.silhouette == 0.0) row.silhouette.reset();
    row.information = Mean("mean_information");
    row.relative_error = Mean("relative_error");
    return row;
  }

 private:
  static constexpr const char* kMeans[] = {"mean_code_bits", "zero_share", "silhouette", "mean_information",
                                           "relative_error"};
  std::optional<double> Mean(const std::string& key) const {
    const auto found = means_.find(key);
    return found == means_.end() ? std::nullopt : std::optional(found->second.first / found->second.second);
  }
  std::map<std::string, std::pair<double, double>> means_;  // sum of value * weights, sum of weights
  std::map<int, double> widths_;
  double with_widths_ = 0;
};

void ReadWidths(const Json& facts, CompressionFigures& figures) {
  const Json* layers = FindAt(facts, "layers");
  if (layers == nullptr || !layers->is_array() || layers->empty()) return;
  std::vector<std::string> types;
  std::map<std::string, WidthSums> by_type;
  const size_t rows = std::min(kDepthRows, layers->size());
  std::vector<WidthSums> by_depth(rows);
  for (size_t index = 0; index < layers->size(); ++index) {
    const Json* linears = FindAt((*layers)[index], "linears");
    if (linears == nullptr || !linears->is_object()) continue;
    for (const auto& [type, linear] : linears->items()) {
      if (by_type.find(type) == by_type.end()) types.push_back(type);
      by_type[type].Add(linear);
      by_depth[index * rows / layers->size()].Add(linear);
    }
  }
  for (const std::string& type : types) figures.by_type.push_back(by_type[type].Row(type));
  for (size_t row = 0; row < rows; ++row) {
    const size_t first = (row * layers->size() + rows - 1) / rows;
    const size_t last = ((row + 1) * layers->size() + rows - 1) / rows - 1;
    figures.by_depth.push_back(
        by_depth[row].Row(first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last)));
  }
}

CompressionFigures ReadCompression(const Json& facts, const Json& baseline, const Json& compressed) {
  CompressionFigures figures;
  figures.bytes_before = NumberAt(facts, "file/bytes_before");
  if (!figures.bytes_before) figures.bytes_before = NumberAt(baseline, "model/file_bytes");
  figures.bytes_after = NumberAt(facts, "file/bytes_after");
  if (!figures.bytes_after) figures.bytes_after = NumberAt(compressed, "model/file_bytes");
  if (figures.bytes_before && figures.bytes_after && *figures.bytes_after > 0)
    figures.ratio = *figures.bytes_before / *figures.bytes_after;
  figures.mean_code_bits = NumberAt(facts, "bits/mean_code_bits");
  figures.bits_per_weight = NumberAt(facts, "bits/bits_per_weight");
  figures.compressed_weights = NumberAt(facts, "bits/compressed_weights");
  figures.zero_share = NumberAt(facts, "bits/zero_share");
  if (const Json* parts = FindAt(facts, "bits/breakdown_bytes"); parts != nullptr && parts->is_object()) {
    for (const auto& [part, bytes] : parts->items()) {
      if (bytes.is_number()) figures.parts.emplace_back(part, bytes.get<double>());
    }
    // Parts in the order of kParts, then those it does not name.
    const auto rank = [](const std::pair<std::string, double>& part) {
      return std::find(std::begin(kParts), std::end(kParts), part.first) - std::begin(kParts);
    };
    std::stable_sort(figures.parts.begin(), figures.parts.end(),
                     [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
  }
  if (const Json* histogram = FindAt(facts, "bits/histogram");
      histogram != nullptr && histogram->is_object()) {
    double total = 0;
    for (const auto& [width, weights] : histogram->items()) {
      if (!weights.is_number()) continue;
      figures.widths[std::atoi(width.c_str())] += weights.get<double>();
      total += weights.get<double>();
    }
    for (auto& [width, share] : figures.widths) share /= std::max(1.0, total);
  }
  ReadWidths(facts, figures);
  return figures;
}

}  // namespace

int StarsOf(double retention) {
  const double rounded =
      retention + 1e-9;  // 95 % written as a quotient of decimals must not fall short of 95
  return rounded >= 95 ? 5 : rounded >= 90 ? 4 : rounded >= 85 ? 3 : 2;
}

Comparison Compare(const Json& baseline, const std::string& baseline_path, const Json& compressed,
                   const std::string& compressed_path, bool force) {
  const Json& baseline_sets = Sets(baseline, baseline_path);
  const Json& compressed_sets = Sets(compressed, compressed_path);
  Comparison comparison;
  comparison.baseline = baseline;
  comparison.compressed = compressed;
  comparison.baseline_path = baseline_path;
  comparison.compressed_path = compressed_path;
  comparison.differences = Differences(baseline, baseline_sets, compressed, compressed_sets);
  if (!comparison.differences.empty() && !force) {
    std::string all;
    for (const std::string& difference : comparison.differences)
      all += (all.empty() ? "" : "; ") + difference;
    Fail(
        "{} and {} were not measured alike: {}; measure both in the same way, or compare them nevertheless "
        "with --force",
        baseline_path, compressed_path, all);
  }
  comparison.sets = CompareSets(baseline_sets, baseline_path, compressed_sets, compressed_path);
  for (const SetComparison& set : comparison.sets) {
    if (!set.retention || (comparison.worst_retention && *set.retention >= *comparison.worst_retention))
      continue;
    comparison.worst_retention = set.retention;
    comparison.worst_set = set.name;
    comparison.stars = set.stars;
  }
  if (const Json* facts = FindAt(compressed, "model/compression"); facts != nullptr && facts->is_object()) {
    comparison.facts = *facts;
    comparison.compression = ReadCompression(*facts, baseline, compressed);
  }
  comparison.advice = Advise(comparison);
  return comparison;
}

Json ComparisonJson(const Comparison& comparison) {
  const auto put = [](Json& json, const char* key, const std::optional<double>& value) {
    json[key] = value ? Json(*value) : Json(nullptr);
  };
  const auto side = [&](const SetFigures& figures) {
    Json json;
    put(json, "ppl", figures.perplexity);
    put(json, "time", figures.seconds);
    put(json, "tokens_per_second", figures.tokens_per_second);
    put(json, "bits_per_byte", figures.bits_per_byte);
    if (!figures.error.empty()) json["error"] = figures.error;
    return json;
  };
  Json json;
  json["mica"] = {{"version", Version()}, {"commit", Commit()}};
  json["baseline"] = comparison.baseline_path;
  json["compressed"] = comparison.compressed_path;
  json["differences"] = comparison.differences;
  json["datasets"] = Json::object();
  for (const SetComparison& set : comparison.sets) {
    Json& entry = json["datasets"][set.name];
    entry["baseline"] = side(set.baseline);
    entry["compressed"] = side(set.compressed);
    put(entry, "change_percent", set.change_percent);
    put(entry, "retention_percent", set.retention);
    put(entry, "excess_nats", set.excess_nats);
    put(entry, "excess_standard_error", set.excess_error);
    if (set.kl) {
      put(entry["divergence"], "kl", set.kl);
      put(entry["divergence"], "standard_error", set.kl_error);
      put(entry["divergence"], "same_top", set.same_top);
    }
    for (const ClassComparison& row : set.classes) {
      entry["by_occurrence"].push_back({{"from", row.from},
                                        {"to", row.to},
                                        {"share", row.share},
                                        {"baseline_nll", row.baseline_nll},
                                        {"excess_nats", row.excess_nats},
                                        {"loss_share", row.loss_share}});
    }
    entry["stars"] = set.stars > 0 ? Json(set.stars) : Json(nullptr);
  }
  if (comparison.compression) {
    const CompressionFigures& figures = *comparison.compression;
    Json& entry = json["compression"];
    put(entry, "bytes_before", figures.bytes_before);
    put(entry, "bytes_after", figures.bytes_after);
    put(entry, "ratio", figures.ratio);
    put(entry, "mean_code_bits", figures.mean_code_bits);
    put(entry, "bits_per_weight", figures.bits_per_weight);
    put(entry, "zero_share", figures.zero_share);
    for (const auto& [part, bytes] : figures.parts) entry["breakdown_bytes"][part] = bytes;
    const auto widths = [](const std::map<int, double>& shares) {
      Json histogram = Json::object();
      for (const auto& [width, share] : shares) histogram[std::to_string(width)] = share;
      return histogram;
    };
    entry["widths"] = widths(figures.widths);
    for (const WidthRow& row : figures.by_type) entry["widths_by_type"][row.label] = widths(row.share);
    for (const WidthRow& row : figures.by_depth) entry["widths_by_layers"][row.label] = widths(row.share);
  } else {
    json["compression"] = nullptr;
  }
  json["verdict"] = {{"stars", comparison.stars > 0 ? Json(comparison.stars) : Json(nullptr)},
                     {"worst_set", comparison.worst_set}};
  put(json["verdict"], "worst_retention_percent", comparison.worst_retention);
  json["advice"] = Json::array();
  for (const Advice& advice : comparison.advice) {
    Json entry = {{"kind", AdviceName(advice.kind)}};
    if (!advice.set.empty()) entry["set"] = advice.set;
    entry["found"] = advice.found;
    entry["suggested"] = advice.suggested;
    entry["command"] = advice.command;
    json["advice"].push_back(entry);
  }
  return json;
}

}  // namespace mica
