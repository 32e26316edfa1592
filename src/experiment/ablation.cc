#include "experiment/ablation.h"

#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/output.h"
#include "base/progress.h"
#include "base/text.h"
#include "compress/pipeline.h"
#include "experiment/experiment_directory.h"
#include "format/fixed/scale_code.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr const char* kBaseline = "baseline.json";

std::string DirectoryName(const std::string& variant) {
  std::string name;
  for (const char c : variant) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      name += c;
    } else if (!name.empty() && name.back() != '-') {
      name += '-';
    }
  }
  return name;
}

// The widest code that all columns can have: scale and zero (as wide as a code) belong to a group.
int SingleWidth(const CompressionSettings& settings) {
  for (const int bits : {8, 6, 4, 3, 2}) {
    if (bits + static_cast<double>(kScaleBits + bits) / static_cast<double>(settings.fixed.group_size) <=
        settings.budget.value)
      return bits;
  }
  Fail(
      "the budget is {} stored bits per weight, too few for the variant with one width; expected 2.08 or "
      "more",
      settings.budget.value);
}

double MeanSilhouette(const CompressionRecord& compression) {
  double sum = 0, count = 0;
  for (const LayerRecord& layer : compression.layers) {
    for (const auto& [name, matrix] : layer.linears) {
      sum += matrix.silhouette.value_or(0);
      count += 1;
    }
  }
  return count > 0 ? sum / count : 0;
}

// A figure of `path` that the table cannot do without.
template <typename T>
const T& Need(const std::optional<T>& figure, const char* what, const fs::path& path) {
  if (!figure) Fail("{}: has no {}; delete it to measure anew", path.string(), what);
  return *figure;
}

VariantResult ResultOf(const Variant& variant, const EvaluationRecord& baseline,
                       const EvaluationRecord& result, bool divergence, const fs::path& path) {
  const CompressionRecord& compression = Need(result.model.compression, "compression", path);
  VariantResult row;
  row.name = variant.name;
  row.clustered = variant.compression.information.grouping != GroupingMethod::kWaterfill;
  row.bits_per_weight = Need(compression.bits.bits_per_weight, "bits_per_weight", path);
  row.silhouette = MeanSilhouette(compression);
  row.seconds = Need(compression.time.total, "time of compression", path);
  double excess_sum = 0, kl_sum = 0;
  for (const auto& [name, measured] : result.sets) {
    const SetRecord* before = Find(baseline.sets, name);
    if (before == nullptr) Fail("{}: has set {}, which the baseline has not", path.string(), name);
    VariantResult::Set set;
    set.name = name;
    const double nats = Need(LogPerplexity(measured), "perplexity", path);
    set.perplexity = measured.perplexity.value_or(std::exp(nats));
    set.excess_nats = nats - Need(LogPerplexity(*before), "perplexity", path.parent_path() / kBaseline);
    if (divergence) {
      set.kl = Need(Need(measured.divergence, "divergence", path).kl, "divergence", path);
      kl_sum += *set.kl;
    }
    excess_sum += set.excess_nats;
    row.sets.push_back(set);
  }
  const auto sets = static_cast<double>(row.sets.size());
  row.mean_excess_nats = excess_sum / sets;
  if (divergence) row.mean_kl = kl_sum / sets;
  return row;
}

std::vector<std::vector<std::string>> TableOf(const Ablation& ablation, const EvaluationRecord& baseline,
                                              bool divergence) {
  std::vector<std::vector<std::string>> table = {{"variant", "bits per weight", "silhouette"}};
  for (const auto& [name, set] : baseline.sets) table[0].push_back(name);
  table[0].push_back("mean");
  if (divergence) table[0].push_back("KL divergence");
  for (const VariantResult& row : ablation.rows) {
    std::vector<std::string> cells = {row.name, fmt::format("{:.3f}", row.bits_per_weight),
                                      row.clustered ? fmt::format("{:.3f}", row.silhouette) : "-"};
    for (const VariantResult::Set& set : row.sets) cells.push_back(fmt::format("{:.4f}", set.excess_nats));
    cells.push_back(fmt::format("{:.4f}", row.mean_excess_nats));
    if (row.mean_kl) cells.push_back(fmt::format("{:.5f}", *row.mean_kl));
    table.push_back(std::move(cells));
  }
  return table;
}

std::string MarkdownTable(const std::vector<std::vector<std::string>>& rows) {
  std::string text;
  for (size_t i = 0; i < rows.size(); ++i) {
    text += "|";
    for (const std::string& cell : rows[i])
      text += fmt::format(" {} |", Printable(cell, std::string_view::npos));
    text += "\n";
    if (i > 0) continue;
    text += "|";
    for (size_t c = 0; c < rows[i].size(); ++c) text += "---|";
    text += "\n";
  }
  return text;
}

}  // namespace

std::vector<Variant> AblationVariants(const CompressionSettings& settings) {
  if (settings.budget.target != BudgetTarget::kBitsPerWeight) {
    Fail(
        "an ablation compares at equal stored bits: give \"budget\": {{\"kind\": \"bpw\", \"value\": ...}} "
        "in "
        "the experiment");
  }
  CompressionSettings base = settings;
  base.coding = Coding::kFixed;
  base.information.grouping = GroupingMethod::kWaterfill;
  base.information.estimator = Estimator::kGaussian;
  std::vector<Variant> variants;
  CompressionSettings one = base;
  const int width = SingleWidth(settings);
  one.fixed.bit_options = {static_cast<uint8_t>(width)};
  one.budget = {BudgetTarget::kMeanBits, static_cast<double>(width)};
  variants.push_back({fmt::format("one width, {} bits", width), one});
  CompressionSettings energy = base;
  energy.fixed.sensitivity.information_weight = 0;
  CompressionSettings weights = energy;
  weights.fixed.sensitivity.energy_weight = 0;
  variants.push_back({"weights only", weights});
  variants.push_back({"energy only", energy});
  variants.push_back({"conditional information", base});
  const auto clusters = [&](GroupingMethod method, Estimator estimator, size_t groups) {
    CompressionSettings clustered = base;
    clustered.information.grouping = method;
    clustered.information.estimator = estimator;
    clustered.information.groups = groups;
    variants.push_back(
        {fmt::format("{}, {}, {} groups", GroupingMethodName(method), EstimatorName(estimator), groups),
         clustered});
  };
  for (const GroupingMethod method :
       {GroupingMethod::kSpectral, GroupingMethod::kHierarchical, GroupingMethod::kKmeans}) {
    for (const size_t groups : {3, 5, 10, 20}) clusters(method, Estimator::kGaussian, groups);
  }
  for (const Estimator estimator : {Estimator::kCopula, Estimator::kHistogram, Estimator::kKnn})
    clusters(GroupingMethod::kSpectral, estimator, 10);
  CompressionSettings entropy = base;
  entropy.coding = Coding::kEntropy;
  variants.push_back({"entropy coding, steps by conditional information", entropy});
  return variants;
}

Json AblationJson(const Ablation& ablation) {
  Json rows = Json::array();
  for (const VariantResult& result : ablation.rows) {
    Json row = {{"variant", result.name},
                {"bits_per_weight", result.bits_per_weight},
                {"silhouette", result.silhouette},
                {"seconds", result.seconds}};
    for (const VariantResult::Set& set : result.sets) {
      Json& entry = row["datasets"][set.name];
      entry = {{"ppl", set.perplexity}, {"excess_nats", set.excess_nats}};
      if (set.kl) entry["kl"] = *set.kl;
    }
    row["mean_excess_nats"] = result.mean_excess_nats;
    if (result.mean_kl) row["mean_kl"] = *result.mean_kl;
    rows.push_back(std::move(row));
  }
  return {{"mica", ToJson(ablation.program)},
          {"model", ablation.model},
          {"budget_bits_per_weight", ablation.budget_bits_per_weight},
          {"rows", rows}};
}

Ablation RunAblation(const Experiment& experiment, bool quiet) {
  RefuseSweep(experiment);
  const Given given = GivenIn(experiment.json.at("compress"));
  for (const char* option :
       {"coding", "grouping", "groups", "estimator", "energy-weight", "information-weight"}) {
    if (given(option))
      Fail("--{} is what the variants of an ablation differ in; leave it out of the experiment", option);
  }
  if (experiment.json.contains("samples"))
    LogWarning("\"samples\" are taken by mica run; an ablation takes none");
  const std::vector<Variant> variants = AblationVariants(experiment.compression);
  for (const Variant& variant : variants) CheckSettings(variant.compression);
  ExperimentDirectory directory(experiment, variants.front().compression, quiet);
  const EvaluationRecord baseline = directory.Evaluated("baseline", experiment.evaluation.model, kBaseline);
  Ablation ablation;
  ablation.program = baseline.program;
  ablation.model = Need(baseline.model.path, "path of the model", directory.path() / kBaseline);
  ablation.budget_bits_per_weight = experiment.compression.budget.value;
  for (const Variant& variant : variants) {
    const std::string name = DirectoryName(variant.name);
    const fs::path packed = directory.path() / name;
    directory.Stage("compress " + variant.name);
    CompressModel({experiment.evaluation.model, packed, {}}, variant.compression, directory.progress());
    const EvaluationRecord result = directory.Evaluated("evaluate " + variant.name, packed, name + ".json");
    ablation.rows.push_back(
        ResultOf(variant, baseline, result, experiment.divergence, directory.path() / (name + ".json")));
  }
  WriteJson(directory.path() / "ablation.json", AblationJson(ablation));
  const std::vector<std::vector<std::string>> table = TableOf(ablation, baseline, experiment.divergence);
  WriteFileAtomically(directory.path() / "ablation.md", MarkdownTable(table));
  directory.Stage("done");
  if (!quiet) WriteStdout(AlignedTable(table));
  return ablation;
}

}  // namespace mica
