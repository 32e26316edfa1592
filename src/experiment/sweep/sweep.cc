#include "experiment/sweep/sweep.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/context.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/output.h"
#include "base/system.h"
#include "base/terminal.h"
#include "base/units.h"
#include "compress/pipeline.h"
#include "eval/report/report.h"
#include "experiment/experiment_directory.h"
#include "experiment/quality/quality_search.h"
#include "model/sizes.h"
#include "model/weights.h"
#include "record/identity.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr const char* kOthersDirectory = "others";
constexpr const char* kDropped = ".dropped";  // packed files on their way out
// Phases of a compression that points with the same statistics share.
constexpr const char* kSharedPhases[] = {"calibrate", "fisher"};

double SharedSeconds(const CompressionRecord& record) {
  double seconds = 0;
  for (const char* phase : kSharedPhases) {
    if (const double* one = Find(record.time.phases, phase)) seconds += *one;
  }
  return seconds;
}

// What a point costs beside what it shares.
double OwnSeconds(const EvaluationRecord& result) {
  double seconds = result.time.total.value_or(0);
  if (const auto& record = result.model.compression)
    seconds += record->time.total.value_or(0) - SharedSeconds(*record);
  return seconds;
}

std::string FileName(const std::string& name) {
  std::string file;
  for (const char c : name) file += std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' ? c : '-';
  return file;
}

class Sweep {
 public:
  Sweep(const Experiment& experiment, bool quiet)
      : experiment_(experiment), plan_(PlanSweep(experiment)), quiet_(quiet) {}

  SweepSummary Run();

 private:
  fs::path Place(size_t point) const { return directory_->path() / plan_.points[point].name; }
  fs::path Packed(size_t point) const { return Place(point) / kPackedDirectory; }
  CompressionPaths Paths(size_t point) const {
    return {experiment_.evaluation.model, Packed(point), {}, directory_->path()};
  }
  bool WasDropped(size_t point) const;

  void CheckPoints();
  void RunPoint(size_t point);
  void Compress(size_t point);
  EvaluationRecord KeptResult(size_t point) const;
  void Drop(size_t point) const;
  void DropBeaten();
  void TellStatus(size_t point);
  void MeasureOthers();
  void Report();

  const Experiment& experiment_;
  SweepPlan plan_;
  const bool quiet_;
  std::optional<ExperimentDirectory> directory_;
  EvaluationRecord baseline_;
  SweepSummary summary_;
  std::vector<double> own_seconds_;  // of finished points
  std::string report_;
};

// All that can be known of the points before the first is begun, but for what the first one's check says.
void Sweep::CheckPoints() {
  for (SweepPoint& point : plan_.points) {
    ThrowIfInterrupted();
    NeedsOfPoint(experiment_, point);
  }
}

// The packed files of a point that is finished are gone, as the sweep wants it.
bool Sweep::WasDropped(size_t point) const {
  return plan_.keep != KeptFiles::kAll && fs::exists(Place(point) / kCompressedFile) &&
         !fs::exists(Packed(point));
}

// The result of a point whose packed files are gone, if it would be that of a run now.
EvaluationRecord Sweep::KeptResult(size_t point) const {
  const fs::path path = Place(point) / kCompressedFile;
  EvaluationRecord kept = EvaluationFromJson(ReadJson(path), path.string());
  if (!kept.model.compression)
    Fail("{}: says nothing of the compression; delete it to measure anew", path.string());
  Progress none(false);
  CompressionSettings settings = plan_.points[point].settings;
  // Of what was found for a promise.
  if (plan_.points[point].quality)
    settings.budget.value = kept.model.compression->settings.Budget().value.value_or(0);
  const Identity now = IdentityOfCompression(Paths(point), settings, none);
  std::vector<std::string> differences =
      Differences(CompressionIdentity(*kept.model.compression), now, Unrecorded::kDiffers);
  // The baseline is measured as the point would be.
  EvaluationRecord before = kept, measured = baseline_;
  for (EvaluationRecord* record : {&before, &measured}) {
    record->model.fingerprint.reset();
    record->reference.reset();
  }
  for (std::string& clause :
       Differences(EvaluationIdentity(before), EvaluationIdentity(measured), Unrecorded::kDiffers))
    differences.push_back(std::move(clause));
  if (experiment_.divergence != kept.reference.has_value()) differences.push_back("divergence");
  if (!differences.empty()) {
    Fail("{}: was made of something else: {}; repeat the same to go on, or give another \"directory\"",
         path.string(), JoinClauses(differences));
  }
  return kept;
}

void Sweep::Compress(size_t point) {
  directory_->Stage("compress " + plan_.points[point].name);
  directory_->Compress(Paths(point), plan_.points[point].settings, plan_.points[point].quality,
                       (fs::path(plan_.points[point].name) / kCompressedFile).string());
}

void Sweep::RunPoint(size_t point) {
  const std::string& name = plan_.points[point].name;
  EvaluationRecord result;
  std::error_code code;
  fs::remove_all(Place(point) / kDropped, code);  // of a call that was killed
  if (WasDropped(point)) {
    result = KeptResult(point);
  } else {
    MakeDirectories(Place(point));
    Compress(point);
    result =
        directory_->Evaluated("evaluate " + name, Packed(point), (fs::path(name) / kCompressedFile).string());
  }
  const Comparison comparison = Compare(baseline_, (directory_->path() / kBaselineFile).string(), result,
                                        (Place(point) / kCompressedFile).string(), false);
  WriteComparison(comparison, Place(point));
  SweepRun run = RunOf(comparison);
  run.name = name;
  run.values = plan_.points[point].values;
  if (run.figures.compress_seconds && result.model.compression) {
    const double shared = SharedSeconds(*result.model.compression);
    *run.figures.compress_seconds -= shared;
    summary_.shared_seconds = summary_.shared_seconds.value_or(0) + shared;
  }
  summary_.runs.push_back(std::move(run));
  own_seconds_.push_back(OwnSeconds(result));
}

// In one step, so that what is there is whole whenever the program is killed.
void Sweep::Drop(size_t point) const {
  std::error_code code;
  fs::rename(Packed(point), Place(point) / kDropped, code);
  fs::remove_all(Place(point) / kDropped, code);
}

// Packed files go that cannot come to the front any more: those of settings that another beats. Of either,
// all seeds must be known, since the mean of some may change.
void Sweep::DropBeaten() {
  if (plan_.keep == KeptFiles::kAll) return;
  if (plan_.keep == KeptFiles::kNone) {
    Drop(summary_.runs.size() - 1);
    return;
  }
  SumUp(summary_);
  std::map<std::string, size_t> planned;
  for (const SweepPoint& point : plan_.points) ++planned[SettingLabel(point.values)];
  std::vector<std::pair<std::optional<double>, std::optional<double>>> pairs;
  std::vector<const SweepSetting*> complete;
  for (const SweepSetting& setting : summary_.settings) {
    if (setting.runs.size() < planned[setting.label]) continue;
    complete.push_back(&setting);
    pairs.emplace_back(setting.mean.bytes, LossOf(summary_, setting.mean));
  }
  const std::vector<bool> front = ParetoFront(pairs);
  for (size_t i = 0; i < complete.size(); ++i) {
    if (front[i]) continue;
    for (const size_t run : complete[i]->runs) Drop(run);
  }
}

void Sweep::TellStatus(size_t point) {
  const size_t points = plan_.points.size();
  SweepStatus status{.point = {}, .finished = point, .points = points, .seconds_left = {}, .other = {}};
  if (point < points) status.point = plan_.points[point].name;
  if (!own_seconds_.empty()) {
    double sum = 0;
    for (const double seconds : own_seconds_) sum += seconds;
    status.seconds_left =
        sum / static_cast<double>(own_seconds_.size()) * static_cast<double>(points - point);
  }
  directory_->status().SetSweep(status);
  if (point == 0) return;
  const SweepFigures& last = summary_.runs.back().figures;
  std::string text = fmt::format("point {} of {} ({}): {}", point, points, plan_.points[point - 1].name,
                                 FormatBytes(last.bytes.value_or(0)));
  if (last.kl) text += fmt::format(", KL {:.5f}", *last.kl);
  if (last.retention) text += fmt::format(", retention {:.1f} %", *last.retention);
  if (point < points) text += fmt::format("; {} left", FormatDuration(status.seconds_left.value_or(0)));
  LogInfo("{}", text);
}

void Sweep::MeasureOthers() {
  for (const SweepOther& other : plan_.others) {
    EvaluationRecord result;
    std::string path = other.path.string();
    std::optional<double> bits;
    if (other.path.extension() == ".json") {
      result = AnyEvaluationFromJson(ReadJson(other.path), path);
    } else {
      const fs::path kept = fs::path(kOthersDirectory) / (FileName(other.name) + ".json");
      MakeDirectories(directory_->path() / kOthersDirectory);
      result = directory_->Evaluated("evaluate " + other.name, other.path, kept.string());
      path = (directory_->path() / kept).string();
      const ModelWeights weights = ModelWeights::Open(other.path);
      if (weights.checkpoint().gguf() != nullptr || weights.compressed_tensors()) {
        const PackedSizes sizes = MeasureOtherFormat(other.path);
        if (sizes.compressed_weights > 0)
          bits = static_cast<double>(sizes.compressed_matrix_bits) /
                 static_cast<double>(sizes.compressed_weights);
      }
    }
    const Comparison comparison =
        Compare(baseline_, (directory_->path() / kBaselineFile).string(), result, path, false);
    SweepOtherFile file{other.name, other.path.string(), FiguresBeside(comparison)};
    if (!file.figures.bits_per_weight) file.figures.bits_per_weight = bits;
    if (other.bytes > 0) file.figures.bytes = other.bytes;
    if (other.bits > 0) file.figures.bits_per_weight = other.bits;
    summary_.others.push_back(std::move(file));
  }
}

void Sweep::Report() {
  std::vector<bool> kept;
  for (size_t point = 0; point < plan_.points.size(); ++point)
    kept.push_back(fs::exists(Packed(point) / kCompressionFile));
  WriteJson(directory_->path() / kSweepFile, SweepJson(summary_, kept));
  for (const Language language : {Language::kEnglish, Language::kChinese}) {
    const Document document = BuildSweepReport(summary_, language);
    const std::string stem = language == Language::kEnglish ? "sweep" : "sweep.zh";
    WriteFileAtomically(directory_->path() / (stem + ".txt"), RenderText(document));
    WriteFileAtomically(directory_->path() / (stem + ".md"), RenderMarkdown(document));
    WriteFileAtomically(directory_->path() / (stem + ".html"), RenderHtml(document));
    if (language == Language::kEnglish)
      report_ =
          RenderText(document, std::min(kReportColumns, TerminalColumns(STDOUT_FILENO, kReportColumns)));
  }
}

SweepSummary Sweep::Run() {
  CheckPoints();
  directory_.emplace(experiment_, plan_.points.front().settings, quiet_);
  summary_.name = experiment_.name;
  summary_.model = experiment_.evaluation.model.string();
  TellStatus(0);
  for (const SweepPoint& point : plan_.points) {
    if (Find(point.values, "calib") != nullptr) directory_->CheckTexts(point.settings);
  }
  baseline_ = directory_->Evaluated("baseline", experiment_.evaluation.model, kBaselineFile);
  summary_.program = baseline_.program;
  summary_.shared_seconds = baseline_.time.total;
  if (baseline_.model.file_bytes) summary_.baseline.bytes = static_cast<double>(*baseline_.model.file_bytes);
  for (size_t point = 0; point < plan_.points.size(); ++point) {
    RunPoint(point);
    DropBeaten();
    TellStatus(point + 1);
  }
  SumUp(summary_);
  // Of a setting on the front whose files went in an earlier call, when other points beat it.
  if (plan_.keep == KeptFiles::kFront) {
    for (const SweepSetting& setting : summary_.settings) {
      if (!setting.front) continue;
      for (const size_t run : setting.runs) {
        if (!fs::exists(Packed(run) / kCompressionFile)) Compress(run);
      }
    }
  }
  MeasureOthers();
  directory_->Stage("report");
  Report();
  directory_->Stage("done");
  if (!quiet_) WriteStdout(report_);
  return summary_;
}

}  // namespace

CompressionNeeds NeedsOfPoint(const Experiment& experiment, SweepPoint& point) {
  return InContext(fmt::format("{}, point {}", experiment.file.string(), point.name), [&] {
    const CompressionPaths paths{
        experiment.evaluation.model, experiment.directory / point.name / kPackedDirectory, {}};
    if (point.quality) {
      if (point.quality->kind == QualityKind::kKl && !experiment.divergence)
        Fail("a budget of kind kl needs \"divergence\": true in \"evaluate\"");
      point.settings = FirstSettings(paths, point.settings, *point.quality);
    }
    point.settings.arithmetic.device = experiment.evaluation.device;
    point.settings.arithmetic.group = experiment.evaluation.group;
    Progress none(false);
    return NeedsOfCompression(paths, point.settings, none);
  });
}

SweepSummary RunSweep(const Experiment& experiment, bool quiet) { return Sweep(experiment, quiet).Run(); }

}  // namespace mica
