#include "experiment/ablation.h"

#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "base/output.h"
#include "base/progress.h"
#include "compress/pipeline.h"
#include "experiment/experiment_directory.h"
#include "format/fixed/scale_code.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

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

double MeanSilhouette(const Json& compression) {
  double sum = 0, count = 0;
  for (const Json& layer : compression.at("layers")) {
    for (const auto& item : layer.at("linears").items()) {
      sum += item.value().value("silhouette", 0.0);
      count += 1;
    }
  }
  return count > 0 ? sum / count : 0;
}

std::string MarkdownTable(const std::vector<std::vector<std::string>>& rows) {
  std::string text;
  for (size_t i = 0; i < rows.size(); ++i) {
    text += "|";
    for (const std::string& cell : rows[i]) text += " " + cell + " |";
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

Json RunAblation(const Experiment& experiment, bool quiet) {
  const Given given = GivenIn(experiment.json.at("compress"));
  for (const char* option :
       {"coding", "grouping", "groups", "estimator", "energy-weight", "information-weight"}) {
    if (given(option))
      Fail("--{} is what the variants of an ablation differ in; leave it out of the experiment", option);
  }
  ExperimentDirectory directory(experiment, quiet);
  const std::vector<Variant> variants = AblationVariants(experiment.compression);
  const Json baseline = directory.Evaluated("baseline", experiment.evaluation.model, "baseline.json");
  std::vector<std::vector<std::string>> table = {{"variant", "bits per weight", "silhouette"}};
  for (const auto& set : baseline.at("datasets").items()) table[0].push_back(set.key());
  table[0].push_back("mean");
  if (experiment.divergence) table[0].push_back("KL divergence");
  Json rows = Json::array();
  for (const Variant& variant : variants) {
    const std::string name = DirectoryName(variant.name);
    const fs::path packed = directory.path() / name;
    directory.Stage("compress " + variant.name);
    if (!fs::exists(packed / "compression.json"))
      CompressModel({experiment.evaluation.model, packed, {}}, variant.compression, directory.progress());
    const Json result = directory.Evaluated("evaluate " + variant.name, packed, name + ".json");
    const Json& compression = result.at("model").at("compression");
    const double bits = compression.at("bits").at("bits_per_weight");
    const double silhouette = MeanSilhouette(compression);
    Json row = {{"variant", variant.name},
                {"bits_per_weight", bits},
                {"silhouette", silhouette},
                {"seconds", compression.at("time").at("total")}};
    const bool clustered = variant.compression.information.grouping != GroupingMethod::kWaterfill;
    std::vector<std::string> cells = {variant.name, fmt::format("{:.3f}", bits),
                                      clustered ? fmt::format("{:.3f}", silhouette) : "-"};
    double excess_sum = 0, kl_sum = 0;
    for (const auto& [set, facts] : result.at("datasets").items()) {
      const double ppl = facts.at("ppl");
      const double excess = std::log(ppl / baseline.at("datasets").at(set).at("ppl").get<double>());
      row["datasets"][set] = {{"ppl", ppl}, {"excess_nats", excess}};
      if (experiment.divergence) {
        row["datasets"][set]["kl"] = facts.at("divergence").at("kl");
        kl_sum += facts["divergence"]["kl"].get<double>();
      }
      excess_sum += excess;
      cells.push_back(fmt::format("{:.4f}", excess));
    }
    const auto sets = static_cast<double>(result.at("datasets").size());
    row["mean_excess_nats"] = excess_sum / sets;
    cells.push_back(fmt::format("{:.4f}", excess_sum / sets));
    if (experiment.divergence) {
      row["mean_kl"] = kl_sum / sets;
      cells.push_back(fmt::format("{:.5f}", kl_sum / sets));
    }
    rows.push_back(std::move(row));
    table.push_back(std::move(cells));
  }
  const Json json = {{"mica", baseline.at("mica")},
                     {"model", baseline.at("model").at("path")},
                     {"budget_bits_per_weight", experiment.compression.budget.value},
                     {"rows", rows}};
  WriteJson(directory.path() / "ablation.json", json);
  WriteFileAtomically(directory.path() / "ablation.md", MarkdownTable(table));
  if (!quiet) WriteStdout(AlignedTable(table));
  directory.Stage("done");
  return json;
}

}  // namespace mica
