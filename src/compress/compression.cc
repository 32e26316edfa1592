#include "compress/compression.h"

#include <fmt/format.h>

#include <cmath>
#include <future>
#include <optional>
#include <stop_token>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/output.h"
#include "base/sha256.h"
#include "base/units.h"
#include "compress/coder/later.h"
#include "compress/plan.h"
#include "device/memory_plan.h"
#include "model/fingerprint.h"
#include "model/vocabulary.h"
#include "model/window.h"
#include "ops/instruction_set.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

// The settings with what follows from the model: the window, where none is given, and the type of scales.
CompressionSettings ForModel(CompressionSettings settings, const ModelWeights& weights) {
  settings.calibration.seqlen = WindowTokens(settings.calibration.seqlen, weights.config());
  const std::string name = LinearTensorName(*weights.config().family, 0, LinearKind::kQ);
  const TensorView* tensor = weights.checkpoint().Find(WeightName(name));
  if (tensor == nullptr) return settings;
  const DType dtype = tensor->integers != nullptr ? tensor->integers->scale_dtype : tensor->dtype;
  if (dtype == DType::kBF16) settings.compressed_tensors.scale_type = ScaleType::kBF16;
  return settings;
}

}  // namespace

Compression::Compression(const CompressionPaths& paths, const CompressionSettings& settings, Progress& progress)
    : paths_(paths),
      place_(PlaceOf(paths.out, settings.coding)),
      progress_(progress),
      weights_(ModelWeights::Open(paths.model)),
      settings_(ForModel(settings, weights_)),
      coder_(MakeCoder(settings_, weights_.config())),
      ends_(weights_, settings_, coder_.get()),
      format_(MakeOutputFormat(settings_, weights_, paths.model, *coder_, ends_, place_)) {}

// Everything that can be known before anything is written.
void Compression::Check() {
  CheckModel();
  calibration_ =
      DrawCalibration(settings_.calibration, OpenTokenizer(paths_.model, config()), config().model_type);
  CheckTokens(config(), calibration_->ids);
  if (!paths_.statistics.empty()) CheckStatisticsPath();
  Describe();
  const Placement placement = PlaceActivations(settings_, config());
  CheckBudget();
  Take(placement);
}

void Compression::CheckModel() const {
  CheckSettings(settings_);
  if (weights_.packed())
    Fail("{}: is a packed checkpoint already; give the original one", paths_.model.string());
  if (settings_.coding == Coding::kCompressedTensors)
    CheckCompressedTensors(settings_.compressed_tensors, settings_.fixed.group_size, config());
}

void Compression::CheckBudget() {
  overhead_.emplace(weights_, *coder_, ends_, settings_.budget.target == BudgetTarget::kFileBytes);
  coder_->CheckBudget(format_ ? Besides() : overhead_->Least());
}

void Compression::Take(const Placement& placement) {
  rest_ = placement.rest;
  planned_bytes_ = placement.plan.total();
  const Device device = settings_.arithmetic.device;
  if (device.is_cuda() || !group().alone()) {
    LogInfo("compressing takes about {}{}", placement.plan.Describe(),
            rest_ == device ? "" : "; the activations of all tokens rest on the processor");
  }
}

// What the leading rank has said for itself, of the others.
void Compression::DescribeOtherRanks() const {
  const Device device = settings_.arithmetic.device;
  const std::vector<std::vector<double>> plans = group().Gather(std::vector<double>{
      static_cast<double>(planned_bytes_), static_cast<double>(AvailableMemory(device)), rest_ == device ? 1.0 : 0.0});
  for (size_t r = 1; r < plans.size(); ++r) {
    LogInfo("compressing takes about {} of the {} that are free on rank {}{}", FormatBytes(plans[r][0]),
            FormatBytes(plans[r][1]), r, plans[r][2] == 1 ? "" : "; the activations of all tokens rest on the processor");
  }
}

BudgetReach Compression::Reaching() {
  CheckModel();
  const Reach reach = coder_->ReachOfModel();
  if (settings_.budget.target != BudgetTarget::kFileBytes) return {reach.least, reach.most, 1};
  overhead_.emplace(weights_, *coder_, ends_, true);
  const uint64_t besides = format_ ? Besides().least : overhead_->Least().least;
  const double bytes = static_cast<double>(coder_->PlannedWeights()) / 8;  // of a bit for each
  return {std::ceil(static_cast<double>(besides) + reach.least * bytes),
          std::floor(static_cast<double>(besides) + reach.most * bytes), bytes};
}

CompressionNeeds Compression::Needs() {
  CheckModel();
  CheckBudget();
  return {.disk_bytes = EstimatedMatrixBytes(settings_, config()) + ends_.EstimatedBytes(),
          .statistics_bytes = static_cast<double>(EstimatedStatisticsBytes(settings_, config())),
          .memory = PlaceActivations(settings_, config()).plan};
}

Identity Compression::Which() {
  CheckAndIdentify();
  return CompressionIdentity(record_);
}

CompressionRecord Compression::Run() {
  CheckAndIdentify();
  std::optional<CompressionRecord> finished;
  if (group().leads()) finished = FinishedRun();
  if (!group().Broadcast(0, finished ? "finished" : "").empty()) return finished.value_or(CompressionRecord());
  Begin();
  if (!group().leads()) return Work();
  try {
    return Work();
  } catch (const Interrupted&) {
    // Other ranks end with this one: nothing more is said to them.
    if (writing_.valid()) writing_.get();
    if (solved_) {
      WriteLayer(*solved_);
      writing_.get();
    }
    throw;
  } catch (const std::exception&) {
    // Settings that cannot be met, or a model that cannot be read: a corrected command finds the place free.
    if (before_layers_.valid()) before_layers_.wait();
    if (!work_->Resumable()) work_->Discard();
    throw;
  }
}

// A file of statistics that is given must be one, or a new one in a directory that is there.
void Compression::CheckStatisticsPath() const {
  std::error_code code;
  if (fs::exists(paths_.statistics, code)) {
    LoadStatistics(paths_.statistics);
  } else {
    CheckOutput(paths_.statistics);
  }
}

OtherBytes Compression::Besides() {
  if (!format_) return overhead_->Besides(finished_);
  if (!format_bytes_) {
    CompressionRecord record = record_;
    record.model.fingerprint = std::string(64, '0');  // as many bytes as the real one
    format_bytes_ = format_->BytesBesides(record);
  }
  return {.expected = *format_bytes_, .least = *format_bytes_};
}

// What is known at once.
void Compression::Describe() {
  record_.program = ThisProgram();
  record_.settings.values = SettingsToJson(settings_);
  record_.model.path = paths_.model.string();
  record_.model.file_bytes = weights_.checkpoint().file_bytes();
  record_.calibration = calibration_->provenance;
}

// Check, and which model it is: each rank hashes some of its tensors beside what is checked.
void Compression::CheckAndIdentify() {
  std::stop_source stop;
  std::future<std::vector<std::string>> hashing = Later([this, token = stop.get_token()] {
    return TensorHashes(weights_, group().rank(), group().size(), token);
  });
  try {
    Check();
  } catch (...) {
    stop.request_stop();
    throw;
  }
  if (!group().alone()) DescribeOtherRanks();
  LogDebug("checked in {:.2f} s", MonotonicSeconds() - began_);
  progress_.Begin("fingerprint", 1, "files");
  // What a rank finds wrong with its tensors the first one says.
  Json mine;
  try {
    mine = hashing.get();
  } catch (const Error& error) {
    mine = error.what();
  }
  std::vector<std::string> hashes;
  for (size_t r = 0; r < group().size(); ++r) {
    const Json of_rank = Json::parse(group().Broadcast(r, mine.dump()));
    if (of_rank.is_string()) throw Error(of_rank.get<std::string>());
    hashes.resize(of_rank.size());
    for (size_t i = 0; i < hashes.size(); ++i) {
      if (const auto hash = of_rank[i].get<std::string>(); !hash.empty()) hashes[i] = hash;
    }
  }
  record_.model.fingerprint = ModelFingerprint(weights_, hashes);
  progress_.Advance(1);
  progress_.End();
}

void Compression::Begin() {
  if (group().leads()) {
    CheckDisk(coder_->LeastBits(ends_.EstimatedBytes()), ends_.EstimatedBytes());
    lock_ = WorkDirectory::Lock(place_.directory);
  }
  // A stopped run goes on where its arithmetic is that of the layers which are finished.
  Identity identity = CompressionIdentity(record_);
  identity.Add("device", settings_.arithmetic.device.Describe());
  identity.Add("instruction set", InstructionSet());
  work_.emplace(place_.directory, identity, shards(), !format_, group());
  const std::string warning = CalibrationWarning(*calibration_, InputCols(config(), InputKind::kDown));
  if (!warning.empty()) LogWarning("{}", warning);
}

fs::path Compression::StatisticsFile(const Identity& identity) const {
  if (!paths_.statistics.empty()) return paths_.statistics;
  if (paths_.statistics_store.empty()) return work_->StatisticsPath();
  constexpr size_t kDigits = 12;  // of the SHA-256, enough to tell the files of a directory apart
  return paths_.statistics_store /
         fmt::format("statistics-{}.safetensors", Sha256Hex(ToJson(identity).dump()).substr(0, kDigits));
}

// Fills statistics_; the result is there when new ones are in their file.
std::future<void> Compression::ObtainStatistics() {
  StatisticsSettings wanted{.information = settings_.information,
                            .fisher = settings_.fisher,
                            .damping = settings_.damping,
                            .inputs_at_once = HasRoomBeside(),
                            .seed = settings_.seed,
                            .rest = rest_};
  coder_->Require(wanted);
  if (group().leads()) wanted.embedding_known = [this](const EndStatistics& ends) { BeginBeforeLayers(ends); };
  if (!group().leads()) {
    const std::string kept = group().Broadcast(0, std::string());
    if (kept.empty()) {
      statistics_ = CollectStatistics(weights_, *calibration_, wanted, settings_.arithmetic, progress_);
    } else {
      statistics_ = LoadStatistics(kept);
    }
    return {};
  }
  const Identity identity =
      StatisticsIdentity(record_.model.fingerprint.value(), *calibration_, wanted, settings_.arithmetic);
  const fs::path path = StatisticsFile(identity);
  if (fs::exists(path)) {
    Statistics kept = LoadStatistics(path);
    const std::vector<std::string> differences = Differences(kept.identity, identity, Unrecorded::kDiffers);
    if (differences.empty()) {
      statistics_ = std::move(kept);
      group().Broadcast(0, fs::absolute(path).string());
      return {};
    }
    LogInfo("{}: holds statistics of another kind ({}); collecting anew", path.string(),
            JoinClauses(differences));
  }
  group().Broadcast(0, std::string());
  statistics_ = CollectStatistics(weights_, *calibration_, wanted, settings_.arithmetic, progress_);
  statistics_.identity = identity;
  return std::async(std::launch::async, [this, path] { SaveStatistics(statistics_, path); });
}

}  // namespace mica
