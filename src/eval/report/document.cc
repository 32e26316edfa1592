#include <algorithm>
#include <cmath>
#include <functional>
#include <set>
#include <utility>
#include <vector>

#include "base/system.h"
#include "base/units.h"
#include "eval/report/report.h"
#include "eval/report/samples_section.h"
#include "io/text/datasets.h"
#include "record/options.h"

namespace mica {
namespace {

constexpr size_t kFingerprintDigits = 12;

// Builds the sections in one language; each function reads the comparison only.
class Builder {
 public:
  Builder(const Comparison& comparison, Language language) : comparison_(comparison), language_(language) {}

  Document Build() {
    Document document;
    document.language = language_;
    document.title = T("title");
    document.summary = Summary();
    document.sections = {Verdict(), Quality(), Compression(), Cost()};
    if (Section samples = SamplesSection(comparison_, language_); !samples.blocks.empty())
      document.sections.push_back(std::move(samples));
    document.sections.push_back(AdviceSection());
    document.sections.push_back(Configuration());
    document.footing = T("footing", Version(), Commit(), UtcTime());
    return document;
  }

 private:
  template <typename... Args>
  std::string T(std::string_view key, const Args&... args) const {
    return Say(language_, key, args...);
  }
  // "{:.2f}" of a figure that may be absent.
  template <typename Number>
  std::string Figure(const std::optional<Number>& value, fmt::format_string<const Number&> format,
                     const char* absent = "not_recorded") const {
    return value ? fmt::format(format, *value) : T(absent);
  }
  std::string Stars(int stars) const {
    if (stars == 0) return T("not_measured");
    std::string text;
    for (int i = 0; i < 5; ++i) text += i < stars ? "★" : "☆";
    return text;
  }
  template <typename Number>
  std::string Bytes(const std::optional<Number>& bytes) const {
    return bytes ? FormatBytes(static_cast<double>(*bytes)) : T("not_recorded");
  }
  // The perplexity e^nats as the file writes it, else as its logarithm says.
  std::string PerplexityText(const SetFigures& figures) const {
    if (!figures.log_perplexity) return T("not_measured");
    const bool finite = std::isfinite(figures.perplexity.value_or(INFINITY));
    return FormatPerplexity(finite ? std::log(*figures.perplexity) : *figures.log_perplexity);
  }
  std::string RetentionText(double retention) const {
    return fmt::format("{}{:.1f} %", retention <= kLeastRetention ? "≤ " : "", retention);
  }
  std::string ChangeText(double change) const {
    return fmt::format("{}{:+.1f} %", change >= kMostChange ? "≥ " : "", change);
  }
  // Of the compressed model, absent when the result is not of a packed one.
  const std::optional<CompressionRecord>& Record() const { return comparison_.compressed.model.compression; }

  std::string Summary() const {
    if (comparison_.stars == 0) return T("summary.nothing");
    const std::string verdict = T(fmt::format("verdict.{}", comparison_.stars));
    if (comparison_.compression && comparison_.compression->ratio) {
      return T("summary.full", *comparison_.compression->ratio, comparison_.worst_set,
               RetentionText(*comparison_.worst_retention), verdict);
    }
    return T("summary.quality", comparison_.worst_set, RetentionText(*comparison_.worst_retention), verdict);
  }

  Section Configuration() const {
    Section section{T("section.configuration"), {}};
    Table table{"", {T("column.item"), T("column.baseline"), T("column.compressed")}, {}, 3};
    const auto add = [&](const char* key, const std::optional<std::string>& baseline,
                         const std::optional<std::string>& compressed) {
      if (!baseline && !compressed) return;
      table.rows.push_back(
          {T(key), baseline.value_or(T("not_recorded")), compressed.value_or(T("not_recorded"))});
    };
    const auto add_from = [&](const char* key, auto&& read) {
      add(key, read(comparison_.baseline), read(comparison_.compressed));
    };
    const auto text = [](const std::optional<uint64_t>& number) {
      return number ? std::optional(fmt::format("{}", *number)) : std::nullopt;
    };
    add("config.file", comparison_.baseline_path, comparison_.compressed_path);
    add_from("config.model", [](const EvaluationRecord& result) { return result.model.path; });
    add_from("config.architecture", [&](const EvaluationRecord& result) -> std::optional<std::string> {
      const ArchitectureRecord& shape = result.model.architecture;
      if (!shape.architecture) return std::nullopt;
      return T("config.architecture.value", *shape.architecture, shape.layers.value_or(0),
               shape.hidden.value_or(0));
    });
    add_from("config.parameters",
             [&](const EvaluationRecord& result) { return text(result.model.parameters); });
    add_from("config.fingerprint", [](const EvaluationRecord& result) {
      auto fingerprint = result.model.fingerprint;
      if (fingerprint) fingerprint->resize(std::min(fingerprint->size(), kFingerprintDigits));
      return fingerprint;
    });
    add_from("config.layout", [](const EvaluationRecord& result) { return result.model.layout; });
    add_from("config.convention", [](const EvaluationRecord& result) { return result.settings.convention; });
    add_from("config.bos", [&](const EvaluationRecord& result) { return BosText(result.settings.bos); });
    add_from("config.seqlen", [&](const EvaluationRecord& result) { return text(result.settings.seqlen); });
    add_from("config.dtype", [](const EvaluationRecord& result) { return result.settings.dtype; });
    add_from("config.threads", [&](const EvaluationRecord& result) { return text(result.settings.threads); });
    add_from("config.host", [](const EvaluationRecord& result) { return result.host.name; });
    add_from("config.processor", [](const EvaluationRecord& result) { return result.host.processor; });
    add_from("config.version", [](const EvaluationRecord& result) -> std::optional<std::string> {
      if (!result.program.version) return std::nullopt;
      return fmt::format("mica {} ({})", *result.program.version, result.program.commit.value_or("?"));
    });
    add_from("config.created", [](const EvaluationRecord& result) { return result.created; });
    section.blocks.push_back(table);
    if (Record()) section.blocks.push_back(Settings(*Record()));
    return section;
  }

  Table Settings(const CompressionRecord& record) const {
    Table table{T("settings.caption"), {T("column.item"), T("column.value")}, {}, 2};
    for (const auto& [key, value] : record.settings.values.items()) {
      if (key == "calib" || key == "samples" || key == "seqlen" || key == "bos" || value.is_null()) continue;
      table.rows.push_back({SettingLabel(key), SettingText(record.settings, key, value)});
    }
    const CalibrationRecord& calibration = record.calibration;
    for (const CalibrationSource& source : calibration.sources) {
      const bool built_in = source.kind == std::optional<std::string>(kBuiltInText);
      std::string text = built_in ? T("settings.calibration.built_in")
                                  : source.kind.value_or("text") + "=" + source.path.value_or("?");
      if (calibration.sources.size() > 1) text += fmt::format(":{:g}", source.weight.value_or(1));
      table.rows.push_back({T("settings.calibration"), text});
    }
    if (calibration.samples && calibration.seqlen) {
      table.rows.push_back(
          {T("settings.samples"), T("settings.samples.value", static_cast<double>(*calibration.samples),
                                    static_cast<double>(*calibration.seqlen))});
    }
    if (const auto bos = BosText(calibration.bos)) table.rows.push_back({T("settings.bos"), *bos});
    return table;
  }

  // A place of BOS in words; as it stands where it is none that is known.
  std::optional<std::string> BosText(const std::optional<std::string>& place) const {
    if (!place) return std::nullopt;
    return TranslateOr(language_, "bos.", *place);
  }

  std::string SettingLabel(const std::string& key) const {
    const Option* option = OptionOfKey(CompressionOptionTable(), key);
    if (option == nullptr || *option->english == '\0') return TranslateOr(language_, "settings.", key);
    return language_ == Language::kChinese ? option->chinese : option->english;
  }

  std::string SettingText(const SettingsRecord& settings, const std::string& key, const Json& value) const {
    if (key == "budget" && value.is_object()) {
      const BudgetRecord budget = settings.Budget();
      const std::string unit = "settings.budget." + budget.kind.value_or("bits");
      for (const char* known : {"settings.budget.bits", "settings.budget.bpw", "settings.budget.size"}) {
        if (unit == known) return T(unit, budget.value.value_or(0));
      }
    }
    if (key == "groups" && value == 0) return T("settings.groups.auto");
    if (value.is_string()) return value.get<std::string>();
    if (value.is_number_float()) return fmt::format("{:g}", value.get<double>());
    if (!value.is_array()) return value.dump();
    std::string list;
    for (const Json& item : value)
      list += (list.empty() ? "" : ", ") + (item.is_string() ? item.get<std::string>() : item.dump());
    return list;
  }

  Section Quality() const {
    Section section{T("section.quality"), {}};
    Table table{"",
                {T("column.set"), T("column.baseline"), T("column.compressed"), T("column.change"),
                 T("column.retention"), T("column.excess"), T("column.rating")},
                {},
                1};
    Chart perplexities{T("quality.chart"), {}, {"█"}, {}, 1};  // of the largest
    double most = 0;                                           // logarithm of that
    Chart retention{T("quality.retention.chart"), {}, {"█"}, {}, 100};
    std::vector<Block> errors;
    for (const SetComparison& set : comparison_.sets) {
      table.rows.push_back({set.name, PerplexityText(set.baseline), PerplexityText(set.compressed),
                            set.change_percent ? ChangeText(*set.change_percent) : T("not_measured"),
                            set.retention ? RetentionText(*set.retention) : T("not_measured"),
                            Figure(set.excess_nats, "{:.4f}", "not_measured") +
                                (set.excess_error ? fmt::format(" ± {:.4f}", *set.excess_error) : ""),
                            Stars(set.stars)});
      for (const auto& [figures, key, side] :
           {std::tuple{&set.baseline, "quality.bar.baseline", "column.baseline"},
            std::tuple{&set.compressed, "quality.bar.compressed", "column.compressed"}}) {
        if (figures->log_perplexity) {
          perplexities.rows.push_back(
              {T(key, set.name), {*figures->log_perplexity}, PerplexityText(*figures)});
          most = std::max(most, *figures->log_perplexity);
        } else if (!figures->error.empty()) {
          errors.push_back(Warning{T("quality.error", set.name, T(side), figures->error)});
        }
      }
      if (set.retention)
        retention.rows.push_back({set.name, {std::max(0.0, *set.retention)}, RetentionText(*set.retention)});
    }
    for (Chart::Row& row : perplexities.rows) row.values[0] = std::exp(row.values[0] - most);
    section.blocks.push_back(table);
    section.blocks.insert(section.blocks.end(), errors.begin(), errors.end());
    if (!perplexities.rows.empty()) section.blocks.push_back(perplexities);
    if (!retention.rows.empty()) section.blocks.push_back(retention);
    section.blocks.push_back(Paragraph{T("quality.formula")});
    if (const Table divergences = Divergences(); !divergences.rows.empty())
      section.blocks.push_back(divergences);
    if (const Table classes = TokenClasses(); !classes.rows.empty()) section.blocks.push_back(classes);
    return section;
  }

  // Of the sets that were measured against a reference.
  Table Divergences() const {
    Table table{T("divergence.caption"), {T("column.set"), T("column.kl"), T("column.same_top")}, {}, 1};
    for (const SetComparison& set : comparison_.sets) {
      if (!set.kl) continue;
      table.rows.push_back(
          {set.name,
           fmt::format("{:.5f}", *set.kl) + (set.kl_error ? fmt::format(" ± {:.5f}", *set.kl_error) : ""),
           set.same_top ? fmt::format("{:.2f} %", 100 * *set.same_top) : T("not_recorded")});
    }
    return table;
  }

  // Which tokens the loss falls on.
  Table TokenClasses() const {
    Table table{T("classes.caption"),
                {T("column.set"), T("column.occurrences"), T("column.tokens"), T("column.baseline_nats"),
                 T("column.excess"), T("column.loss_share")},
                {},
                2};
    for (const SetComparison& set : comparison_.sets) {
      for (const ClassComparison& row : set.classes) {
        const std::string range = row.to == 0          ? fmt::format("{}+", row.from)
                                  : row.to == row.from ? fmt::format("{}", row.from)
                                                       : fmt::format("{}-{}", row.from, row.to);
        table.rows.push_back({set.name, range, fmt::format("{:.1f} %", 100 * row.share),
                              fmt::format("{:.3f}", row.baseline_nll),
                              fmt::format("{:+.4f}", row.excess_nats),
                              fmt::format("{:.0f} %", 100 * row.loss_share)});
      }
    }
    return table;
  }

  Section Compression() const {
    Section section{T("section.compression"), {}};
    if (!comparison_.compression) {
      section.blocks.push_back(Paragraph{T("compression.none")});
      return section;
    }
    const CompressionFigures& figures = *comparison_.compression;
    Table sizes{T("compression.sizes"), {T("column.item"), T("column.value")}, {}, 1};
    sizes.rows.push_back({T("compression.before"), Bytes(figures.bytes_before)});
    sizes.rows.push_back({T("compression.after"), Bytes(figures.bytes_after)});
    sizes.rows.push_back({T("compression.ratio"), Figure(figures.ratio, "{:.2f}")});
    sizes.rows.push_back({T("compression.mean_code_bits"), Figure(figures.mean_code_bits, "{:.3f}")});
    sizes.rows.push_back({T("compression.bits_per_weight"), Figure(figures.bits_per_weight, "{:.3f}")});
    sizes.rows.push_back({T("compression.weights"), Figure(figures.compressed_weights, "{:.0f}")});
    const auto zeros = figures.zero_share ? std::optional(100 * *figures.zero_share) : std::nullopt;
    sizes.rows.push_back({T("compression.zeros"), Figure(zeros, "{:.1f} %")});
    section.blocks.push_back(sizes);
    if (!figures.parts.empty()) section.blocks.push_back(Parts(figures));
    if (!figures.widths.empty()) {
      WidthRow all;
      all.label = T("compression.widths.all");
      all.share = figures.widths;
      all.mean_bits = figures.mean_code_bits;
      section.blocks.push_back(Widths("compression.widths", {all}));
    }
    const auto add_rows = [&](const std::vector<WidthRow>& rows, const char* widths, const char* means,
                              const char* details, const char* column) {
      if (rows.empty()) return;
      // Entropy-coded matrices have no widths, only the mean length of their codes.
      const bool has_widths =
          std::any_of(rows.begin(), rows.end(), [](const WidthRow& row) { return !row.share.empty(); });
      section.blocks.push_back(has_widths ? Widths(widths, rows) : MeanBits(means, rows));
      section.blocks.push_back(WidthDetails(details, column, rows));
      if (std::any_of(rows.begin(), rows.end(), [](const WidthRow& row) { return !row.types.empty(); }))
        section.blocks.push_back(StoredTypes(column, rows));
    };
    add_rows(figures.by_type, "compression.by_type", "compression.mean_by_type", "compression.type_details",
             "column.type");
    add_rows(figures.by_depth, "compression.by_depth", "compression.mean_by_depth",
             "compression.depth_details", "column.layers");
    return section;
  }

  Chart Parts(const CompressionFigures& figures) const {
    Chart chart{T("compression.parts"), {}, {"█"}, {}, 0};
    double total = 0;
    for (const auto& [part, bytes] : figures.parts) total += bytes;
    for (const auto& [part, bytes] : figures.parts) {
      if (bytes == 0) continue;
      std::string text = fmt::format("{}, {:.1f} %", FormatBytes(bytes), 100 * bytes / total);
      static const std::set<std::string> kOfMatrices = {"codes", "scales", "zeros",  "mask",
                                                        "order", "groups", "padding"};
      if (figures.compressed_weights && kOfMatrices.count(part) > 0) {
        text +=
            fmt::format(", {:.3f} {}", 8 * bytes / *figures.compressed_weights, T("column.bits_per_weight"));
      }
      chart.rows.push_back({TranslateOr(language_, "part.", part), {bytes}, text});
      chart.full = std::max(chart.full, bytes);
    }
    return chart;
  }

  Chart Widths(const char* caption, const std::vector<WidthRow>& rows) const {
    Chart chart{T(caption), {}, {}, {}, 1};
    std::set<int> widths;
    for (const WidthRow& row : rows) {
      for (const auto& [width, share] : row.share) widths.insert(width);
    }
    for (const int width : widths) {
      chart.series.push_back(T("compression.bits", width));
      static constexpr std::string_view kDigits = "0123456789abcdefghijklmnopqrstuvwxyz";
      chart.symbols.emplace_back(1, width >= 0 && width < 36 ? kDigits[static_cast<size_t>(width)] : '+');
    }
    for (const WidthRow& row : rows) {
      Chart::Row bar{row.label, {}, ""};
      for (const int width : widths)
        bar.values.push_back(row.share.count(width) > 0 ? row.share.at(width) : 0.0);
      if (row.mean_bits) bar.text = T("compression.mean", *row.mean_bits);
      chart.rows.push_back(std::move(bar));
    }
    return chart;
  }

  Chart MeanBits(const char* caption, const std::vector<WidthRow>& rows) const {
    Chart chart{T(caption), {}, {"█"}, {}, 0};
    for (const WidthRow& row : rows) {
      if (!row.mean_bits) continue;
      chart.rows.push_back({row.label, {*row.mean_bits}, fmt::format("{:.2f}", *row.mean_bits)});
      chart.full = std::max(chart.full, *row.mean_bits);
    }
    return chart;
  }

  // How many matrices of each row have which type of another program's format, the most frequent first.
  Table StoredTypes(const char* column, const std::vector<WidthRow>& rows) const {
    Table table{T("compression.types"), {T(column), T("column.stored_types")}, {}, 2};
    for (const WidthRow& row : rows) {
      std::vector<std::pair<std::string, uint64_t>> types(row.types.begin(), row.types.end());
      std::ranges::stable_sort(types, std::ranges::greater(), &std::pair<std::string, uint64_t>::second);
      std::vector<std::string> words;
      for (const auto& [type, matrices] : types) words.push_back(fmt::format("{} {}", matrices, type));
      table.rows.push_back({row.label, fmt::format("{}", fmt::join(words, ", "))});
    }
    return table;
  }

  // The means of each row that are known for any row.
  Table WidthDetails(const char* caption, const char* column, const std::vector<WidthRow>& rows) const {
    Table table{T(caption), {T(column)}, {}, 1};
    table.rows.resize(rows.size());
    for (size_t r = 0; r < rows.size(); ++r) table.rows[r].push_back(rows[r].label);
    const auto add = [&](const char* heading, const char* format, double factor,
                         std::optional<double> WidthRow::*figure) {
      if (std::none_of(rows.begin(), rows.end(),
                       [&](const WidthRow& row) { return (row.*figure).has_value(); }))
        return;
      table.heading.push_back(T(heading));
      for (size_t r = 0; r < rows.size(); ++r) {
        const std::optional<double>& value = rows[r].*figure;
        table.rows[r].push_back(value ? fmt::format(fmt::runtime(format), factor * *value)
                                      : T("not_recorded"));
      }
    };
    add("column.mean_bits", "{:.2f}", 1, &WidthRow::mean_bits);
    add("column.zeros", "{:.1f} %", 100, &WidthRow::zero_share);
    add("column.information", "{:.3f}", 1, &WidthRow::information);
    add("column.silhouette", "{:.3f}", 1, &WidthRow::silhouette);
    add("column.error", "{:.5f}", 1, &WidthRow::relative_error);
    return table;
  }

  // Seconds of one evaluation: its phases, or the sets' times where a plain result has no phases.
  Ordered<double> Phases(const EvaluationRecord& result, const SetFigures SetComparison::*side) const {
    Ordered<double> phases = result.time.phases;
    if (!phases.empty()) return phases;
    for (const SetComparison& set : comparison_.sets) {
      if ((set.*side).seconds) phases.emplace_back(set.name, *(set.*side).seconds);
    }
    return phases;
  }

  Section Cost() const {
    Section section{T("section.cost"), {}};
    const Ordered<double> baseline = Phases(comparison_.baseline, &SetComparison::baseline);
    const PhaseTimes compress = Record() ? Record()->time : PhaseTimes{};
    const Ordered<double> compressed = Phases(comparison_.compressed, &SetComparison::compressed);
    Chart time{T("cost.time"), {}, {"█"}, {}, 0};
    const auto sum_up = [&](const Ordered<double>& phases, const char* key) -> std::optional<double> {
      double sum = 0;
      for (const auto& [phase, seconds] : phases) {
        sum += seconds;
        time.full = std::max(time.full, seconds);
        time.rows.push_back(
            {T(key, TranslateOr(language_, "phase.", phase)), {seconds}, fmt::format("{:.1f}", seconds)});
      }
      return phases.empty() ? std::nullopt : std::optional(sum);
    };
    auto baseline_seconds = sum_up(baseline, "cost.baseline");
    if (comparison_.baseline.time.total) baseline_seconds = comparison_.baseline.time.total;
    auto compress_seconds = sum_up(compress.phases, "cost.compress");
    if (compress.total) compress_seconds = compress.total;
    auto compressed_seconds = sum_up(compressed, "cost.compressed");
    if (comparison_.compressed.time.total) compressed_seconds = comparison_.compressed.time.total;

    Table totals{T("cost.summary"), {T("column.item"), T("column.baseline"), T("column.compressed")}, {}, 1};
    const auto add = [&](const std::string& item, const std::string& before, const std::string& after) {
      if (before != T("not_recorded") || after != T("not_recorded"))
        totals.rows.push_back({item, before, after});
    };
    const auto add_phase = [&](const char* label, const char* phase) {
      const auto seconds = [&](const Ordered<double>& phases) {
        const double* found = Find(phases, phase);
        return found != nullptr ? fmt::format("{:.1f}", *found) : T("not_recorded");
      };
      add(T(label), seconds(baseline), seconds(compressed));
    };
    add_phase("cost.pass", "pass");
    for (const SetComparison& set : comparison_.sets) {
      add(T("cost.speed", set.name), Figure(set.baseline.tokens_per_second, "{:.0f}"),
          Figure(set.compressed.tokens_per_second, "{:.0f}"));
    }
    add_phase("cost.weights", "weights");
    add(T("cost.evaluation"), Figure(baseline_seconds, "{:.1f}"), Figure(compressed_seconds, "{:.1f}"));
    add(T("cost.memory"), Bytes(comparison_.baseline.peak_memory_bytes),
        Bytes(comparison_.compressed.peak_memory_bytes));
    add(T("cost.compression"), T("not_recorded"), Figure(compress_seconds, "{:.1f}"));
    add(T("cost.compression_memory"), T("not_recorded"),
        Bytes(Record() ? Record()->peak_memory_bytes : std::nullopt));

    for (const std::vector<std::string>& row : GenerationRows(comparison_, language_))
      add(row[0], row[1], row[2]);

    if (!totals.rows.empty()) section.blocks.push_back(totals);
    if (comparison_.compressed.reference && Find(compressed, "reference") != nullptr)
      section.blocks.push_back(Paragraph{T("cost.reference")});
    if (time.full > 0) section.blocks.push_back(time);
    if (section.blocks.empty()) section.blocks.push_back(Paragraph{T("cost.none")});
    return section;
  }

  Section Verdict() const {
    Section section{T("section.verdict"), {}};
    const SetComparison* worst = nullptr;
    const SetComparison* best = nullptr;
    size_t measured = 0;
    for (const SetComparison& set : comparison_.sets) {
      if (!set.excess_nats) continue;
      ++measured;
      if (worst == nullptr || *set.excess_nats > *worst->excess_nats) worst = &set;
      if (best == nullptr || *set.excess_nats < *best->excess_nats) best = &set;
    }
    if (!comparison_.differences.empty()) {
      std::string all;
      for (const std::string& difference : comparison_.differences)
        all += (all.empty() ? "" : "; ") + difference;
      section.blocks.push_back(Warning{T("warning.differences", all)});
    }
    if (worst != nullptr)
      section.blocks.push_back(Paragraph{T("verdict.overall", Stars(comparison_.stars), worst->name)});
    if (measured > 1) {
      section.blocks.push_back(Paragraph{T("verdict.spread", RetentionText(*worst->retention), worst->name,
                                           RetentionText(*best->retention), best->name)});
    }
    if (Record() && Record()->quality) section.blocks.push_back(Paragraph{AimText(*Record()->quality)});
    if (measured < comparison_.sets.size())
      section.blocks.push_back(Paragraph{T("verdict.sets", measured, comparison_.sets.size())});
    return section;
  }

  // What the search for a promised quality aimed at, and what it found.
  std::string AimText(const QualityRecord& quality) const {
    const bool kl = quality.kind != std::optional<std::string>("retention");
    const double measured = quality.measured.value_or(0);
    std::string text = T(kl ? "aim.kl" : "aim.retention", quality.aimed.value_or(0), measured,
                         quality.set.value_or("?"), quality.trials.size());
    if (quality.predicted) {
      const auto loss = [&](double value) {
        return kl ? value : 100 - value;
      };  // of a retention, what is lost
      text += T(kl ? "aim.law.kl" : "aim.law.retention", *quality.predicted,
                100 * (loss(measured) / loss(*quality.predicted) - 1));
    }
    return text;
  }

  std::string AdviceText(const Advice& advice) const {
    switch (advice.kind) {
      case AdviceKind::kMeasure:
        return T("advice.measure", advice.set);
      case AdviceKind::kRoom:
        return T(advice.guess ? "advice.room.guess" : "advice.room", RetentionText(advice.found),
                 advice.suggested);
      case AdviceKind::kSparsity:
        return T("advice.sparsity", 100 * advice.found, 100 * advice.suggested);
      case AdviceKind::kPattern:
        return T("advice.pattern", 100 * advice.found);
      case AdviceKind::kBudget:
        return T(advice.guess ? "advice.budget.guess" : "advice.budget", advice.found, advice.suggested);
      case AdviceKind::kCalibration:
        return T("advice.calibration", advice.set, advice.found);
      case AdviceKind::kSamples:
        return T("advice.samples", advice.found, advice.suggested);
    }
    return "";
  }

  Section AdviceSection() const {
    Section section{T("section.advice"), {}};
    if (comparison_.advice.empty()) section.blocks.push_back(Paragraph{T("advice.none")});
    for (const Advice& advice : comparison_.advice) {
      section.blocks.push_back(Paragraph{AdviceText(advice)});
      section.blocks.push_back(Command{advice.command});
      if (!advice.sweep.is_null())
        section.blocks.push_back(Paragraph{T("advice.sweep", ShownJson(advice.sweep))});
    }
    if (const std::optional<SizeSlope>& slope = comparison_.slope) {
      const auto loss = [&](double nats) { return T(slope->by_kl ? "slope.kl" : "slope.excess", nats); };
      section.blocks.push_back(
          Paragraph{T("slope", FormatBytes(slope->smaller.bytes), loss(slope->smaller.loss),
                      FormatBytes(slope->larger.bytes), loss(slope->larger.loss), slope->factor,
                      T(slope->measured ? "slope.measured" : "slope.usual"))});
    }
    return section;
  }

  const Comparison& comparison_;
  Language language_;
};

}  // namespace

Document BuildReport(const Comparison& comparison, Language language) {
  return Builder(comparison, language).Build();
}

}  // namespace mica
