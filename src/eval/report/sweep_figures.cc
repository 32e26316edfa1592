#include "eval/report/sweep_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "record/options.h"

namespace mica {
namespace {

constexpr size_t kDepthRows = 16;  // rows of the rates by depth

using Figure = std::optional<double> SweepFigures::*;
constexpr std::pair<const char*, Figure> kFigures[] = {
    {"bytes", &SweepFigures::bytes},
    {"bits_per_weight", &SweepFigures::bits_per_weight},
    {"kl", &SweepFigures::kl},
    {"excess_nats", &SweepFigures::excess},
    {"retention_percent", &SweepFigures::retention},
    {"same_top", &SweepFigures::same_top},
    {"compress_seconds", &SweepFigures::compress_seconds},
    {"evaluate_seconds", &SweepFigures::evaluate_seconds},
    {"peak_memory_bytes", &SweepFigures::memory_bytes},
    {"peak_device_bytes", &SweepFigures::device_bytes},
};

std::optional<double> Number(const std::optional<uint64_t>& count) {
  return count ? std::optional(static_cast<double>(*count)) : std::nullopt;
}

void TakeLarger(std::optional<double>& most, const std::optional<double>& value) {
  if (value && (!most || *value > *most)) most = value;
}
void TakeSmaller(std::optional<double>& least, const std::optional<double>& value) {
  if (value && (!least || *value < *least)) least = value;
}

SweepFigures QualityOf(const Comparison& comparison, Ordered<SweepFigures>* sets) {
  SweepFigures worst;
  bool all_have_kl = true;
  for (const SetComparison& set : comparison.sets) {
    SweepFigures figures;
    figures.kl = set.kl;
    figures.excess = set.excess_nats;
    figures.retention = set.retention;
    figures.same_top = set.same_top;
    all_have_kl &= set.kl.has_value();
    TakeLarger(worst.kl, set.kl);
    TakeLarger(worst.excess, set.excess_nats);
    TakeSmaller(worst.retention, set.retention);
    TakeSmaller(worst.same_top, set.same_top);
    if (sets != nullptr) sets->emplace_back(set.name, figures);
  }
  if (!all_have_kl) worst.kl.reset();  // the worst text may be one that has none
  return worst;
}

// Means of stored bits, each matrix weighted by its number of weights.
struct RateSum {
  double bits = 0, weights = 0;
  void Add(const MatrixRecord& matrix) {
    if (!matrix.bits_per_weight || !matrix.rows || !matrix.cols) return;
    const double count = static_cast<double>(*matrix.rows) * static_cast<double>(*matrix.cols);
    bits += count * *matrix.bits_per_weight;
    weights += count;
  }
};

void AddRates(const std::vector<LayerRecord>& layers, SweepRun& run) {
  const size_t rows = std::min(kDepthRows, layers.size());
  std::vector<std::string> types;
  std::map<std::string, RateSum> by_type;
  std::vector<RateSum> by_depth(rows);
  for (size_t index = 0; index < layers.size(); ++index) {
    for (const auto& [type, matrix] : layers[index].linears) {
      if (!by_type.contains(type)) types.push_back(type);
      by_type[type].Add(matrix);
      by_depth[index * rows / layers.size()].Add(matrix);
    }
  }
  const auto add = [](Rates& rates, const std::string& label, const RateSum& sum) {
    if (sum.weights > 0) rates.emplace_back(label, sum.bits / sum.weights);
  };
  for (const std::string& type : types) add(run.by_type, type, by_type[type]);
  for (size_t row = 0; row < rows; ++row) {
    const size_t first = (row * layers.size() + rows - 1) / rows;
    const size_t last = ((row + 1) * layers.size() + rows - 1) / rows - 1;
    add(run.by_depth, first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last), by_depth[row]);
  }
}

// Values of points have budgets under their kinds.
bool IsBudget(const std::string& option) {
  for (const char* kind : {"bits", "bpw", "size", "kl", "retention"}) {
    if (option == kind) return true;
  }
  return false;
}

std::string LabelOf(const Ordered<Json>& values, bool with_budget) {
  std::string label;
  for (const auto& [option, value] : values) {
    if (option == "seed" || (!with_budget && IsBudget(option))) continue;
    label += (label.empty() ? "" : ", ") + option + " " + ValueText(value);
  }
  return label;
}

Rates MeanRates(const std::vector<const Rates*>& all) {
  Rates mean = *all.front();
  for (size_t i = 1; i < all.size(); ++i) {
    if (all[i]->size() != mean.size()) return {};
    for (size_t k = 0; k < mean.size(); ++k) mean[k].second += (*all[i])[k].second;
  }
  for (auto& [label, bits] : mean) bits /= static_cast<double>(all.size());
  return mean;
}

// Mean and deviation of the figures that all of the runs have.
void Average(const SweepSummary& summary, SweepSetting& setting) {
  std::vector<const Rates*> by_type, by_depth;
  for (const size_t run : setting.runs) {
    by_type.push_back(&summary.runs[run].by_type);
    by_depth.push_back(&summary.runs[run].by_depth);
  }
  setting.by_type = MeanRates(by_type);
  setting.by_depth = MeanRates(by_depth);
  const auto count = static_cast<double>(setting.runs.size());
  for (const auto& [key, figure] : kFigures) {
    double sum = 0, squares = 0;
    bool all = true;
    for (const size_t run : setting.runs) {
      const std::optional<double>& value = summary.runs[run].figures.*figure;
      all &= value.has_value();
      sum += value.value_or(0);
    }
    if (!all) continue;
    const double mean = sum / count;
    setting.mean.*figure = mean;
    if (count < 2) continue;
    for (const size_t run : setting.runs) squares += std::pow(*(summary.runs[run].figures.*figure) - mean, 2);
    setting.deviation.*figure = std::sqrt(squares / (count - 1));
  }
}

Json FiguresJson(const SweepFigures& figures) {
  Json json = Json::object();
  for (const auto& [key, figure] : kFigures) {
    if (const std::optional<double>& value = figures.*figure; value && std::isfinite(*value)) json[key] = *value;
  }
  return json;
}

Json RatesJson(const Rates& rates) {
  Json json = Json::object();
  for (const auto& [label, bits] : rates) json[label] = bits;
  return json;
}

}  // namespace

SweepRun RunOf(const Comparison& comparison) {
  SweepRun run;
  run.figures = QualityOf(comparison, &run.sets);
  const EvaluationRecord& result = comparison.compressed;
  if (const std::optional<CompressionRecord>& record = result.model.compression) {
    run.figures.bytes = Number(record->file.bytes_after);
    run.figures.bits_per_weight = record->bits.bits_per_weight;
    run.figures.compress_seconds = record->time.total;
    run.figures.memory_bytes = Number(record->peak_memory_bytes);
    if (record->gpu) run.figures.device_bytes = Number(record->gpu->peak_bytes);
    AddRates(record->layers, run);
  }
  run.figures.evaluate_seconds = result.time.total;
  return run;
}

SweepFigures FiguresBeside(const Comparison& comparison) {
  SweepFigures figures = QualityOf(comparison, nullptr);
  const ModelRecord& model = comparison.compressed.model;
  figures.bytes = Number(model.file_bytes);
  if (model.compression) figures.bits_per_weight = model.compression->bits.bits_per_weight;
  figures.evaluate_seconds = comparison.compressed.time.total;
  return figures;
}

std::vector<bool> ParetoFront(const std::vector<std::pair<std::optional<double>, std::optional<double>>>& pairs) {
  std::vector<bool> front(pairs.size());
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (!pairs[i].first || !pairs[i].second) continue;
    const double cost = *pairs[i].first, loss = *pairs[i].second;
    front[i] = std::none_of(pairs.begin(), pairs.end(), [&](const auto& other) {
      return other.first && other.second && *other.first <= cost && *other.second <= loss &&
             (*other.first < cost || *other.second < loss);
    });
  }
  return front;
}

std::optional<double> LossOf(const SweepSummary& summary, const SweepFigures& figures) {
  return summary.by_kl ? figures.kl : figures.excess;
}

std::string SettingLabel(const Ordered<Json>& values) { return LabelOf(values, true); }

void SumUp(SweepSummary& summary) {
  summary.settings.clear();
  for (size_t i = 0; i < summary.runs.size(); ++i) {
    const std::string label = SettingLabel(summary.runs[i].values);
    auto setting = std::find_if(summary.settings.begin(), summary.settings.end(),
                                [&](const SweepSetting& one) { return one.label == label; });
    if (setting == summary.settings.end()) {
      SweepSetting fresh;
      fresh.label = label;
      fresh.series = LabelOf(summary.runs[i].values, false);
      setting = summary.settings.insert(setting, std::move(fresh));
    }
    setting->runs.push_back(i);
  }
  summary.by_kl = !summary.runs.empty();
  for (SweepSetting& setting : summary.settings) {
    Average(summary, setting);
    summary.by_kl &= setting.mean.kl.has_value();
  }
  std::vector<std::pair<std::optional<double>, std::optional<double>>> pairs;
  for (const SweepSetting& setting : summary.settings)
    pairs.emplace_back(setting.mean.bytes, LossOf(summary, setting.mean));
  const std::vector<bool> front = ParetoFront(pairs);
  for (size_t i = 0; i < front.size(); ++i) summary.settings[i].front = front[i];
}

std::optional<LossLaw> LawOf(const SweepSummary& summary, const std::string& series) {
  double n = 0, x = 0, y = 0, xx = 0, xy = 0;
  for (const SweepSetting& setting : summary.settings) {
    const std::optional<double> loss = LossOf(summary, setting.mean);
    if (setting.series != series || !setting.mean.bits_per_weight || !loss || !(*loss > 0)) continue;
    const double bits = *setting.mean.bits_per_weight, log = std::log(*loss);
    n += 1, x += bits, y += log, xx += bits * bits, xy += bits * log;
  }
  const double spread = n * xx - x * x;
  constexpr double kLeastSpread = 1e-6;  // squared bits
  if (n < 2 || !(spread > kLeastSpread)) return std::nullopt;
  return LossLaw{std::exp(-(n * xy - x * y) / spread), static_cast<size_t>(n)};
}

Json SweepJson(const SweepSummary& summary, const std::vector<bool>& kept) {
  Json json = {{"mica", ToJson(summary.program)}, {"sweep", summary.name}, {"model", summary.model}};
  json["baseline"] = FiguresJson(summary.baseline);
  json["front_by"] = {"bytes", summary.by_kl ? "kl" : "excess_nats"};
  if (summary.shared_seconds) json["shared_seconds"] = *summary.shared_seconds;
  json["points"] = Json::array();
  for (size_t i = 0; i < summary.runs.size(); ++i) {
    const SweepRun& run = summary.runs[i];
    Json entry = {{"name", run.name}, {"settings", Json::object()}, {"packed", i < kept.size() && kept[i]}};
    for (const auto& [option, value] : run.values) entry["settings"][option] = value;
    const auto in = std::find_if(summary.settings.begin(), summary.settings.end(), [&](const SweepSetting& one) {
      return std::find(one.runs.begin(), one.runs.end(), i) != one.runs.end();
    });
    entry["front"] = in != summary.settings.end() && in->front;
    entry.update(FiguresJson(run.figures));
    for (const auto& [name, set] : run.sets) entry["datasets"][name] = FiguresJson(set);
    entry["bits_by_type"] = RatesJson(run.by_type);
    entry["bits_by_layers"] = RatesJson(run.by_depth);
    json["points"].push_back(std::move(entry));
  }
  json["settings"] = Json::array();
  std::set<std::string> series;
  for (const SweepSetting& setting : summary.settings) {
    Json entry = {{"setting", setting.label}, {"series", setting.series}, {"front", setting.front}};
    for (const size_t run : setting.runs) entry["points"].push_back(summary.runs[run].name);
    entry["mean"] = FiguresJson(setting.mean);
    if (setting.runs.size() > 1) entry["deviation"] = FiguresJson(setting.deviation);
    json["settings"].push_back(std::move(entry));
    series.insert(setting.series);
  }
  json["loss_falls_by"] = Json::object();
  for (const std::string& one : series) {
    if (const std::optional<LossLaw> law = LawOf(summary, one)) json["loss_falls_by"][one] = law->factor;
  }
  json["others"] = Json::array();
  for (const SweepOtherFile& other : summary.others) {
    Json entry = {{"name", other.name}, {"path", other.path}};
    entry.update(FiguresJson(other.figures));
    json["others"].push_back(std::move(entry));
  }
  return json;
}

}  // namespace mica
