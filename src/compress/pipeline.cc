#include "compress/pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <future>
#include <memory>
#include <optional>
#include <utility>

#include "base/context.h"
#include "base/error.h"
#include "base/file.h"
#include "base/finite.h"
#include "base/log.h"
#include "base/output.h"
#include "base/sha256.h"
#include "base/system.h"
#include "base/units.h"
#include "compress/budget/demands.h"
#include "compress/calibrate/drift.h"
#include "compress/calibrate/head_pass.h"
#include "compress/calibrate/layer_pass.h"
#include "compress/coder/later.h"
#include "compress/coders.h"
#include "compress/curvature/drift_compensation.h"
#include "compress/ends.h"
#include "compress/file_overhead.h"
#include "compress/inform/statistics.h"
#include "compress/output_format.h"
#include "compress/output_place.h"
#include "compress/plan.h"
#include "compress/work_directory.h"
#include "device/cuda.h"
#include "device/device.h"
#include "format/fixed/layout.h"
#include "io/container/safetensors.h"
#include "io/container/shard_index.h"
#include "io/packed/packed_checkpoint.h"
#include "model/companions.h"
#include "model/fingerprint.h"
#include "model/gpu_record.h"
#include "model/packed.h"
#include "model/read_ahead.h"
#include "model/sizes.h"
#include "model/vocabulary.h"
#include "model/window.h"
#include "ops/codes/codes.h"
#include "ops/instruction_set.h"
#include "ops/linalg/arrange.h"
#include "record/compression.h"
#include "record/identity.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

// What a finished shard says of one of its layer's matrices.
const MatrixRecord& MatrixOf(const ShardRecord& shard, LinearKind kind) {
  const MatrixRecord* record = shard.layer ? Find(shard.layer->linears, LinearName(kind)) : nullptr;
  if (record == nullptr)
    Fail("a record of the stopped run says nothing of {}; delete the directory to begin anew",
         LinearName(kind));
  return *record;
}

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

class Compression {
 public:
  Compression(const CompressionPaths& paths, const CompressionSettings& settings, Progress& progress)
      : paths_(paths),
        place_(PlaceOf(paths.out, settings.coding)),
        progress_(progress),
        weights_(ModelWeights::Open(paths.model)),
        settings_(ForModel(settings, weights_)),
        coder_(MakeCoder(settings_, weights_.config())),
        ends_(weights_, settings_, coder_.get()),
        format_(MakeOutputFormat(settings_, weights_, paths.model, *coder_, ends_, place_)) {}

  void Check();
  Identity Which();
  CompressionNeeds Needs();
  BudgetReach Reaching();
  CompressionRecord Run();

 private:
  const ModelConfig& config() const { return weights_.config(); }
  const Group& group() const { return *settings_.arithmetic.group; }
  // Those before the layers, one a layer, that of the head.
  size_t shards() const { return kShardsBeforeLayers + config().layers + (ends_.has_head() ? 1 : 0); }

  OtherBytes Besides();

  void CheckModel() const;
  void CheckBudget();
  void Place();
  void CheckStatisticsPath() const;
  fs::path StatisticsFile(const Identity& identity) const;
  void Describe();
  void Identify();
  std::optional<CompressionRecord> FinishedRun() const;
  void Begin();
  CompressionRecord Work();
  void CheckDisk(double matrix_bits, double end_bytes) const;
  std::future<void> ObtainStatistics();
  void FinishBeforeLayers();
  Array StoredEmbedding() const;
  ShardRecord WriteHead(const ResidualStream& stream, const Original& original);
  void CompressLayer(LayerWeights& weights, ResidualStream& stream, ResidualStream* original);
  void FinishLayer();
  void WriteLayer(size_t layer);
  void SettleWriting();
  void PassFinishedLayer(size_t layer, ResidualStream& stream, ResidualStream* original);
  TokenWeights WeightsOfLayer(size_t layer) const;
  ShardRecord WriteShard(size_t number, const PackedShard& shard, std::optional<LayerRecord> layer);
  Checkpoint OpenFinished() const;
  void Clear() const;
  void FinishPacked();
  CompressionRecord Finish();

  const CompressionPaths paths_;
  const OutputPlace place_;
  Progress& progress_;
  const ModelWeights weights_;
  const CompressionSettings settings_;
  Statistics statistics_;  // what the coder packs refers to it until the coder is gone
  const std::unique_ptr<Coder> coder_;
  const Ends ends_;
  const std::unique_ptr<OutputFormat> format_;  // none where the run ends in a packed checkpoint
  std::optional<FileOverhead> overhead_;
  std::optional<uint64_t> format_bytes_;  // of format_, besides the matrices of decoder layers
  std::optional<Calibration> calibration_;
  Device rest_;                     // where the activations of all tokens are between uses
  CompressionRecord record_;        // what it says of the run from the start, and in the end everything
  std::unique_ptr<FileLock> lock_;  // of the output directory
  std::optional<WorkDirectory> work_;
  std::vector<ShardRecord> finished_;
  std::optional<size_t> solved_;      // layer whose matrices are solved and may still be at their packing
  std::optional<size_t> written_;     // the layer before it, which belongs to finished_
  std::future<ShardRecord> writing_;  // of that, on the rank that writes
  double began_ = MonotonicSeconds();
  const Ordered<double> phases_before_ = progress_.PhaseSeconds();  // of what else the progress has shown
};

// Everything that can be known before anything is written.
void Compression::Check() {
  CheckModel();
  calibration_ =
      DrawCalibration(settings_.calibration, OpenTokenizer(paths_.model, config()), config().model_type);
  CheckTokens(config(), calibration_->ids);
  if (!paths_.statistics.empty()) CheckStatisticsPath();
  Describe();
  CheckBudget();
  Place();
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

void Compression::Place() {
  const Placement placement = PlaceActivations(settings_, config());
  rest_ = placement.rest;
  const Device device = settings_.arithmetic.device;
  if (device.is_cuda()) {
    LogInfo("compressing takes about {}{}", placement.plan.Describe(),
            rest_ == device ? "" : "; the activations of all tokens rest on the processor");
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
  return {.disk_bytes = EstimatedMatrixBytes(settings_, config()) + ends_.EstimatedBytes() +
                        static_cast<double>(EstimatedStatisticsBytes(settings_, config())),
          .memory = PlaceActivations(settings_, config()).plan};
}

Identity Compression::Which() {
  Check();
  Identify();
  return CompressionIdentity(record_);
}

CompressionRecord Compression::Run() {
  Check();
  std::optional<CompressionRecord> finished;
  if (group().leads()) {
    Identify();
    finished = FinishedRun();
  }
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
    if (!work_->Resumable()) work_->Discard();
    throw;
  }
}

CompressionRecord Compression::Work() {
  std::future<void> checked = Later([this] {
    if (group().leads()) ends_.Check();
  });
  // Statistics leave the processors idle where there is a GPU; where not, what fails should fail before hours
  // are spent.
  if (!settings_.arithmetic.device.is_cuda()) checked.get();
  std::future<void> saved = ObtainStatistics();
  if (checked.valid()) checked.get();
  // Types of embedding and head may be planned with those of the matrices; headers of packed checkpoints are
  // known better once the first is written.
  if (!format_) FinishBeforeLayers();
  try {
    coder_->Plan(statistics_, Besides());
  } catch (const Error&) {
    // Settings that cannot be met: statistics alone are nothing to go on with.
    if (saved.valid()) saved.wait();
    if (group().leads() && !work_->HasFinished(kShardsBeforeLayers + 1)) work_->Discard();
    throw;
  }
  if (format_) FinishBeforeLayers();
  CheckDisk(coder_->planned_bits_per_weight() * static_cast<double>(CompressedWeights(config())),
            static_cast<double>(Besides().least));

  progress_.Begin("compress",
                  (config().layers * kLayerSweeps + (ends_.has_head() ? 1 : 0)) * calibration_->tokens(),
                  "tokens");
  const Device device = settings_.arithmetic.device;
  // Which begins with the errors of the embedding that readers get.
  ResidualStream stream = [&] {
    const Array table = StoredEmbedding();
    return ResidualStream(
        [&](std::span<const int32_t> ids, Tensor out) {
          GatherRows(table.view(), ids, out);
          if (config().embedding_factor != 1.0f) ScaleValues(config().embedding_factor, out, out);
        },
        config().hidden, *calibration_, ResidualStream::kPortionTokens, settings_.arithmetic, rest_);
  }();
  std::optional<ResidualStream> original;
  if (settings_.drift.compensation > 0) original.emplace(weights_, *calibration_, 1, settings_.arithmetic, rest_);
  ResidualStream* const original_stream = original ? &*original : nullptr;
  std::optional<ReadAhead<LayerWeights>> ahead;
  for (size_t l = 0; l < config().layers; ++l) {
    if (std::optional<ShardRecord> finished = work_->Finished(kShardsBeforeLayers + l + 1)) {
      finished_.push_back(std::move(*finished));
      for (const InputKind input : kInputKinds) {
        std::vector<const MatrixRecord*> stage;
        for (const LinearKind kind : kLinearKinds) {
          if (InputOf(kind) == input) stage.push_back(&MatrixOf(finished_.back(), kind));
        }
        coder_->Replay(stage);
      }
      PassFinishedLayer(l, stream, original_stream);
      continue;
    }
    // The last layer makes the budget exact: all before it must be known.
    if (solved_ && l + 1 == config().layers) FinishLayer();
    SettleWriting();
    coder_->SetOtherBytes(l, Besides(), MatrixBytes(finished_));
    if (!ahead) {
      // Finished layers come before all others.
      ahead.emplace(config().layers - l, device, [this, device, l](size_t i) {
        auto layer = std::make_unique<LayerWeights>(weights_, l + i, device);
        layer->ReadAhead();
        return layer;
      });
    }
    const std::unique_ptr<LayerWeights> layer = ahead->Next();
    MICA_CHECK(layer->index() == l);
    CompressLayer(*layer, stream, original_stream);
    if (saved.valid()) saved.get();
  }
  if (solved_) FinishLayer();
  SettleWriting();
  if (ends_.has_head()) {
    const std::optional<ShardRecord> head = work_->Finished(shards());
    finished_.push_back(head ? *head
                             : WriteHead(stream, {nullptr, original_stream, settings_.drift.windows}));
  }
  progress_.End();
  return group().leads() ? Finish() : CompressionRecord();
}

// The shard before the layers', unless an earlier run has written it.
void Compression::FinishBeforeLayers() {
  const std::optional<ShardRecord> finished = work_->Finished(kShardsBeforeLayers);
  if (finished) return finished_.push_back(*finished);
  ShardRecord record;
  if (group().leads())
    record = WriteShard(kShardsBeforeLayers, ends_.WithoutHead(statistics_.ends), std::nullopt);
  finished_.push_back(work_->Share(record));
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

// Says which run this is.
void Compression::Identify() {
  progress_.Begin("fingerprint", 1, "files");
  record_.model.fingerprint = ModelFingerprint(weights_);
  progress_.Advance(1);
  progress_.End();
}

// Nothing when `out` holds no finished run; throws Error when that was of another kind. What the run may not
// have come to remove goes.
std::optional<CompressionRecord> Compression::FinishedRun() const {
  const fs::path& path = place_.record;
  std::error_code code;
  if (!fs::exists(path, code) || (place_.one_file && !fs::exists(place_.gguf, code))) return std::nullopt;
  CompressionRecord found = CompressionFromJson(ReadJson(path), path.string(), WrongTypes::kRefuse);
  const std::vector<std::string> differences =
      Differences(CompressionIdentity(found), CompressionIdentity(record_), Unrecorded::kDiffers);
  if (!differences.empty()) {
    Fail("{}: {} a finished run of another kind: {}; give a new {}, or delete it", paths_.out.string(),
         place_.one_file ? "is of" : "holds", JoinClauses(differences),
         place_.one_file ? "name" : "directory");
  }
  if (!found.file.bytes_after)
    Fail("{}: does not say how many bytes were written; delete it to begin anew", path.string());
  if (const uint64_t bytes = OpenFinished().file_bytes(); bytes != *found.file.bytes_after) {
    Fail("{}: weight files have {} bytes, {} when the run was finished; delete it to begin anew",
         paths_.out.string(), bytes, *found.file.bytes_after);
  }
  Clear();
  LogInfo("{}: was finished before with the same settings, texts and code", paths_.out.string());
  return found;
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

void Compression::CheckDisk(double matrix_bits, double end_bytes) const {
  // Another format is written beside the shards that it is made of.
  const double needed = (format_ ? 2 : 1) * (matrix_bits / 8 + end_bytes) +
                        static_cast<double>(kHeaderBytesPerMatrix * config().layers * kLinearKinds.size());
  double written = 0;
  if (fs::is_directory(place_.directory)) {
    for (const auto& entry : fs::directory_iterator(place_.directory)) {
      if (entry.path().extension() == ".safetensors") written += static_cast<double>(entry.file_size());
    }
  }
  fs::path disk = fs::absolute(place_.directory);
  while (!fs::exists(disk) && disk.has_relative_path()) disk = disk.parent_path();
  const auto available = static_cast<double>(FreeDiskBytes(disk));
  if (needed - written > available) {
    Fail(
        "{}: the packed checkpoint still needs {}, but only {} are free; free some space and run the same "
        "command again",
        paths_.out.string(), FormatBytes(needed - written), FormatBytes(available));
  }
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
                            .seed = settings_.seed,
                            .rest = rest_};
  coder_->Require(wanted);
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

Array Compression::StoredEmbedding() const {
  return ends_.StoredEmbedding(Checkpoint::Open(work_->ShardPath(kShardsBeforeLayers)));
}

// The streams: behind the last layer.
ShardRecord Compression::WriteHead(const ResidualStream& stream, const Original& original) {
  const HeadMoments moments =
      MeasureHeadInputs(weights_, stream, original, {}, settings_.arithmetic,
                        [&](uint64_t tokens) { progress_.Advance(tokens, "output head"); });
  return group().leads() ? WriteShard(shards(), ends_.Head(moments), std::nullopt) : ShardRecord();
}

// Solves a layer's matrices. They are packed beside the layer that follows, and FinishLayer takes them up
// when its last matrices are solved.
void Compression::CompressLayer(LayerWeights& weights, ResidualStream& stream, ResidualStream* original) {
  const size_t l = weights.index();
  DecoderLayer layer(weights, settings_.arithmetic);  // gets each matrix as it is solved
  std::optional<DecoderLayer> original_layer;         // gets each just before
  if (original != nullptr) original_layer.emplace(weights, settings_.arithmetic);
  const Original beside{original_layer ? &*original_layer : nullptr, original, settings_.drift.windows};
  const std::string position = fmt::format("layer {}/{}", l + 1, config().layers);
  double since = MonotonicSeconds();
  // Seconds since the last call, the device's work included; for the log.
  const auto took = [&] {
    if (!LogEnabled(LogLevel::kDebug)) return 0.0;
    Synchronize(settings_.arithmetic.device);
    const double before = std::exchange(since, MonotonicSeconds());
    return since - before;
  };
  const auto solve = [&](InputKind input, const InputMoments& moments) {
    const double swept = took();
    const std::string where = fmt::format("layer {}, inputs of {}", l, InputName(input));
    CheckFinite(moments.h, where + ", second moments");
    if (!moments.drift.empty()) CheckFinite(moments.drift, where + ", drift");
    if (!moments.residual.empty()) CheckFinite(moments.residual, where + ", drift of the stream");
    const auto factor = InContext(where, [&] {
      return std::make_shared<const DampedFactor>(moments.h, coder_->ColumnOrder(l, input),
                                                  settings_.damping);
    });
    const double factored = took();
    std::vector<StageMatrix> stage;
    for (const LinearKind kind : kLinearKinds) {
      if (InputOf(kind) != input) continue;
      ThrowIfInterrupted();
      progress_.Advance(0, fmt::format("{}, {}", position, LinearName(kind)));  // minutes in large models
      Array w = weights.Take(kind);
      if (original_layer) original_layer->SetLinear(kind, w.view());
      if (!moments.drift.empty()) {
        Array target(w.rows(), w.cols(), DType::kF32, w.device());
        CompensateDrift(w.view(), moments, *factor, settings_.drift.compensation, target.view(),
                        group());
        w = std::move(target);
      }
      CheckFinite(w.view(), LinearTensorName(*config().family, l, kind));
      stage.push_back({kind, std::move(w)});
    }
    const double aimed = took();
    coder_->Solve(l, {moments.h, factor}, stage);
    for (const StageMatrix& matrix : stage) layer.SetLinear(matrix.kind, matrix.weights.view());
    const double solved = took();
    if (solved_ && input == kInputKinds.back()) FinishLayer();
    LogDebug(
        "{}: sweep {:.3f} s, factor {:.3f} s, targets {:.3f} s, solved in {:.3f} s, packed before in {:.3f} "
        "s",
        where, swept, factored, aimed, solved, took());
  };
  PassLayer(layer, config(), stream, settings_.arithmetic, solve, beside, WeightsOfLayer(l),
            [&](uint64_t tokens) { progress_.Advance(tokens, position); });
  solved_ = l;
}

// Begins to write the layer that is solved.
void Compression::FinishLayer() {
  SettleWriting();
  written_ = std::exchange(solved_, std::nullopt);
  if (group().leads()) WriteLayer(*written_);
}

// Packs it and begins to write.
void Compression::WriteLayer(size_t l) {
  PackedShard shard;
  LayerRecord record{.layer = l, .matrix_bytes = {}, .linears = {}, .other = {}};
  for (CodedMatrix& coded : coder_->Collect(kLinearKinds.size())) {
    shard.Add(LinearTensorName(*config().family, l, coded.kind), std::move(coded.packed));
    record.linears.emplace_back(LinearName(coded.kind), std::move(coded.record));
  }
  record.matrix_bytes = shard.data_bytes();
  AddCopied(weights_, l, shard);
  writing_ = std::async(std::launch::async, [this, l, shard = std::move(shard), record = std::move(record)] {
    return WriteShard(kShardsBeforeLayers + l + 1, shard, record);
  });
}

void Compression::SettleWriting() {
  if (!written_) return;
  written_.reset();
  finished_.push_back(work_->Share(group().leads() ? writing_.get() : ShardRecord()));
}

void Compression::PassFinishedLayer(size_t l, ResidualStream& stream, ResidualStream* original) {
  DecoderLayer layer(LayerWeights(weights_, l), settings_.arithmetic);
  std::optional<DecoderLayer> original_layer;
  if (original != nullptr) original_layer.emplace(weights_, l, settings_.arithmetic);
  const Original beside{original_layer ? &*original_layer : nullptr, original, settings_.drift.windows};
  const Checkpoint packed = Checkpoint::Open(work_->ShardPath(kShardsBeforeLayers + l + 1));
  for (const LinearKind kind : kLinearKinds) {
    const MatrixShape shape = LinearShape(config(), kind);
    Array decoded(shape.rows, shape.cols, DType::kF32, settings_.arithmetic.device);
    DecodePacked(packed, LinearTensorName(*config().family, l, kind), 0, decoded.view());
    layer.SetLinear(kind, decoded.view());
  }
  PassLayer(layer, config(), stream, settings_.arithmetic, {}, beside, {}, [&](uint64_t tokens) {
    progress_.Advance(tokens, fmt::format("layer {}/{} (finished before)", l + 1, config().layers));
  });
}

TokenWeights Compression::WeightsOfLayer(size_t l) const {
  TokenWeights weights;
  for (size_t k = 0; k < weights.size(); ++k) weights[k] = statistics_.inputs[l][k].token_weights;
  return weights;
}

ShardRecord Compression::WriteShard(size_t number, const PackedShard& shard,
                                    std::optional<LayerRecord> layer) {
  ShardRecord finished;
  finished.bytes = shard.Write(work_->ShardPath(number));
  finished.tensors = shard.tensor_names();
  finished.layer = std::move(layer);
  work_->Record(number, finished);
  return finished;
}

Checkpoint Compression::OpenFinished() const {
  return Checkpoint::Open(format_ ? format_->model() : place_.directory, !format_);
}

// What a finished run does not need any more.
void Compression::Clear() const {
  WorkDirectory::Clear(place_.directory);
  std::error_code code;
  if (place_.one_file) fs::remove(place_.directory, code);
}

// Index and configuration of the shards, which are a packed checkpoint with them.
void Compression::FinishPacked() {
  ShardIndex index;
  for (size_t i = 0; i < finished_.size(); ++i) {
    const fs::path shard = work_->ShardPath(i + 1);
    for (const TensorView& tensor : OpenSafetensors(shard).tensors)
      index.Add(tensor.name, tensor.data.size(), shard.filename().string());
  }
  index.Write(place_.directory / "model.safetensors.index.json");
  Json config_json = config().json;
  Json quantization = PackedQuantizationConfig();
  quantization["coding"] = coder_->name();
  quantization["group_size"] = settings_.fixed.group_size;
  quantization["bits_per_weight"] = *record_.bits.bits_per_weight;
  config_json["quantization_config"] = quantization;
  WriteJson(place_.directory / "config.json", config_json);
}

CompressionRecord Compression::Finish() {
  for (const ShardRecord& shard : finished_) {
    if (shard.layer) record_.layers.push_back(*shard.layer);
  }
  record_.bits = Totals(record_.layers);
  if (!place_.one_file) CopyCompanions(weights_.checkpoint(), place_.directory);
  if (format_) {
    std::vector<fs::path> shards;
    for (size_t i = 0; i < finished_.size(); ++i) shards.push_back(work_->ShardPath(i + 1));
    format_->Write(shards, record_);
  } else {
    FinishPacked();
  }
  if (const double zeros = *record_.bits.zero_share; zeros < settings_.sparsity.rate) {
    LogWarning("{:.2f} % zeros were asked for, {:.2f} % are stored; ask for fewer bits or a lower --sparsity",
               100 * settings_.sparsity.rate, 100 * zeros);
  }
  // The index is counted where a reader finds it, so every figure below is read back from the files.
  const PackedSizes sizes =
      format_ ? MeasureOtherFormat(format_->model()) : MeasurePacked(place_.directory, *config().family);
  const uint64_t before = *record_.model.file_bytes, after = sizes.total_bytes - sizes.bytes.at("other");
  record_.bits.bits_per_weight =
      static_cast<double>(sizes.compressed_matrix_bits) / static_cast<double>(sizes.compressed_weights);
  record_.bits.breakdown_bytes.assign(sizes.bytes.begin(), sizes.bytes.end());
  record_.file = {
      before, after, static_cast<double>(before) / static_cast<double>(after), ShardsOf(OpenFinished()), {}};
  for (const auto& [phase, seconds] : progress_.PhaseSeconds()) {
    const double* earlier = Find(phases_before_, phase);
    const double own = seconds - (earlier != nullptr ? *earlier : 0);
    if (own > 0) record_.time.phases.emplace_back(phase, own);
  }
  record_.time.total = MonotonicSeconds() - began_;
  record_.created = UtcTime();
  record_.peak_memory_bytes = PeakResidentBytes();
  record_.gpu = GpuOf(settings_.arithmetic.device);
  record_.host = ThisHost();
  WriteJson(place_.record, ToJson(record_));
  Clear();  // last, so that a run killed before goes on, and one killed here is finished
  return record_;
}

}  // namespace

void CheckCompression(const CompressionPaths& paths, const CompressionSettings& settings,
                      Progress& progress) {
  Compression(paths, settings, progress).Check();
}

Identity IdentityOfCompression(const CompressionPaths& paths, const CompressionSettings& settings,
                               Progress& progress) {
  return Compression(paths, settings, progress).Which();
}

BudgetReach ReachOfBudget(const CompressionPaths& paths, const CompressionSettings& settings, Progress& progress) {
  return Compression(paths, settings, progress).Reaching();
}

CompressionNeeds NeedsOfCompression(const CompressionPaths& paths, const CompressionSettings& settings,
                                    Progress& progress) {
  return Compression(paths, settings, progress).Needs();
}

void FollowCompression(const Json& task, Device device, const Group& group) {
  CompressionPaths paths;
  paths.model = task.at("model").get<std::string>();
  paths.out = task.at("out").get<std::string>();
  paths.statistics = task.at("statistics").get<std::string>();
  CompressionSettings settings = SettingsFromJson(task.at("settings"), "settings of the leading rank");
  MICA_CHECK(SettingsToJson(settings) == task.at("settings"));
  settings.arithmetic.device = device;
  settings.arithmetic.group = &group;
  Progress progress(false);
  Compression(paths, settings, progress).Run();
}

CompressionRecord CompressModel(const CompressionPaths& paths, const CompressionSettings& settings,
                                Progress& progress) {
  const OutputPlace place = PlaceOf(paths.out, settings.coding);
  CommandFiles files{
      .inputs = {paths.model}, .outputs = {paths.statistics}, .directories = {place.directory}};
  if (place.one_file) files.outputs.insert(files.outputs.end(), {place.gguf, place.record});
  for (const DataSpec& source : settings.calibration.sources) {
    if (source.kind != DataKind::kBuiltIn) files.inputs.push_back(source.path);
  }
  CheckFiles(files);
  Compression compression(paths, settings, progress);
  const Group& group = *settings.arithmetic.group;
  if (!group.alone()) {
    const auto named = [](const fs::path& path) { return path.empty() ? "" : fs::absolute(path).string(); };
    const Json task = {{"task", "compress"},
                       {"model", named(paths.model)},
                       {"out", named(paths.out)},
                       {"statistics", named(paths.statistics)},
                       {"settings", SettingsToJson(settings)}};
    group.Broadcast(0, task.dump());
  }
  return compression.Run();
}

}  // namespace mica
