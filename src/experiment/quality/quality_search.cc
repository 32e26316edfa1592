#include "experiment/quality/quality_search.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/output.h"
#include "base/units.h"
#include "compress/output_place.h"
#include "eval/report/comparison.h"
#include "experiment/kept_result.h"
#include "experiment/quality/loss_law.h"
#include "io/text/datasets.h"
#include "record/identity.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr const char* kLock = ".lock";
constexpr const char* kMeasurement = "measurement";  // in the record
constexpr double kMostBits = 16;  // where a coding has no end of its own

// Bits per weight at which the coding has a divergence of about this much, on the models that we have
// measured; where to begin, no more.
struct KnownPoint {
  double bits, kl;
};
KnownPoint KnownOf(Coding coding) {
  switch (coding) {
    case Coding::kEntropy:
      return {3.05, 0.008};
    case Coding::kFixed:
      return {3.2, 0.022};
    case Coding::kGguf:
      return {3.4, 0.012};
    case Coding::kCompressedTensors:
      return {4.2, 0.014};
  }
  return {4, 0.01};
}
constexpr double kKlOverExcess = 1.3;
constexpr double kKlOfZeros = 0.03;  // half of the weights pruned, of the other half

double LikelyBits(const CompressionSettings& settings, const QualityBudget& budget) {
  const KnownPoint known = KnownOf(settings.coding);
  const double kl = budget.MostLoss() * (budget.kind == QualityKind::kKl ? 1 : kKlOverExcess);
  // Zeros leave fewer weights to code, and a loss of their own that bits do not mend.
  const double of_zeros = kKlOfZeros * std::pow(2 * settings.sparsity.rate, 2);
  const double left = std::max(kl - of_zeros, 0.2 * kl);
  return known.bits + std::log(known.kl / left) / std::log(kUsualFactor);
}

// The measure of the budget that the search moves: bytes where embedding and head take part, else stored bits.
BudgetTarget TargetOf(const CompressionSettings& settings) {
  return settings.coding == Coding::kGguf && settings.embedding_bits == kSharedBits ? BudgetTarget::kFileBytes
                                                                                    : BudgetTarget::kBitsPerWeight;
}

// Budgets as bits per weight, which the law is in.
class Scale {
 public:
  Scale(const CompressionPaths& paths, CompressionSettings settings) : target_(TargetOf(settings)) {
    Progress none(false);
    settings.budget = {target_, 4};
    const BudgetReach reach = ReachOfBudget(paths, settings, none);
    per_bit_ = reach.per_bit;
    least = reach.least / per_bit_;
    most = std::isinf(reach.most) ? kMostBits : reach.most / per_bit_;
    if (target_ == BudgetTarget::kBitsPerWeight) {
      // Of headers and rounding: what is named is possible.
      least = std::ceil(least * 1000) / 1000;
      most = std::floor(most * 1000) / 1000;
    }
  }
  Budget At(double bits) const {
    if (target_ != BudgetTarget::kFileBytes) return {target_, bits};
    return {target_, std::round(bits * per_bit_)};
  }

  double least = 0, most = 0;

 private:
  BudgetTarget target_;
  double per_bit_ = 1;
};

// The loss of the text that fares worst.
struct Measured {
  double loss = 0;
  std::string set;
};

Measured LossOf(const QualityBudget& budget, const EvaluationRecord& result, const EvaluationRecord* baseline) {
  Measured worst;
  bool first = true;
  for (const auto& [name, set] : result.sets) {
    std::optional<double> loss;
    if (budget.kind == QualityKind::kKl) {
      if (set.divergence) loss = set.divergence->kl;
    } else if (const SetRecord* before = Find(baseline->sets, name)) {
      const std::optional<double> a = LogPerplexity(*before), b = LogPerplexity(set);
      if (a && b) loss = *b - *a;
    }
    if (!loss || !std::isfinite(*loss)) Fail("{}: could not be measured, so that nothing can be promised on it", name);
    if (first || *loss > worst.loss) worst = {*loss, name};
    first = false;
  }
  return worst;
}

// In the budget's own measure.
double Shown(QualityKind kind, double loss) {
  return kind == QualityKind::kKl ? loss : 100 * (1 - std::expm1(loss));
}

class Search {
 public:
  Search(const QualityTask& task, Progress& progress)
      : task_(task), progress_(progress), evaluation_(task.evaluation) {
    if (!evaluation_.passed && !evaluation_.reference.empty()) evaluation_.passed = PassedWindows::InFreeMemory();
  }

  CompressionRecord Run();

 private:
  OutputPlace Place() const { return PlaceOf(task_.paths.out, task_.settings.coding); }
  fs::path TrialPath(size_t trial) const {
    return task_.work / fmt::format("try-{}{}", trial + 1, Place().one_file ? ".gguf" : "");
  }
  fs::path TrialResult(size_t trial) const { return task_.work / fmt::format("try-{}.result.json", trial + 1); }
  void Stage(const std::string& what) const {
    if (task_.stage) task_.stage(what);
  }

  std::optional<CompressionRecord> FoundBefore();
  Evaluation Original();
  void MeasureBaseline(Evaluation& original);
  void Try(double bits, const Scale& scale);
  QualityRecord Describe(size_t taken) const;
  CompressionRecord Take(size_t taken);

  const QualityTask& task_;
  Progress& progress_;
  EvaluationRequest evaluation_;
  Identity measurement_;  // how, and on what, the promise is measured
  std::optional<EvaluationRecord> baseline_;
  std::vector<Trial> trials_;
  std::vector<std::string> sets_;  // the worst of each trial
  std::vector<QualityTrial> records_;
  std::vector<CompressionRecord> compressions_;
  LossGoal goal_;
};

// The record of a file that an earlier call has taken for the same promise.
std::optional<CompressionRecord> Search::FoundBefore() {
  const fs::path path = Place().record;
  if (!fs::exists(path)) return std::nullopt;
  const CompressionRecord found = CompressionFromJson(ReadJson(path), path.string(), WrongTypes::kRefuse);
  const BudgetRecord budget = found.settings.Budget();
  const bool same = found.quality && found.quality->kind == QualityName(task_.budget.kind) &&
                    found.quality->aimed == task_.budget.value && budget.value;
  if (!same) {
    Fail("{}: is the record of a run that did not aim at a {}; give a new name, or delete it", path.string(),
         task_.budget.Describe());
  }
  const Json* const before = found.quality->other.contains(kMeasurement) ? &found.quality->other[kMeasurement] : nullptr;
  const std::vector<std::string> differences =
      Differences(IdentityFromJson(before != nullptr ? *before : Json::object(), path.string()), measurement_,
                  Unrecorded::kDiffers);
  if (!differences.empty()) {
    Fail("{}: was measured in another way: {}; give a new name, or delete it", path.string(), JoinClauses(differences));
  }
  CompressionSettings settings = task_.settings;
  settings.budget = {TargetOf(settings), *budget.value};
  CompressModel(task_.paths, settings, progress_);  // which says what differs where anything does
  return found;
}

// The original model, to be measured on the texts, none of which is calibrated on.
Evaluation Search::Original() {
  EvaluationRequest request = evaluation_;
  request.model = task_.paths.model;
  request.reference.clear();
  Evaluation original(request);
  for (const DataSpec& calibration : task_.settings.calibration.sources) {
    if (request.force) break;
    const LoadedText loaded = LoadText(calibration);
    CalibrationSource source;
    source.sha256 = loaded.fingerprint;
    source.content_sha256 = loaded.content_fingerprint;
    for (const auto& [name, set] : original.Describe().sets) {
      if (!SameText(source, set.data)) continue;
      Fail("{}: is calibration text and evaluation text ({}), so that what is promised on it would flatter the model; "
           "use another file",
           calibration.path.string(), set.data.path.value_or(name));
    }
  }
  measurement_ = MeasurementIdentity(original.Describe());
  measurement_.Add("max windows", original.Describe().settings.max_windows);
  return original;
}

void Search::MeasureBaseline(Evaluation& original) {
  if (task_.budget.kind != QualityKind::kRetention) return;
  Stage("baseline");
  baseline_ = MeasuredOnce(original, task_.baseline.empty() ? task_.work / "baseline.json" : task_.baseline, progress_);
}

void Search::Try(double bits, const Scale& scale) {
  const size_t trial = trials_.size();
  CompressionSettings settings = task_.settings;
  settings.budget = scale.At(bits);
  QualityTrial record;
  record.budget = settings.budget.value;
  record.predicted = PredictedLoss(trials_, goal_, bits);
  Stage(fmt::format("compress, try {}", trial + 1));
  CompressionPaths paths = task_.paths;
  paths.out = TrialPath(trial);
  if (paths.statistics.empty() && paths.statistics_store.empty()) paths.statistics_store = task_.work;
  compressions_.push_back(CompressModel(paths, settings, progress_));
  Stage(fmt::format("evaluate, try {}", trial + 1));
  EvaluationRequest request = evaluation_;
  request.model = paths.out;
  Evaluation evaluation(request);
  const EvaluationRecord result = MeasuredOnce(evaluation, TrialResult(trial), progress_);
  const Measured measured = LossOf(task_.budget, result, baseline_ ? &*baseline_ : nullptr);
  record.measured = measured.loss;
  if (const auto& bytes = compressions_.back().file.bytes_after) record.bytes = static_cast<double>(*bytes);
  LogInfo("try {}, --{} {:g}: {} {:.5g} on {}, {}; asked for {}", trial + 1, BudgetOption(settings.budget.target),
          settings.budget.value, QualityName(task_.budget.kind), Shown(task_.budget.kind, measured.loss), measured.set,
          FormatBytes(record.bytes.value_or(0)), task_.budget.Describe());
  trials_.push_back({bits, measured.loss});
  sets_.push_back(measured.set);
  records_.push_back(record);
}

QualityRecord Search::Describe(size_t taken) const {
  QualityRecord quality;
  quality.kind = QualityName(task_.budget.kind);
  quality.aimed = task_.budget.value;
  quality.measured = Shown(task_.budget.kind, trials_[taken].loss);
  quality.set = sets_[taken];
  if (const auto& predicted = records_[taken].predicted) quality.predicted = Shown(task_.budget.kind, *predicted);
  quality.trials = records_;
  quality.other[kMeasurement] = ToJson(measurement_);
  return quality;
}

// Puts what is taken into its place: the record first, so that what appears there says what it is.
CompressionRecord Search::Take(size_t taken) {
  CompressionRecord record = compressions_[taken];
  record.quality = Describe(taken);
  const fs::path from = TrialPath(taken);
  WriteJson(RecordOf(from), ToJson(record));
  const OutputPlace place = Place();
  std::error_code code;
  if (!task_.result.empty()) {
    Json result = ReadJson(TrialResult(taken));
    result["model"]["path"] = task_.paths.out.string();
    result["model"]["compression"] = ToJson(record);
    WriteJson(task_.result, result);
  }
  if (place.one_file) {
    fs::rename(from, place.gguf, code);
    if (!code) fs::rename(RecordOf(from), place.record, code);
  } else {
    fs::remove(task_.paths.out, code);  // an empty directory that was there
    fs::rename(from, task_.paths.out, code);
  }
  if (code)
    Fail("{}: cannot be moved to {}: {}", from.string(), task_.paths.out.string(), code.message());
  fs::remove_all(task_.work, code);
  return record;
}

CompressionRecord Search::Run() {
  Evaluation original = Original();
  if (std::optional<CompressionRecord> found = FoundBefore()) {
    std::error_code code;
    fs::remove_all(task_.work, code);  // which a killed call may not have come to
    return *found;
  }
  if (!Place().one_file && fs::exists(task_.paths.out) && !HoldsNothing(task_.paths.out))
    Fail("{}: is not empty; give a new directory", task_.paths.out.string());
  const Scale scale(task_.paths, task_.settings);
  goal_ = {task_.budget.MostLoss(), scale.least, scale.most};
  const bool is_new = !fs::exists(task_.work);
  const auto began = [&] { return fs::exists(TrialPath(0)); };
  MakeDirectories(task_.work);
  std::optional<FileLock> lock(std::in_place, task_.work / kLock, task_.work);
  RemoveTemporaryFiles(task_.work);
  try {
    MeasureBaseline(original);
    const double first = LikelyBits(task_.settings, task_.budget);
    while (const std::optional<double> bits = NextBits(trials_, goal_, first)) Try(*bits, scale);
  } catch (const Interrupted&) {
    throw;
  } catch (const std::exception&) {
    // A command that cannot be met leaves nothing behind.
    std::error_code code;
    if (is_new && !began()) fs::remove_all(task_.work, code);
    throw;
  }
  const std::optional<size_t> best = BestTrial(trials_, goal_);
  if (!best) {
    const auto least = std::min_element(trials_.begin(), trials_.end(),
                                        [](const Trial& a, const Trial& b) { return a.loss < b.loss; });
    const Budget budget = scale.At(least->bits);
    const std::string set = sets_[static_cast<size_t>(least - trials_.begin())];
    const bool at_the_end = least->bits >= scale.most - 1e-9;
    std::error_code code;
    lock.reset();
    fs::remove_all(task_.work, code);
    Fail("a {} cannot be reached{}: the best is {:.5g} (on {}), with --{} {:g}{}", task_.budget.Describe(),
         at_the_end ? "" : fmt::format(" in {} compressions", trials_.size()), Shown(task_.budget.kind, least->loss), set,
         BudgetOption(budget.target), budget.value,
         at_the_end ? ", the most that these settings can store" : "; ask for less, or for fewer zeros");
  }
  return Take(*best);
}

}  // namespace

CompressionSettings FirstSettings(const CompressionPaths& paths, CompressionSettings settings,
                                  const QualityBudget& budget) {
  const Scale scale(paths, settings);
  settings.budget = scale.At(*NextBits({}, {budget.MostLoss(), scale.least, scale.most}, LikelyBits(settings, budget)));
  return settings;
}

CompressionRecord CompressToQuality(const QualityTask& task, Progress& progress) {
  return Search(task, progress).Run();
}

std::string QualityText(const QualityRecord& quality) {
  const bool kl = quality.kind != std::optional<std::string>("retention");
  const double aimed = quality.aimed.value_or(0), measured = quality.measured.value_or(0);
  const size_t compressions = quality.trials.size();
  std::string text =
      kl ? fmt::format("aimed at a KL of at most {:g}: {:.5f}", aimed, measured)
         : fmt::format("aimed at a retention of at least {:g} %: {:.2f} %", aimed, measured);
  text += fmt::format(" on {}, {} compression{}", quality.set.value_or("?"), compressions, compressions == 1 ? "" : "s");
  if (quality.predicted) {
    // Of a retention, of what is lost.
    const auto loss = [&](double value) { return kl ? value : 100 - value; };
    text += fmt::format("; the law had said {:.5g}, which was {:+.1f} % off", *quality.predicted,
                        100 * (loss(measured) / loss(*quality.predicted) - 1));
  }
  return text;
}

}  // namespace mica
