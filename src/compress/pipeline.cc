#include "compress/pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/system.h"
#include "base/units.h"
#include "compress/budget/demands.h"
#include "compress/calibrate/drift.h"
#include "compress/calibrate/layer_pass.h"
#include "compress/curvature/drift_compensation.h"
#include "compress/fixed/plain_tensors.h"
#include "compress/inform/statistics.h"
#include "compress/matrix_compressor.h"
#include "compress/matrix_facts.h"
#include "compress/work_directory.h"
#include "io/packed/packed_checkpoint.h"
#include "model/sizes.h"
#include "record/compression.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

// Upper estimate of what one compressed matrix adds to headers and index: names, shapes, offsets, checksums,
// facts.
constexpr uint64_t kHeaderBytesPerMatrix = 1600;
constexpr uint64_t kIndexBytes = 128,
                   kIndexEntryBytes = 48;  // of the index: its frame, and an entry besides the tensor's name
constexpr uint64_t kHeaderSlack = 96;      // by which a layer's header may be longer than those before
// Shards before the first layer's: embedding, final norm and output head.
constexpr size_t kEndShards = 1;

constexpr const char* kReportName = "compression.json";
const char* const kCopiedFiles[] = {"tokenizer.model",         "tokenizer_config.json",  "tokenizer.json",
                                    "special_tokens_map.json", "generation_config.json", "added_tokens.json"};

// What makes two runs end in the same bytes; texts count by their fingerprints, not by their paths. All but
// the model's fingerprint is as in compression.json.
Json IdentityOf(const Json& model_fingerprint, Json settings, Json calibration, const Json& mica) {
  settings.erase("calib");
  for (Json& source : calibration["sources"]) source.erase("path");
  return {{"model", model_fingerprint}, {"settings", settings}, {"calibration", calibration}, {"mica", mica}};
}

Json ThisProgram() { return {{"version", Version()}, {"commit", Commit()}}; }

class Compression {
 public:
  Compression(const CompressionPaths& paths, const CompressionSettings& settings, Progress& progress)
      : paths_(paths), settings_(settings), progress_(progress), weights_(ModelWeights::Open(paths.model)) {}

  Json Run();

 private:
  const ModelConfig& config() const { return weights_.config(); }
  size_t shards() const { return kEndShards + config().layers; }

  Json Identify();
  std::optional<Json> ReportOfFinishedRun(const Json& identity) const;
  void Begin(const Json& identity);
  void CheckDisk(double matrix_bits, double end_bytes) const;
  double LeastMatrixBits() const;
  double EstimatedEndBytes() const;
  Statistics ObtainStatistics();
  uint64_t OtherBytes(uint64_t* matrix_bytes) const;
  FinishedShard WriteEnds();
  FinishedShard CompressLayer(size_t layer, ResidualStream& stream, ResidualStream* original);
  void PassFinishedLayer(size_t layer, ResidualStream& stream, ResidualStream* original);
  TokenWeights WeightsOfLayer(size_t layer) const;
  FinishedShard WriteShard(size_t number, const PackedShard& shard, Json facts);
  Json Finish();

  const CompressionPaths paths_;
  const CompressionSettings settings_;
  Progress& progress_;
  const ModelWeights weights_;
  std::optional<Calibration> calibration_;
  std::optional<WorkDirectory> work_;
  std::string model_fingerprint_;
  Statistics statistics_;
  std::optional<MatrixCompressor> compressor_;
  uint64_t end_bytes_ = 0;  // file bytes of the end shard
  std::vector<FinishedShard> finished_;
  double began_ = MonotonicSeconds();
  const Ordered<double> phases_before_ = progress_.PhaseSeconds();  // of what else the progress has shown
};

Json Compression::Run() {
  CheckSettings(settings_);
  const Json identity = Identify();
  if (std::optional<Json> report = ReportOfFinishedRun(identity)) return *report;
  Begin(identity);
  if (finished_.empty()) {
    const std::optional<FinishedShard> ends = work_->Finished(1, shards());
    finished_.push_back(ends ? *ends : WriteEnds());
  }
  end_bytes_ = finished_[0].bytes;

  statistics_ = ObtainStatistics();
  uint64_t matrix_bytes = 0;
  try {
    compressor_.emplace(settings_, config(), statistics_, OtherBytes(&matrix_bytes));
  } catch (const Error&) {
    // Settings that cannot be met: there is nothing to go on with.
    if (!work_->Finished(kEndShards + 1, shards())) work_->Discard(shards());
    throw;
  }
  CheckDisk(compressor_->planned_bits_per_weight() * static_cast<double>(CompressedWeights(config())),
            static_cast<double>(end_bytes_));

  progress_.Begin("compress", config().layers * calibration_->tokens() * kLayerSweeps, "tokens");
  ResidualStream stream(weights_, *calibration_);
  std::optional<ResidualStream> original;
  if (settings_.drift.compensation > 0) original.emplace(weights_, *calibration_);
  ResidualStream* const original_stream = original ? &*original : nullptr;
  for (size_t l = 0; l < config().layers; ++l) {
    if (const std::optional<FinishedShard> finished = work_->Finished(kEndShards + l + 1, shards())) {
      finished_.push_back(*finished);
      compressor_->Replay(l, finished->facts.at("linears"));
      PassFinishedLayer(l, stream, original_stream);
      continue;
    }
    const uint64_t other_bytes = OtherBytes(&matrix_bytes);
    compressor_->SetOtherBytes(l, other_bytes, matrix_bytes);
    finished_.push_back(CompressLayer(l, stream, original_stream));
  }
  progress_.End();
  return Finish();
}

// Draws the calibration windows and says which run this is.
Json Compression::Identify() {
  if (weights_.packed())
    Fail("{}: is a packed checkpoint already; give the original one", paths_.model.string());
  const Tokenizer tokenizer = Tokenizer::Open(paths_.model);
  calibration_ = DrawCalibration(settings_.calibration, tokenizer);
  progress_.Begin("fingerprint", 1, "files");
  model_fingerprint_ = weights_.checkpoint().Fingerprint();
  progress_.Advance(1);
  progress_.End();
  return IdentityOf(model_fingerprint_, SettingsToJson(settings_), calibration_->provenance, ThisProgram());
}

// Nothing when `out` holds no finished run, or that of another identity. What the run may not have come to
// remove goes.
std::optional<Json> Compression::ReportOfFinishedRun(const Json& identity) const {
  const fs::path path = paths_.out / kReportName;
  std::error_code code;
  if (!fs::exists(path, code)) return std::nullopt;
  Json report = ReadJson(path);
  try {
    if (IdentityOf(report.at("model").at("fingerprint"), report.at("settings"), report.at("calibration"),
                   report.at("mica")) != identity)
      return std::nullopt;
    const uint64_t bytes = Checkpoint::Open(paths_.out).file_bytes();
    if (const uint64_t expected = report.at("file").at("bytes_after"); bytes != expected) {
      Fail("{}: weight files have {} bytes, {} when the run was finished; delete the directory to begin anew",
           paths_.out.string(), bytes, expected);
    }
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
  WorkDirectory::Clear(paths_.out);
  LogInfo("{}: was finished before with the same settings, texts and code", paths_.out.string());
  return report;
}

void Compression::Begin(const Json& identity) {
  CheckBudget(settings_, config(), static_cast<uint64_t>(EstimatedEndBytes()));
  CheckDisk(LeastMatrixBits(), EstimatedEndBytes());
  work_.emplace(paths_.out, identity);
  if (calibration_->tokens() < 4 * InputCols(config(), InputKind::kDown)) {
    LogWarning(
        "{} calibration tokens for matrices of up to {} input channels: moments lean on damping; use more "
        "--samples",
        calibration_->tokens(), InputCols(config(), InputKind::kDown));
  }
}

// What the budget stores at least, before anything is planned.
double Compression::LeastMatrixBits() const {
  const auto weights = static_cast<double>(CompressedWeights(config()));
  if (settings_.budget.target == BudgetTarget::kFileBytes)
    return std::max(0.0, 8 * (settings_.budget.value - EstimatedEndBytes()));
  const bool survivors_only =  // a mask, and codes of what it keeps
      settings_.budget.target == BudgetTarget::kMeanBits && settings_.coding == Coding::kFixed;
  return (survivors_only ? 1 - settings_.sparsity.rate : 1.0) * settings_.budget.value * weights;
}

double Compression::EstimatedEndBytes() const {
  double bytes = 0;
  for (const TensorView& tensor : weights_.checkpoint().tensors()) {
    if (tensor.name.starts_with("model.layers.")) continue;
    if (tensor.name == "lm_head.weight" && config().tied_head) continue;  // not stored: the embedding serves
    bytes += tensor.shape.size() == 2
                 ? settings_.embedding_bits / 8.0 * static_cast<double>(tensor.elements())
                 : static_cast<double>(tensor.data.size());
  }
  return bytes;
}

void Compression::CheckDisk(double matrix_bits, double end_bytes) const {
  const double needed = matrix_bits / 8 + end_bytes +
                        static_cast<double>(kHeaderBytesPerMatrix * config().layers * kLinearKinds.size());
  double written = 0;
  if (fs::is_directory(paths_.out)) {
    for (const auto& entry : fs::directory_iterator(paths_.out)) {
      if (entry.path().extension() == ".safetensors") written += static_cast<double>(entry.file_size());
    }
  }
  fs::path disk = fs::absolute(paths_.out);
  while (!fs::exists(disk) && disk.has_relative_path()) disk = disk.parent_path();
  const auto available = static_cast<double>(FreeDiskBytes(disk));
  if (needed - written > available) {
    Fail(
        "{}: the packed checkpoint still needs {}, but only {} are free; free some space and run the same "
        "command again",
        paths_.out.string(), FormatBytes(needed - written), FormatBytes(available));
  }
}

Statistics Compression::ObtainStatistics() {
  const bool entropy = settings_.coding == Coding::kEntropy;
  StatisticsSettings wanted{settings_.information, settings_.fisher, settings_.damping, entropy,
                            settings_.seed};
  wanted.fisher.output_moments = settings_.entropy.row_feedback && entropy;
  const fs::path path = paths_.statistics.empty() ? work_->File("statistics.safetensors") : paths_.statistics;
  const Json identity = {{"model", model_fingerprint_},
                         {"statistics", StatisticsIdentity(*calibration_, wanted)}};
  if (fs::exists(path)) {
    Statistics kept = LoadStatistics(path);
    if (kept.identity == identity) return kept;
    LogInfo("{}: holds statistics of another model, text or setting; collecting anew", path.string());
  }
  Statistics statistics = CollectStatistics(weights_, *calibration_, wanted, settings_.precision, progress_);
  statistics.identity = identity;
  SaveStatistics(statistics, path);
  return statistics;
}

// Bytes of the weight files besides the matrices: exact for what is written, estimated for the rest.
uint64_t Compression::OtherBytes(uint64_t* matrix_bytes) const {
  uint64_t written = 0, index = kIndexBytes;
  *matrix_bytes = 0;
  for (const FinishedShard& shard : finished_) {
    written += shard.bytes;
    for (const std::string& name : shard.tensors) index += name.size() + kIndexEntryBytes;
    if (shard.facts.contains("matrix_bytes")) *matrix_bytes += shard.facts["matrix_bytes"].get<uint64_t>();
  }
  const size_t layers_done = finished_.size() - kEndShards, layers_left = config().layers - layers_done;
  const uint64_t headers_done = written - *matrix_bytes - end_bytes_;
  // A layer's header and index entries are like those of the layers before.
  const uint64_t per_layer =
      layers_done > 0 ? headers_done / layers_done + index / (layers_done + kEndShards) + kHeaderSlack
                      : kHeaderBytesPerMatrix * kLinearKinds.size();
  return written - *matrix_bytes + index + per_layer * layers_left;
}

FinishedShard Compression::WriteEnds() {
  const Checkpoint& checkpoint = weights_.checkpoint();
  PackedShard shard;
  for (const TensorView& tensor : checkpoint.tensors()) {
    if (tensor.name.starts_with("model.layers.")) continue;
    if (tensor.name == "model.embed_tokens.weight" ||
        (tensor.name == "lm_head.weight" && !config().tied_head)) {
      AddRounded(checkpoint, tensor.name.substr(0, tensor.name.size() - std::string(".weight").size()),
                 settings_.embedding_bits, settings_.fixed.group_size, shard);
    } else if (tensor.name != "lm_head.weight") {
      CopyTensor(checkpoint, tensor, shard);
    }
  }
  return WriteShard(1, shard, Json::object());
}

FinishedShard Compression::CompressLayer(size_t l, ResidualStream& stream, ResidualStream* original) {
  DecoderLayer layer(weights_, l, settings_.precision);
  std::optional<DecoderLayer> original_layer;
  if (original != nullptr) original_layer.emplace(weights_, l, settings_.precision);
  const Reference reference{original_layer ? &*original_layer : nullptr, original, settings_.drift.windows};
  PackedShard shard;
  Json linears = Json::object();
  const std::string position = fmt::format("layer {}/{}", l + 1, config().layers);
  const auto solve = [&](LinearKind kind, const InputMoments& moments) {
    ThrowIfInterrupted();
    progress_.Advance(0, fmt::format("{}, {}", position, LinearName(kind)));  // minutes in large models
    Matrix<float> w = weights_.Linear(l, kind);
    if (moments.drift.data != nullptr)
      w = CompensateDrift(w, moments, settings_.drift.compensation, settings_.drift.damping);
    return compressor_->Compress(l, kind, w, moments.h, shard, linears);
  };
  PassLayer(layer, config(), stream, settings_.precision, solve, reference, WeightsOfLayer(l),
            [&](uint64_t tokens) { progress_.Advance(tokens, position); });

  const uint64_t matrix_bytes = shard.data_bytes();
  const std::string prefix = fmt::format("model.layers.{}.", l);
  for (const TensorView& tensor : weights_.checkpoint().tensors()) {
    if (!tensor.name.starts_with(prefix)) continue;
    const bool compressed = std::any_of(kLinearKinds.begin(), kLinearKinds.end(), [&](LinearKind kind) {
      return tensor.name == LinearTensorName(l, kind) + ".weight";
    });
    if (!compressed) CopyTensor(weights_.checkpoint(), tensor, shard);
  }
  return WriteShard(kEndShards + l + 1, shard,
                    {{"layer", l}, {"matrix_bytes", matrix_bytes}, {"linears", linears}});
}

void Compression::PassFinishedLayer(size_t l, ResidualStream& stream, ResidualStream* original) {
  DecoderLayer layer(weights_, l, settings_.precision);
  std::optional<DecoderLayer> original_layer;
  if (original != nullptr) original_layer.emplace(weights_, l, settings_.precision);
  const Reference reference{original_layer ? &*original_layer : nullptr, original, settings_.drift.windows};
  const Checkpoint packed = Checkpoint::Open(work_->ShardPath(kEndShards + l + 1, shards()));
  for (const LinearKind kind : kLinearKinds) {
    const MatrixShape shape = LinearShape(config(), kind);
    Matrix<float> decoded(shape.rows, shape.cols);
    DecodePacked(packed, LinearTensorName(l, kind), 0, decoded);
    layer.SetLinear(kind, decoded);
  }
  PassLayer(layer, config(), stream, settings_.precision, {}, reference, {}, [&](uint64_t tokens) {
    progress_.Advance(tokens, fmt::format("layer {}/{} (finished before)", l + 1, config().layers));
  });
}

TokenWeights Compression::WeightsOfLayer(size_t l) const {
  TokenWeights weights;
  for (size_t k = 0; k < weights.size(); ++k) weights[k] = statistics_.inputs[l][k].token_weights;
  return weights;
}

FinishedShard Compression::WriteShard(size_t number, const PackedShard& shard, Json facts) {
  FinishedShard finished;
  finished.bytes = shard.Write(work_->ShardPath(number, shards()));
  finished.tensors = shard.tensor_names();
  finished.facts = std::move(facts);
  work_->Record(number, finished);
  return finished;
}

Json Compression::Finish() {
  Json index = {{"metadata", {{"total_size", 0}}}, {"weight_map", Json::object()}};
  Json layers = Json::array();
  uint64_t total_size = 0;
  for (size_t i = 0; i < finished_.size(); ++i) {
    total_size += finished_[i].bytes;
    for (const std::string& name : finished_[i].tensors) {
      index["weight_map"][name] = work_->ShardPath(i + 1, shards()).filename().string();
    }
    if (i >= kEndShards) layers.push_back(finished_[i].facts);
  }
  index["metadata"]["total_size"] = total_size;
  WriteJson(paths_.out / "model.safetensors.index.json", index);
  for (const char* name : kCopiedFiles) {
    const fs::path source = weights_.checkpoint().directory() / name;
    if (fs::exists(source)) WriteFileAtomically(paths_.out / name, ReadFile(source));
  }
  const Json totals = TotalFacts(layers);
  Json config_json = config().json;
  Json quantization = PackedQuantizationConfig();
  quantization["coding"] = settings_.coding == Coding::kFixed ? "fixed" : "entropy";
  quantization["group_size"] = settings_.fixed.group_size;
  quantization["bits_per_weight"] = totals["bits_per_weight"];
  config_json["quantization_config"] = quantization;
  WriteJson(paths_.out / "config.json", config_json);

  const double zeros = totals.at("zero_share");
  if (zeros < settings_.sparsity.rate) {
    LogWarning("{:.2f} % zeros were asked for, {:.2f} % are stored; ask for fewer bits or a lower --sparsity",
               100 * settings_.sparsity.rate, 100 * zeros);
  }
  // The index is counted where a reader finds it, so every figure below is read back from the files.
  const PackedSizes sizes = MeasurePacked(paths_.out);
  const uint64_t bytes_before = weights_.checkpoint().file_bytes();
  const uint64_t bytes_after = sizes.total_bytes - sizes.bytes.at("other");
  Json bits = totals;
  bits["bits_per_weight"] =
      static_cast<double>(sizes.compressed_matrix_bits) / static_cast<double>(sizes.compressed_weights);
  bits["breakdown_bytes"] = sizes.bytes;
  Json time = Json::object();
  for (const auto& [phase, seconds] : progress_.PhaseSeconds()) {
    const double* before = Find(phases_before_, phase);
    const double own = seconds - (before != nullptr ? *before : 0);
    if (own > 0) time[phase] = own;
  }
  time["total"] = MonotonicSeconds() - began_;
  const Json report = {
      {"mica", ThisProgram()},
      {"created", UtcTime()},
      {"settings", SettingsToJson(settings_)},
      {"model",
       {{"path", paths_.model.string()}, {"fingerprint", model_fingerprint_}, {"file_bytes", bytes_before}}},
      {"calibration", calibration_->provenance},
      {"bits", bits},
      {"layers", layers},
      {"file",
       {{"bytes_before", bytes_before},
        {"bytes_after", bytes_after},
        {"ratio", static_cast<double>(bytes_before) / static_cast<double>(bytes_after)}}},
      {"time", time},
      {"peak_memory_bytes", PeakResidentBytes()},
      {"host", {{"name", HostName()}, {"processor", ProcessorName()}}}};
  WriteJson(paths_.out / kReportName, report);
  WorkDirectory::Clear(
      paths_.out);  // last, so that a run killed before goes on, and one killed here is finished
  return report;
}

}  // namespace

Json CompressModel(const CompressionPaths& paths, const CompressionSettings& settings, Progress& progress) {
  return Compression(paths, settings, progress).Run();
}

}  // namespace mica
