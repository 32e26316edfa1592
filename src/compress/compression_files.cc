#include "compress/compression.h"

#include <optional>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/units.h"
#include "compress/plan.h"
#include "device/memory_plan.h"
#include "format/fixed/layout.h"
#include "io/container/safetensors.h"
#include "io/container/shard_index.h"
#include "model/companions.h"
#include "model/gpu_record.h"
#include "model/packed.h"
#include "model/sizes.h"

namespace mica {
namespace fs = std::filesystem;

bool Compression::HasRoomBeside() const {
  const Device device = settings_.arithmetic.device;
  return device.is_cuda() &&
         AvailableMemory(device) >= planned_bytes_ + EndBytes(settings_, config()) + InputsAtOnceBytes(config());
}

// Where there is room, the shard before the layers' is solved, packed and written beside the statistics of the layers.
void Compression::BeginBeforeLayers(const EndStatistics& ends) {
  if (format_ || work_->HasFinished(kShardsBeforeLayers) || !HasRoomBeside()) return;
  before_layers_ = std::async(std::launch::async, [this, known = EndStatistics{ends.embedding.Clone(), {}}] {
    return WriteShard(kShardsBeforeLayers, ends_.WithoutHead(known), std::nullopt);
  });
}

// The shard before the layers', unless an earlier run has written it.
void Compression::FinishBeforeLayers() {
  ShardRecord record;
  if (before_layers_.valid()) record = before_layers_.get();
  const std::optional<ShardRecord> finished = work_->Finished(kShardsBeforeLayers);
  if (finished) return finished_.push_back(*finished);
  if (group().leads())
    record = WriteShard(kShardsBeforeLayers, ends_.WithoutHead(statistics_.ends), std::nullopt);
  finished_.push_back(work_->Share(record));
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

}  // namespace mica
