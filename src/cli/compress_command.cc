#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/output.h"
#include "base/progress.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "compress/pipeline.h"
#include "compress/settings.h"
#include "eval/measure/request.h"
#include "experiment/quality/quality_search.h"
#include "record/options.h"

namespace mica {
namespace {

struct CompressOptions {
  CommonOptions common;
  CompressionPaths paths;
  std::filesystem::path like;   // packed checkpoint whose run is repeated but for what is given; or empty
  Json given = Json::object();  // as an experiment's "compress" would say it
  Json quality = Json::object();  // a budget stated as quality, and what it is measured on
};

// What is given of a budget that is stated as quality.
std::optional<QualityBudget> QualityOf(const CompressOptions& options) {
  const std::optional<QualityBudget> quality = QualityOfFlags(options.quality);
  const auto given = [&](const char* name) {
    return ValueIn(options.quality, FindOption(QualityOptionTable(), name)) != nullptr;
  };
  for (const char* name : {"data", "max-windows"}) {
    if (!quality && given(name)) Fail("--{} changes nothing without --max-kl or --min-retention", name);
  }
  if (!quality) return quality;
  if (options.given.contains("budget"))
    Fail("more than one budget; give one of --bits, --bpw, --size, --max-kl and --min-retention");
  if (!given("data")) {
    throw UsageError(fmt::format("--data is missing: a {} is kept on texts; see 'mica compress --help'",
                                 quality->Describe()));
  }
  return quality;
}

CompressionRecord CompressTo(const QualityBudget& quality, const CompressOptions& options,
                             const CompressionSettings& settings, Progress& progress) {
  Json evaluate = options.quality;
  evaluate.erase("budget");
  EvaluationRequest request = RequestFromJson(evaluate, "--data");
  request.device = options.common.device;
  request.group = options.common.group;
  request.seed = options.common.seed;
  if (quality.kind == QualityKind::kKl) request.reference = options.paths.model;
  std::filesystem::path work = options.paths.out;
  if (!work.has_filename()) work = work.parent_path();  // OUT/
  work += ".search";
  CommandFiles files{.inputs = {options.paths.model}, .directories = {options.paths.out, work}};
  for (const DataSpec& set : request.data) files.inputs.push_back(set.path);
  CheckFiles(files);
  return CompressToQuality({.paths = options.paths,
                            .work = work,
                            .result = {},
                            .settings = settings,
                            .budget = quality,
                            .evaluation = request,
                            .baseline = {}},
                           progress);
}

std::string Summary(const CompressionRecord& record, const std::string& out) {
  const BitTotals& bits = record.bits;
  const FileSizes& file = record.file;
  std::string text = Printable(out, std::string::npos) + "\n";
  const auto line = [&](const char* label, const std::string& value) {
    text += fmt::format("  {:<19} {}\n", label, value);
  };
  line("mean code bits", fmt::format("{:.4f}", *bits.mean_code_bits));
  line("bits per weight",
       fmt::format("{:.4f}  (all stored bits of {:.1f} M compressed weights)", *bits.bits_per_weight,
                   static_cast<double>(*bits.compressed_weights) / 1e6));
  line("zero weights", fmt::format("{:.1f} %", 100 * *bits.zero_share));
  line("weight files",
       fmt::format("{} -> {}, {:.2f} times smaller", FormatBytes(static_cast<double>(*file.bytes_before)),
                   FormatBytes(static_cast<double>(*file.bytes_after)), *file.ratio));
  if (record.quality) line("quality", Printable(QualityText(*record.quality), std::string::npos));
  line("time", FormatDuration(*record.time.total));
  line("peak memory", FormatBytes(static_cast<double>(*record.peak_memory_bytes)));
  if (record.gpu)
    line("of the GPU", fmt::format("{} of {}", FormatBytes(static_cast<double>(*record.gpu->peak_bytes)), *record.gpu->name));
  return text;
}

CompressionRecord ReadCompression(const std::filesystem::path& packed) {
  const std::filesystem::path file = RecordOf(packed);
  if (!std::filesystem::exists(file))
    Fail("--like {}: has no {}; give what 'mica compress' has finished", packed.string(), file.filename().string());
  return CompressionFromJson(ReadJson(file), file.string(), WrongTypes::kRefuse);
}

// Completes what is given with what the run that it is to be like had.
void TakeFromRun(const CompressionRecord& run, CompressOptions& options) {
  const std::string where = RecordOf(options.like).string();
  if (options.paths.out.empty()) {  // the only operand
    options.paths.out = options.paths.model;
    if (!run.model.path) Fail("{}: does not say which model was compressed; give it before OUT", where);
    options.paths.model = *run.model.path;
  }
  if (!options.common.given.contains("seed"))
    options.given["seed"] = run.calibration.seed.value_or(options.common.seed);
  options.given = SettingsLike(run.settings.values, options.given, where + ", \"settings\"");
}

// What was to be as it was, and is not.
void WarnOfDifferences(const CompressionRecord& run, const CompressionRecord& record) {
  if (run.model.path == record.model.path && run.model.fingerprint != record.model.fingerprint)
    LogWarning("{}: is not the model any more that the run it was to be like compressed", *record.model.path);
  for (const CalibrationSource& source : record.calibration.sources) {
    for (const CalibrationSource& before : run.calibration.sources) {
      if (before.path == source.path && before.kind == source.kind && before.sha256 != source.sha256)
        LogWarning("{}: is not the text any more that the run it was to be like was calibrated on",
                   *source.path);
    }
  }
}

[[noreturn]] void FailMissing(const std::string& name) {
  throw UsageError(name + " is missing; see 'mica compress --help'");
}

void Compress(CompressOptions& options) {
  ApplyCommonOptions(options.common, SeveralRanks::kYes);
  const bool like = !options.like.empty();
  if (options.paths.model.empty() || (!like && options.paths.out.empty()))
    FailMissing(like || !options.paths.model.empty() ? "out" : "model");
  options.paths.statistics = options.given.value("statistics", "");
  options.given["seed"] = options.common.seed;
  const Json given = options.given;
  const std::optional<QualityBudget> quality = QualityOf(options);
  std::optional<CompressionRecord> run;
  if (like) TakeFromRun(run.emplace(ReadCompression(options.like)), options);
  if (quality) options.given.erase("budget");  // that of --like
  CompressionSettings settings = SettingsFromJson(options.given, "");
  settings.arithmetic.device = options.common.device;
  settings.arithmetic.group = options.common.group;
  RefuseIdleOptions(settings, GivenIn(given));

  Progress progress(!options.common.json);
  const CompressionRecord record = quality ? CompressTo(*quality, options, settings, progress)
                                           : CompressModel(options.paths, settings, progress);
  if (run) WarnOfDifferences(*run, record);
  WriteStdout(options.common.json ? JsonText(ToJson(record)) : Summary(record, options.paths.out.string()));
}

}  // namespace

Subcommand CompressCommand() {
  auto options = std::make_shared<CompressOptions>();
  return {
      .name = "compress",
      .help = "Compress a checkpoint to an exact budget and write it packed",
      .arguments = {{"model", &options->paths.model,
                     "Checkpoint directory; with --like only where it is another one", false},
                    {"out", &options->paths.out,
                     "Packed checkpoint, a new directory (or that of a stopped run); with --coding gguf also one FILE.gguf", false},
                    {"--like", &options->like,
                     "Packed checkpoint or FILE.gguf: model, texts and all options are those of its compression, but for "
                     "what is given here",
                     false}},
      .flags = {{CompressionOptionTable(), &options->given},
                {QualityOptionTable(), &options->quality},
                CommonFlags(options->common)},
      .run = [options] { Compress(*options); }};
}

}  // namespace mica
