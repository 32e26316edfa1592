#include "compress/pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/system.h"
#include "compress/drift.h"
#include "compress/layer_pass.h"
#include "compress/matrix_facts.h"
#include "compress/plain_tensors.h"
#include "compress/plan.h"
#include "compress/solver.h"
#include "compress/statistics.h"
#include "compress/work_directory.h"
#include "io/packed_checkpoint.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

// Upper estimate of what one compressed matrix adds to headers and index: names, shapes, offsets, checksums,
// facts.
constexpr uint64_t kHeaderBytesPerMatrix = 1600;
// Damping of the moments when weights make up for drift: the drift is noisier than the moments.
constexpr double kDriftDamping = 0.03;
// Shards before the first layer's: embedding, final norm and output head.
constexpr size_t kEndShards = 1;

const char* const kCopiedFiles[] = {"tokenizer.model",         "tokenizer_config.json",  "tokenizer.json",
                                    "special_tokens_map.json", "generation_config.json", "added_tokens.json"};

class Compression {
 public:
  Compression(const CompressionPaths& paths, const CompressionSettings& settings, Progress& progress)
      : paths_(paths), settings_(settings), progress_(progress), weights_(ModelWeights::Open(paths.model)) {}

  Json Run();

 private:
  const ModelConfig& config() const { return weights_.config(); }
  size_t shards() const { return kEndShards + config().layers; }

  void Begin();
  void CheckDisk(double bits_per_weight) const;
  Statistics ObtainStatistics();
  Allocation Plan(const std::vector<MatrixDemand>& demands) const;
  FinishedShard WriteEnds();
  FinishedShard CompressLayer(size_t layer, ResidualStream& stream, ResidualStream* original);
  void PassFinishedLayer(size_t layer, ResidualStream& stream, ResidualStream* original);
  void RefitLastLayer(const std::vector<MatrixDemand>& demands);
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
  Allocation allocation_;
  uint64_t end_bytes_ = 0;  // file bytes of the end shard
  std::vector<FinishedShard> finished_;
  double began_ = MonotonicSeconds();
};

Json Compression::Run() {
  CheckSettings(settings_);
  Begin();
  if (finished_.empty()) {
    const std::optional<FinishedShard> ends = work_->Finished(1, shards());
    finished_.push_back(ends ? *ends : WriteEnds());
  }
  end_bytes_ = finished_[0].bytes;

  statistics_ = ObtainStatistics();
  const std::vector<MatrixDemand> demands = Demands(statistics_, config(), settings_);
  allocation_ = Plan(demands);
  CheckDisk(allocation_.bits_per_weight);

  progress_.Begin("compress", config().layers * calibration_->tokens() * kLayerSweeps, "tokens");
  ResidualStream stream(weights_, *calibration_);
  std::optional<ResidualStream> original;
  if (settings_.drift_compensation > 0) original.emplace(weights_, *calibration_);
  ResidualStream* const original_stream = original ? &*original : nullptr;
  for (size_t l = 0; l < config().layers; ++l) {
    if (const std::optional<FinishedShard> finished = work_->Finished(kEndShards + l + 1, shards())) {
      finished_.push_back(*finished);
      PassFinishedLayer(l, stream, original_stream);
      continue;
    }
    if (settings_.target == BudgetTarget::kFileBytes && l + 1 == config().layers) RefitLastLayer(demands);
    finished_.push_back(CompressLayer(l, stream, original_stream));
  }
  progress_.End();
  return Finish();
}

void Compression::Begin() {
  if (weights_.packed())
    Fail("{}: is a packed checkpoint already; give the original one", paths_.model.string());
  const Tokenizer tokenizer = Tokenizer::Open(paths_.model);
  calibration_ = DrawCalibration(settings_.calibration, tokenizer);
  progress_.Begin("fingerprint", 1, "files");
  model_fingerprint_ = weights_.checkpoint().Fingerprint();
  progress_.Advance(1);
  progress_.End();
  Json settings = SettingsToJson(settings_);
  settings.erase("calib");  // the texts count by their fingerprints, not by their paths
  Json calibration = calibration_->provenance;
  for (Json& source : calibration["sources"]) source.erase("path");
  work_.emplace(paths_.out, Json{{"model", model_fingerprint_},
                                 {"settings", settings},
                                 {"calibration", calibration},
                                 {"version", Version()},
                                 {"commit", Commit()}});
  if (calibration_->tokens() < 4 * InputCols(config(), InputKind::kDown)) {
    LogWarning(
        "{} calibration tokens for matrices of up to {} input channels: moments lean on damping; use more "
        "--samples",
        calibration_->tokens(), InputCols(config(), InputKind::kDown));
  }
}

void Compression::CheckDisk(double bits_per_weight) const {
  const double needed = bits_per_weight / 8 * static_cast<double>(CompressedWeights(config())) +
                        static_cast<double>(kHeaderBytesPerMatrix * config().layers * kLinearKinds.size()) +
                        static_cast<double>(end_bytes_);
  const uint64_t available = FreeDiskBytes(paths_.out);
  double written = 0;
  for (size_t shard = 1; shard <= shards(); ++shard) {
    if (const auto finished = work_->Finished(shard, shards()))
      written += static_cast<double>(finished->bytes);
  }
  if (needed - written > static_cast<double>(available)) {
    Fail(
        "{}: the packed checkpoint still needs {}, but only {} are free; free some space and run the same "
        "command again",
        paths_.out.string(), FormatBytes(needed - written), FormatBytes(static_cast<double>(available)));
  }
}

Statistics Compression::ObtainStatistics() {
  const StatisticsSettings wanted{.grouping = settings_.grouping,
                                  .estimator = settings_.estimator,
                                  .groups = settings_.groups,
                                  .damping = settings_.damping,
                                  .windows = settings_.statistics_windows,
                                  .fisher_windows = settings_.fisher_windows,
                                  .seed = settings_.seed};
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

Allocation Compression::Plan(const std::vector<MatrixDemand>& demands) const {
  AllocationSettings allocation{.options = settings_.bit_options,
                                .kind = settings_.target == BudgetTarget::kMeanBits
                                            ? BudgetKind::kMeanCodeBits
                                            : BudgetKind::kBitsPerWeight,
                                .budget = settings_.budget,
                                .group_size = settings_.group_size};
  if (settings_.target == BudgetTarget::kFileBytes) {
    const uint64_t headers = kHeaderBytesPerMatrix * config().layers * kLinearKinds.size();
    allocation.budget =
        BitsPerWeightForFile(settings_.budget, end_bytes_ + headers, CompressedWeights(config()));
  }
  return Allocate(demands, allocation);
}

// Everything but the last layer is on disk: its budget is what is left of the file's bytes, headers counted
// exactly.
void Compression::RefitLastLayer(const std::vector<MatrixDemand>& demands) {
  uint64_t used = 0;
  size_t index_bytes = 256;
  for (const FinishedShard& shard : finished_) {
    used += shard.bytes;
    for (const std::string& name : shard.tensors) index_bytes += name.size() + 48;
  }
  const size_t matrices = kLinearKinds.size();
  const std::vector<MatrixDemand> last(demands.end() - static_cast<std::ptrdiff_t>(matrices), demands.end());
  const uint64_t headers = index_bytes * shards() / (shards() - 1) + kHeaderBytesPerMatrix * matrices / 2;
  const double left =
      BitsPerWeightForFile(settings_.budget, used + headers, CompressedWeights(config()) / config().layers);
  const double most = *std::max_element(settings_.bit_options.begin(), settings_.bit_options.end());
  const AllocationSettings allocation{.options = settings_.bit_options,
                                      .kind = BudgetKind::kBitsPerWeight,
                                      .budget = std::min(left, most),
                                      .group_size = settings_.group_size};
  Allocation refit = Allocate(last, allocation);
  std::move(refit.widths.begin(), refit.widths.end(),
            allocation_.widths.end() - static_cast<std::ptrdiff_t>(matrices));
}

FinishedShard Compression::WriteEnds() {
  const Checkpoint& checkpoint = weights_.checkpoint();
  PackedShard shard;
  for (const TensorView& tensor : checkpoint.tensors()) {
    if (tensor.name.starts_with("model.layers.")) continue;
    if (tensor.name == "model.embed_tokens.weight" ||
        (tensor.name == "lm_head.weight" && !config().tied_head)) {
      AddRounded(checkpoint, tensor.name.substr(0, tensor.name.size() - std::string(".weight").size()),
                 settings_.embedding_bits, settings_.group_size, shard);
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
  const Reference reference{original_layer ? &*original_layer : nullptr, original};
  PackedShard shard;
  Json linears = Json::object();
  FixedSettings fixed;
  fixed.group_size = settings_.group_size;
  fixed.damping = settings_.damping;
  fixed.sparsity = settings_.sparsity;
  fixed.saliency_exponent = settings_.saliency_exponent;

  const auto solve = [&](LinearKind kind, MatrixView<const float> h, MatrixView<const float> drift) {
    ThrowIfInterrupted();
    const size_t k = static_cast<size_t>(kind);
    Matrix<float> w = weights_.Linear(l, kind);
    if (drift.data != nullptr) w = CompensateDrift(w, h, drift, settings_.drift_compensation, kDriftDamping);
    SolverReport report;
    const FixedMatrix solved =
        SolveFixed(w, h, allocation_.widths[l * kLinearKinds.size() + k], fixed, &report);
    const uint64_t before = shard.data_bytes();
    shard.Add(LinearTensorName(l, kind), solved);
    StoredBits stored;
    stored.codes = 8 * (shard.data_bytes() - before);
    linears[LinearName(kind)] =
        FixedMatrixFacts(solved, stored, report, statistics_.inputs[l][static_cast<size_t>(InputOf(kind))]);
    Matrix<float> decoded(solved.rows, solved.cols);
    Decode(solved, decoded);
    return decoded;
  };
  PassLayer(layer, config(), stream, settings_.precision, solve, reference, [&](uint64_t tokens) {
    progress_.Advance(tokens, fmt::format("layer {}/{}", l + 1, config().layers));
  });

  const std::string prefix = fmt::format("model.layers.{}.", l);
  for (const TensorView& tensor : weights_.checkpoint().tensors()) {
    if (!tensor.name.starts_with(prefix)) continue;
    const bool compressed = std::any_of(kLinearKinds.begin(), kLinearKinds.end(), [&](LinearKind kind) {
      return tensor.name == LinearTensorName(l, kind) + ".weight";
    });
    if (!compressed) CopyTensor(weights_.checkpoint(), tensor, shard);
  }
  return WriteShard(kEndShards + l + 1, shard, {{"layer", l}, {"linears", linears}});
}

void Compression::PassFinishedLayer(size_t l, ResidualStream& stream, ResidualStream* original) {
  DecoderLayer layer(weights_, l, settings_.precision);
  std::optional<DecoderLayer> original_layer;
  if (original != nullptr) original_layer.emplace(weights_, l, settings_.precision);
  const Reference reference{original_layer ? &*original_layer : nullptr, original};
  const Checkpoint packed = Checkpoint::Open(work_->ShardPath(kEndShards + l + 1, shards()));
  for (const LinearKind kind : kLinearKinds) {
    const MatrixShape shape = LinearShape(config(), kind);
    Matrix<float> decoded(shape.rows, shape.cols);
    DecodePacked(packed, LinearTensorName(l, kind), 0, decoded);
    layer.SetLinear(kind, decoded);
  }
  PassLayer(layer, config(), stream, settings_.precision, {}, reference, [&](uint64_t tokens) {
    progress_.Advance(tokens, fmt::format("layer {}/{} (finished before)", l + 1, config().layers));
  });
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
  quantization["coding"] = "fixed";
  quantization["group_size"] = settings_.group_size;
  quantization["bits_per_weight"] = totals["bits_per_weight"];
  config_json["quantization_config"] = quantization;
  WriteJson(paths_.out / "config.json", config_json);
  work_->Finish();

  // The index is counted where a reader finds it, so every figure below is read back from the files.
  const PackedSizes sizes = MeasurePacked(paths_.out);
  const uint64_t bytes_before = weights_.checkpoint().file_bytes();
  const uint64_t bytes_after = sizes.total_bytes - sizes.bytes.at("other");
  Json bits = totals;
  bits["bits_per_weight"] =
      static_cast<double>(sizes.compressed_matrix_bits) / static_cast<double>(sizes.compressed_weights);
  bits["breakdown_bytes"] = sizes.bytes;
  Json time = progress_.PhaseSeconds();
  time["total"] = MonotonicSeconds() - began_;
  const Json report = {
      {"mica", {{"version", Version()}, {"commit", Commit()}}},
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
  WriteJson(paths_.out / "compression.json", report);
  return report;
}

}  // namespace

Json CompressModel(const CompressionPaths& paths, const CompressionSettings& settings, Progress& progress) {
  return Compression(paths, settings, progress).Run();
}

}  // namespace mica
