#include "eval/report/comparison.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "eval/measure/standard_error.h"
#include "eval/report/advice.h"
#include "eval/report/size_slope.h"
#include "record/identity.h"

namespace mica {
namespace {

constexpr size_t kDepthRows = 16;  // rows of the histogram by depth
constexpr const char* kParts[] = {"codes",      "scales", "zeros", "mask",   "order", "groups",  "padding",
                                  "embeddings", "head",   "norms", "biases", "plain", "headers", "other"};

SetFigures FiguresOf(const SetRecord* set, const std::string& name, const std::string& path) {
  SetFigures figures;
  if (set == nullptr) return figures;
  if (set->perplexity && !(*set->perplexity >= 1)) {
    Fail("{}: set {} has perplexity {}, expected a number of at least 1", path, name, *set->perplexity);
  }
  figures.log_perplexity = LogPerplexity(*set);
  if (figures.log_perplexity && !(*figures.log_perplexity >= 0)) {
    Fail("{}: set {} has a mean negative log likelihood of {} nats, expected a number of at least 0", path,
         name, *figures.log_perplexity);
  }
  if (figures.log_perplexity)
    figures.perplexity = set->perplexity ? *set->perplexity : std::exp(*figures.log_perplexity);
  figures.seconds = set->seconds;
  figures.tokens_per_second = set->tokens_per_second;
  // Of a result without phases, which has the reference's pass in its time.
  if (set->divergence && set->phases.empty()) figures.tokens_per_second.reset();
  figures.bits_per_byte = set->bits_per_byte;
  if (!figures.log_perplexity) figures.error = set->error.value_or("");
  return figures;
}

// Standard error of the mean difference of two results' windows, the same text window by window.
std::optional<double> ExcessError(const SetRecord& baseline, const SetRecord& compressed) {
  const std::vector<double>& a = baseline.window_nll;
  const std::vector<double>& b = compressed.window_nll;
  if (a.size() != b.size() || a.size() < 2) return std::nullopt;
  std::vector<double> differences;
  for (size_t i = 0; i < a.size(); ++i) differences.push_back(b[i] - a[i]);
  return StandardError(differences);
}

std::vector<ClassComparison> CompareClasses(const SetRecord& baseline, const SetRecord& compressed) {
  std::vector<ClassComparison> classes;
  if (baseline.by_occurrence.size() != compressed.by_occurrence.size()) return classes;
  double tokens = 0, loss = 0;
  for (size_t i = 0; i < baseline.by_occurrence.size(); ++i) {
    const TokenClassRecord &a = baseline.by_occurrence[i], &b = compressed.by_occurrence[i];
    for (const auto figure : {&TokenClassRecord::from, &TokenClassRecord::to, &TokenClassRecord::tokens}) {
      if ((a.*figure).value_or(0) != (b.*figure).value_or(0)) return {};
    }
    if (!a.tokens || !a.nll || !b.nll) return {};
    ClassComparison row;
    row.from = a.from.value_or(0);
    row.to = a.to.value_or(0);
    row.share = static_cast<double>(*a.tokens);
    row.baseline_nll = *a.nll;
    row.excess_nats = *b.nll - row.baseline_nll;
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

std::vector<SetComparison> CompareSets(const EvaluationRecord& baseline, const std::string& baseline_path,
                                       const EvaluationRecord& compressed,
                                       const std::string& compressed_path) {
  std::vector<SetComparison> sets;
  const auto add = [&](const std::string& name) {
    const SetRecord* before = Find(baseline.sets, name);
    const SetRecord* after = Find(compressed.sets, name);
    SetComparison set;
    set.name = name;
    set.baseline = FiguresOf(before, name, baseline_path);
    set.compressed = FiguresOf(after, name, compressed_path);
    if (set.baseline.log_perplexity && set.compressed.log_perplexity) {
      set.excess_nats = *set.compressed.log_perplexity - *set.baseline.log_perplexity;
      const Rating rating = RateExcess(*set.excess_nats);
      set.retention = rating.retention;
      set.change_percent = 100 - rating.retention;
      set.stars = rating.stars;
      set.excess_error = ExcessError(*before, *after);
      const DivergenceRecord divergence = after->divergence.value_or(DivergenceRecord{});
      set.kl = divergence.kl;
      set.kl_error = divergence.standard_error;
      set.same_top = divergence.same_top;
      set.classes = CompareClasses(*before, *after);
    }
    sets.push_back(std::move(set));
  };
  for (const auto& [name, set] : baseline.sets) add(name);
  for (const auto& [name, set] : compressed.sets) {
    if (Find(baseline.sets, name) == nullptr) add(name);
  }
  return sets;
}

std::vector<std::string> Differences(const EvaluationRecord& baseline, const EvaluationRecord& compressed) {
  const TokensBy tokens = SeenIn(baseline, compressed);
  const auto measured = [tokens](const EvaluationRecord& record) {
    Identity identity = MeasurementIdentity(record, tokens);
    for (const auto& [name, set] : record.sets) identity.Add("windows of " + name, set.windows);
    return identity;
  };
  std::vector<std::string> differences =
      Differences(measured(baseline), measured(compressed), Unrecorded::kIgnored);
  // The compressed model must come from the baseline's model; two compressed models, from the same one.
  const auto original = [](const ModelRecord& model) {
    const bool known = model.compression && model.compression->model.fingerprint;
    return known ? model.compression->model.fingerprint : model.fingerprint;
  };
  if (baseline.model.compression && !compressed.model.compression) {
    differences.push_back("the first file is of a compressed model and the second is not: are they swapped?");
  } else if (compressed.model.compression) {
    Identity before, after;
    before.Add("original model", original(baseline.model));
    after.Add("original model", original(compressed.model));
    for (std::string& clause : Differences(before, after, Unrecorded::kIgnored))
      differences.push_back(std::move(clause));
  }
  return differences;
}

std::optional<double> Number(const std::optional<uint64_t>& count) {
  return count ? std::optional(static_cast<double>(*count)) : std::nullopt;
}

// Means of a group of matrices, each weighted by its number of weights.
class WidthSums {
 public:
  void Add(const MatrixRecord& matrix) {
    const double weights =
        static_cast<double>(matrix.rows.value_or(1)) * static_cast<double>(matrix.cols.value_or(1));
    mean_bits_.Add(matrix.mean_code_bits, weights);
    zero_share_.Add(matrix.zero_share, weights);
    silhouette_.Add(matrix.silhouette, weights);
    information_.Add(matrix.mean_information, weights);
    relative_error_.Add(matrix.relative_error, weights);
    if (matrix.type) ++types_[*matrix.type];
    double total = 0;
    for (const auto& [width, count] : matrix.histogram) total += static_cast<double>(count);
    if (total <= 0) return;
    with_widths_ += weights;
    for (const auto& [width, count] : matrix.histogram)
      widths_[width] += static_cast<double>(count) / total * weights;
  }

  WidthRow Row(const std::string& label) const {
    WidthRow row;
    row.label = label;
    for (const auto& [width, sum] : widths_) row.share[width] = sum / with_widths_;
    row.mean_bits = mean_bits_.Value();
    row.zero_share = zero_share_.Value();
    row.silhouette = silhouette_.Value();  // 0 where nothing was clustered
    if (row.silhouette == 0.0) row.silhouette.reset();
    row.information = information_.Value();
    row.relative_error = relative_error_.Value();
    row.types = types_;
    return row;
  }

 private:
  // Over the matrices that have the figure.
  struct Mean {
    double sum = 0, weights = 0;
    void Add(const std::optional<double>& value, double weight) {
      if (value) sum += *value * weight, weights += weight;
    }
    std::optional<double> Value() const { return weights > 0 ? std::optional(sum / weights) : std::nullopt; }
  };
  Mean mean_bits_, zero_share_, silhouette_, information_, relative_error_;
  std::map<int, double> widths_;
  std::map<std::string, uint64_t> types_;
  double with_widths_ = 0;
};

void SumUpWidths(const std::vector<LayerRecord>& layers, CompressionFigures& figures) {
  std::vector<std::string> types;
  std::map<std::string, WidthSums> by_type;
  const size_t rows = std::min(kDepthRows, layers.size());
  std::vector<WidthSums> by_depth(rows);
  for (size_t index = 0; index < layers.size(); ++index) {
    for (const auto& [type, matrix] : layers[index].linears) {
      if (by_type.find(type) == by_type.end()) types.push_back(type);
      by_type[type].Add(matrix);
      by_depth[index * rows / layers.size()].Add(matrix);
    }
  }
  for (const std::string& type : types) figures.by_type.push_back(by_type[type].Row(type));
  for (size_t row = 0; row < rows; ++row) {
    const size_t first = (row * layers.size() + rows - 1) / rows;
    const size_t last = ((row + 1) * layers.size() + rows - 1) / rows - 1;
    figures.by_depth.push_back(
        by_depth[row].Row(first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last)));
  }
}

CompressionFigures FiguresOf(const CompressionRecord& record, const ModelRecord& baseline,
                             const ModelRecord& compressed) {
  CompressionFigures figures;
  figures.bytes_before = Number(record.file.bytes_before ? record.file.bytes_before : baseline.file_bytes);
  figures.bytes_after = Number(record.file.bytes_after ? record.file.bytes_after : compressed.file_bytes);
  if (figures.bytes_before && figures.bytes_after && *figures.bytes_after > 0)
    figures.ratio = *figures.bytes_before / *figures.bytes_after;
  const BitTotals& bits = record.bits;
  figures.mean_code_bits = bits.mean_code_bits;
  figures.bits_per_weight = bits.bits_per_weight;
  figures.compressed_weights = Number(bits.compressed_weights);
  figures.zero_share = bits.zero_share;
  for (const auto& [part, bytes] : bits.breakdown_bytes)
    figures.parts.emplace_back(part, static_cast<double>(bytes));
  // Parts in the order of kParts, then those it does not name.
  const auto rank = [](const std::pair<std::string, double>& part) {
    return std::find(std::begin(kParts), std::end(kParts), part.first) - std::begin(kParts);
  };
  std::stable_sort(figures.parts.begin(), figures.parts.end(),
                   [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
  double total = 0;
  for (const auto& [width, weights] : bits.histogram) total += static_cast<double>(weights);
  for (const auto& [width, weights] : bits.histogram)
    figures.widths[width] = static_cast<double>(weights) / std::max(1.0, total);
  SumUpWidths(record.layers, figures);
  return figures;
}

}  // namespace

Rating RateExcess(double excess_nats) {
  // Beyond kMostChange the exponential may be infinite; the tenths of a limited figure are exact.
  const double retention = std::max(kLeastRetention, 100 - 100 * std::expm1(excess_nats));
  const double tenths = std::round(10 * retention) + 0.0;  // no -0.0
  return {tenths / 10, tenths >= 950 ? 5 : tenths >= 900 ? 4 : tenths >= 850 ? 3 : 2};
}

Comparison Compare(const EvaluationRecord& baseline, const std::string& baseline_path,
                   const EvaluationRecord& compressed, const std::string& compressed_path, bool force) {
  Comparison comparison;
  comparison.baseline = baseline;
  comparison.compressed = compressed;
  comparison.baseline_path = baseline_path;
  comparison.compressed_path = compressed_path;
  comparison.differences = Differences(baseline, compressed);
  if (!comparison.differences.empty() && !force) {
    Fail(
        "{} and {} were not measured alike: {}; measure both in the same way, or compare them nevertheless "
        "with --force",
        baseline_path, compressed_path, JoinClauses(comparison.differences));
  }
  comparison.sets = CompareSets(baseline, baseline_path, compressed, compressed_path);
  std::optional<double> worst_excess;
  for (const SetComparison& set : comparison.sets) {
    if (!set.excess_nats || (worst_excess && *set.excess_nats <= *worst_excess)) continue;
    worst_excess = set.excess_nats;
    comparison.worst_retention = set.retention;
    comparison.worst_set = set.name;
    comparison.stars = set.stars;
  }
  if (compressed.model.compression)
    comparison.compression = FiguresOf(*compressed.model.compression, baseline.model, compressed.model);
  comparison.advice = Advise(comparison);
  comparison.slope = SlopeOf(comparison);
  return comparison;
}

Json ComparisonJson(const Comparison& comparison) {
  const auto put = [](Json& json, const char* key, const std::optional<double>& value) {
    json[key] = value && std::isfinite(*value) ? Json(*value) : Json(nullptr);
  };
  const auto side = [&](const SetFigures& figures) {
    Json json;
    put(json, "ppl", figures.perplexity);  // null where it is infinite
    put(json, "nll", figures.log_perplexity);
    put(json, "time", figures.seconds);
    put(json, "tokens_per_second", figures.tokens_per_second);
    put(json, "bits_per_byte", figures.bits_per_byte);
    if (!figures.error.empty()) json["error"] = figures.error;
    return json;
  };
  Json json;
  json["mica"] = ToJson(ThisProgram());
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
    for (const auto& [key, rows] :
         {std::pair("types_by_type", &figures.by_type), {"types_by_layers", &figures.by_depth}}) {
      for (const WidthRow& row : *rows) {
        if (!row.types.empty()) entry[key][row.label] = row.types;
      }
    }
  } else {
    json["compression"] = nullptr;
  }
  if (const std::optional<SamplesRecord>& samples = comparison.compressed.samples) {
    Json& entry = json["samples"] = Json::object();
    if (samples->skipped) entry["skipped"] = *samples->skipped;
    if (!samples->texts.empty()) {
      entry["texts"] = samples->texts.size();
      entry["same"] = std::count_if(samples->texts.begin(), samples->texts.end(),
                                    [](const SampleRecord& text) { return !text.parting; });
      put(entry, "kl", samples->kl);
    }
    for (const auto& [key, model] :
         {std::pair("original", &samples->original), {"compressed", &samples->compressed}}) {
      if (!*model) continue;
      Json& running = entry[key];
      const RunningRecord& found = **model;
      put(running, "weight_bytes", Number(found.weight_bytes));
      put(running, "peak_memory_bytes", Number(found.peak_memory_bytes));
      for (const auto& [work, speed] :
           {std::pair("prompt", &found.prompt), {"generated", &found.generated}}) {
        if (*speed) put(running[work], "tokens_per_second", (*speed)->tokens_per_second);
      }
    }
  }
  json["verdict"] = {{"stars", comparison.stars > 0 ? Json(comparison.stars) : Json(nullptr)},
                     {"worst_set", comparison.worst_set}};
  put(json["verdict"], "worst_retention_percent", comparison.worst_retention);
  if (const std::optional<SizeSlope>& slope = comparison.slope) {
    const auto step = [](const SizeSlope::Step& one) {
      return Json{{"bytes", one.bytes}, {"loss", one.loss}};
    };
    json["half_a_bit"] = {{"by", slope->by_kl ? "kl" : "excess_nats"},
                          {"loss_falls_by", slope->factor},
                          {"measured", slope->measured},
                          {"smaller", step(slope->smaller)},
                          {"larger", step(slope->larger)}};
  }
  json["advice"] = Json::array();
  for (const Advice& advice : comparison.advice) {
    Json entry = {{"kind", AdviceName(advice.kind)}};
    if (!advice.set.empty()) entry["set"] = advice.set;
    entry["found"] = advice.found;
    entry["suggested"] = advice.suggested;
    entry["command"] = advice.command.Line();
    if (!advice.sweep.is_null()) entry["sweep"] = advice.sweep;
    json["advice"].push_back(entry);
  }
  return json;
}

}  // namespace mica
