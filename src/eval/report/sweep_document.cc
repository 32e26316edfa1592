#include <algorithm>
#include <cmath>

#include "base/system.h"
#include "base/units.h"
#include "eval/report/report.h"

namespace mica {
namespace {

using Figure = std::optional<double> SweepFigures::*;

constexpr size_t kMostRateColumns = 8;  // points of the front that stand beside each other

// Builds the sections in one language; each function reads the summary only.
class SweepBuilder {
 public:
  SweepBuilder(const SweepSummary& summary, Language language) : summary_(summary), language_(language) {}

  Document Build() {
    Document document;
    document.language = language_;
    document.title = T("sweep.title", summary_.name);
    document.summary = Summary();
    document.sections = {Picture(), Points()};
    if (Section rates = RatesOfFront(); !rates.blocks.empty()) document.sections.push_back(std::move(rates));
    document.sections.push_back(Cost());
    document.footing = T("footing", summary_.program.version.value_or(Version()),
                         summary_.program.commit.value_or(Commit()), UtcTime());
    return document;
  }

 private:
  template <typename... Args>
  std::string T(std::string_view key, const Args&... args) const {
    return Say(language_, key, args...);
  }
  std::string Text(const std::optional<double>& value, fmt::format_string<const double&> format) const {
    return value ? fmt::format(format, *value) : T("not_recorded");
  }
  std::string Bytes(const std::optional<double>& value) const {
    return value ? FormatBytes(*value) : T("not_recorded");
  }
  std::string Deviation(const std::optional<double>& value, fmt::format_string<const double&> format) const {
    return value ? " ± " + fmt::format(format, *value) : "";
  }
  std::string LabelOf(const SweepSetting& setting) const {
    return setting.label.empty() ? T("sweep.series.only") : setting.label;
  }
  std::vector<const SweepSetting*> Front() const {
    std::vector<const SweepSetting*> front;
    for (const SweepSetting& setting : summary_.settings) {
      if (setting.front) front.push_back(&setting);
    }
    std::stable_sort(front.begin(), front.end(),
                     [](const auto* a, const auto* b) { return a->mean.bytes < b->mean.bytes; });
    return front;
  }

  std::string Summary() const {
    const std::vector<const SweepSetting*> front = Front();
    std::string text = T("sweep.summary", summary_.settings.size(), front.size());
    if (!front.empty() && summary_.by_kl && front.front()->mean.bytes)
      text += T("sweep.summary.range", FormatBytes(*front.front()->mean.bytes), *front.front()->mean.kl,
                FormatBytes(*front.back()->mean.bytes), *front.back()->mean.kl);
    return text;
  }

  // A plot of one figure against another; nothing where no point has both.
  void AddPlot(Section& section, const char* caption, const char* of, Figure x, Plot::Unit x_unit, const char* x_label,
               Figure y, Plot::Unit y_unit, const char* y_label, bool logarithmic) const {
    Plot plot;
    plot.caption = T(caption, T(of));
    plot.x = {T(x_label), x_unit, false};
    plot.y = {T(y_label), y_unit, logarithmic};
    plot.wide = section.blocks.size() < 2;
    const bool wholly = x == &SweepFigures::bytes && y == (summary_.by_kl ? &SweepFigures::kl : &SweepFigures::excess);
    for (const SweepSetting& setting : summary_.settings) {
      if (!(setting.mean.*x) || !(setting.mean.*y) || !std::isfinite(*(setting.mean.*y))) continue;
      const std::string name = setting.series.empty() ? T("sweep.series.only") : setting.series;
      auto series = std::find_if(plot.series.begin(), plot.series.end(),
                                 [&](const Plot::Series& one) { return one.name == name; });
      if (series == plot.series.end()) series = plot.series.insert(series, Plot::Series{name, {}, true});
      series->points.push_back({*(setting.mean.*x), *(setting.mean.*y), (setting.deviation.*y).value_or(0),
                                LabelOf(setting), setting.front && wholly});
    }
    for (Plot::Series& series : plot.series) {
      std::stable_sort(series.points.begin(), series.points.end(),
                       [](const Plot::Point& a, const Plot::Point& b) { return a.x < b.x; });
    }
    if (wholly && !Front().empty()) plot.front_name = T("sweep.front");
    // In plots of another measure its points stand out, too, without a line that would say more.
    if (!wholly) {
      for (Plot::Series& series : plot.series) {
        for (Plot::Point& point : series.points) {
          point.front = std::any_of(summary_.settings.begin(), summary_.settings.end(), [&](const SweepSetting& one) {
            return one.front && LabelOf(one) == point.label;
          });
        }
      }
    }
    Plot::Series others{T("sweep.others"), {}, false};
    for (const SweepOtherFile& other : summary_.others) {
      if ((other.figures.*x) && (other.figures.*y) && std::isfinite(*(other.figures.*y)))
        others.points.push_back({*(other.figures.*x), *(other.figures.*y), 0, other.name, false});
    }
    if (plot.series.empty()) return;
    if (!others.points.empty()) plot.series.push_back(std::move(others));
    section.blocks.push_back(std::move(plot));
  }

  Section Picture() const {
    Section section{T("section.sweep.picture"), {}};
    section.blocks.push_back(Paragraph{T("sweep.reading", T("sweep.lower"))});
    struct Measure {
      const char* caption;
      Figure figure;
      Plot::Unit unit;
      const char* label;
      bool logarithmic;
    };
    const Measure measures[] = {
        {"sweep.caption.kl", &SweepFigures::kl, Plot::Unit::kNats, "sweep.axis.kl", true},
        {"sweep.caption.excess", &SweepFigures::excess, Plot::Unit::kNats, "sweep.axis.excess", AllPositive()},
        {"sweep.caption.retention", &SweepFigures::retention, Plot::Unit::kPercent, "sweep.axis.retention", false}};
    for (const Measure& measure : measures) {
      AddPlot(section, measure.caption, "sweep.x.bytes", &SweepFigures::bytes, Plot::Unit::kBytes, "sweep.axis.bytes",
              measure.figure, measure.unit, measure.label, measure.logarithmic);
      AddPlot(section, measure.caption, "sweep.x.bits", &SweepFigures::bits_per_weight, Plot::Unit::kBits,
              "sweep.axis.bits", measure.figure, measure.unit, measure.label, measure.logarithmic);
    }
    std::vector<std::string> told;
    for (const SweepSetting& setting : summary_.settings) {
      if (std::find(told.begin(), told.end(), setting.series) != told.end()) continue;
      told.push_back(setting.series);
      if (const std::optional<LossLaw> law = LawOf(summary_, setting.series)) {
        section.blocks.push_back(
            Paragraph{T("sweep.law", setting.series.empty() ? T("sweep.law.all") : setting.series, law->factor, law->points)});
      }
    }
    return section;
  }

  // A text that a compressed model predicts better than the original has no place on a logarithmic axis.
  bool AllPositive() const {
    return std::all_of(summary_.settings.begin(), summary_.settings.end(),
                       [](const SweepSetting& one) { return one.mean.excess.value_or(1) > 0; }) &&
           std::all_of(summary_.others.begin(), summary_.others.end(),
                       [](const SweepOtherFile& one) { return one.figures.excess.value_or(1) > 0; });
  }

  Section Points() const {
    Section section{T("section.sweep.points"), {}};
    const bool seeds = std::any_of(summary_.settings.begin(), summary_.settings.end(),
                                   [](const SweepSetting& one) { return one.runs.size() > 1; });
    Table table{T("sweep.table"),
                {T("sweep.column.point"), T("sweep.column.front"), T("sweep.column.size"), T("column.bits_per_weight"),
                 T("sweep.column.kl"), T("column.excess"), T("column.retention"), T("column.same_top")},
                {},
                2};
    if (seeds) table.heading.push_back(T("sweep.column.seeds"));
    std::vector<const SweepSetting*> settings;
    for (const SweepSetting& setting : summary_.settings) settings.push_back(&setting);
    std::stable_sort(settings.begin(), settings.end(),
                     [](const auto* a, const auto* b) { return a->mean.bytes < b->mean.bytes; });
    const auto row = [&](const std::string& name, bool front, const SweepFigures& mean, const SweepFigures& deviation) {
      const std::string same_top =
          mean.same_top ? fmt::format("{:.2f} %", 100 * *mean.same_top) : T("not_recorded");
      table.rows.push_back({name, front ? "●" : "", Bytes(mean.bytes), Text(mean.bits_per_weight, "{:.3f}"),
                            Text(mean.kl, "{:.5f}") + Deviation(deviation.kl, "{:.5f}"),
                            Text(mean.excess, "{:.4f}") + Deviation(deviation.excess, "{:.4f}"),
                            Text(mean.retention, "{:.1f} %") + Deviation(deviation.retention, "{:.1f}"),
                            same_top});
    };
    for (const SweepSetting* setting : settings) {
      row(LabelOf(*setting), setting->front, setting->mean, setting->deviation);
      if (seeds) table.rows.back().push_back(fmt::format("{}", setting->runs.size()));
    }
    for (const SweepOtherFile& other : summary_.others) {
      row(other.name, false, other.figures, {});
      if (seeds) table.rows.back().push_back("");
    }
    section.blocks.push_back(std::move(table));
    if (seeds) section.blocks.push_back(Paragraph{T("sweep.deviation")});
    if (const Table sets = Sets(); !sets.rows.empty()) section.blocks.push_back(sets);
    return section;
  }

  // Text by text, where there are several.
  Table Sets() const {
    Table table{T("sweep.table.sets"),
                {T("sweep.column.point"), T("column.set"), T("sweep.column.kl"), T("column.excess"), T("column.retention")},
                {},
                2};
    for (const SweepRun& run : summary_.runs) {
      if (run.sets.size() < 2) return table;
      for (const auto& [name, set] : run.sets)
        table.rows.push_back({run.name, name, Text(set.kl, "{:.5f}"), Text(set.excess, "{:.4f}"), Text(set.retention, "{:.1f} %")});
    }
    return table;
  }

  Section RatesOfFront() const {
    Section section{T("section.sweep.rates"), {}};
    std::vector<const SweepSetting*> front = Front();
    // Evenly chosen, the ends with them.
    while (front.size() > kMostRateColumns) {
      std::vector<const SweepSetting*> fewer;
      for (size_t i = 0; i < kMostRateColumns; ++i) fewer.push_back(front[i * (front.size() - 1) / (kMostRateColumns - 1)]);
      front = fewer;
    }
    for (const auto& [caption, heading, rates] :
         {std::tuple{"sweep.rates.type", "column.type", &SweepSetting::by_type},
          std::tuple{"sweep.rates.depth", "column.layers", &SweepSetting::by_depth}}) {
      Table table{T(caption), {T(heading)}, {}, 1};
      std::vector<std::string> whole = {T("sweep.rates.whole")};
      for (const SweepSetting* setting : front) {
        const Rates& column = setting->*rates;
        if (column.empty()) continue;
        if (table.rows.empty()) {
          for (const auto& [label, bits] : column) table.rows.push_back({label});
        }
        if (column.size() != table.rows.size()) continue;
        table.heading.push_back(LabelOf(*setting));
        for (size_t r = 0; r < column.size(); ++r) table.rows[r].push_back(fmt::format("{:.2f}", column[r].second));
        whole.push_back(Text(setting->mean.bits_per_weight, "{:.2f}"));
      }
      if (table.rows.empty()) continue;
      table.rows.push_back(std::move(whole));
      section.blocks.push_back(std::move(table));
    }
    return section;
  }

  Section Cost() const {
    Section section{T("section.sweep.cost"), {}};
    const bool device = std::any_of(summary_.runs.begin(), summary_.runs.end(),
                                    [](const SweepRun& run) { return run.figures.device_bytes.has_value(); });
    Table table{T("sweep.cost.caption"),
                {T("sweep.column.point"), T("sweep.column.compress"), T("sweep.column.evaluate"), T("sweep.column.memory")},
                {},
                1};
    if (device) table.heading.push_back(T("sweep.column.device"));
    for (const SweepRun& run : summary_.runs) {
      table.rows.push_back({run.name, Text(run.figures.compress_seconds, "{:.1f}"), Text(run.figures.evaluate_seconds, "{:.1f}"),
                            Bytes(run.figures.memory_bytes)});
      if (device) table.rows.back().push_back(Bytes(run.figures.device_bytes));
    }
    section.blocks.push_back(std::move(table));
    if (summary_.shared_seconds)
      section.blocks.push_back(Paragraph{T("sweep.cost.shared", fmt::format("{:.1f}", *summary_.shared_seconds))});
    return section;
  }

  const SweepSummary& summary_;
  Language language_;
};

}  // namespace

Document BuildSweepReport(const SweepSummary& summary, Language language) {
  return SweepBuilder(summary, language).Build();
}

}  // namespace mica
