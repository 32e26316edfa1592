// A compression under way: what pipeline.h does, in three parts. compression.cc: settings, what is known before and what
// is measured first; compression_layers.cc: the way over the layers; compression_files.cc: what is read and written.
#pragma once

#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <vector>

#include "base/file.h"
#include "base/progress.h"
#include "base/system.h"
#include "compress/calibrate/calibration.h"
#include "compress/calibrate/layer_pass.h"
#include "compress/coder/coder.h"
#include "compress/coders.h"
#include "compress/ends.h"
#include "compress/file_overhead.h"
#include "compress/inform/statistics.h"
#include "compress/output_format.h"
#include "compress/output_place.h"
#include "compress/pipeline.h"
#include "compress/plan.h"
#include "compress/settings.h"
#include "compress/work_directory.h"
#include "device/device.h"
#include "device/group.h"
#include "io/container/checkpoint.h"
#include "io/packed/packed_checkpoint.h"
#include "model/layer_weights.h"
#include "model/weights.h"
#include "record/compression.h"
#include "record/identity.h"

namespace mica {

class Compression {
 public:
  Compression(const CompressionPaths& paths, const CompressionSettings& settings, Progress& progress);

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
  // Whether a GPU has room for what nothing waits for, beside the work on the layers.
  bool HasRoomBeside() const;

  void CheckModel() const;
  void CheckBudget();
  void Take(const Placement& placement);
  void DescribeOtherRanks() const;
  void CheckStatisticsPath() const;
  std::filesystem::path StatisticsFile(const Identity& identity) const;
  void Describe();
  void CheckAndIdentify();
  std::optional<CompressionRecord> FinishedRun() const;
  void Begin();
  CompressionRecord Work();
  void CheckDisk(double matrix_bits, double end_bytes) const;
  std::future<void> ObtainStatistics();
  void BeginBeforeLayers(const EndStatistics& ends);
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
  uint64_t planned_bytes_ = 0;      // of the device's memory
  CompressionRecord record_;        // what it says of the run from the start, and in the end everything
  std::unique_ptr<FileLock> lock_;  // of the output directory
  std::optional<WorkDirectory> work_;
  std::vector<ShardRecord> finished_;
  std::future<ShardRecord> before_layers_;  // the shard before them, where it was begun beside the statistics
  std::optional<size_t> solved_;      // layer whose matrices are solved and may still be at their packing
  std::optional<size_t> written_;     // the layer before it, which belongs to finished_
  std::future<ShardRecord> writing_;  // of that, on the rank that writes
  double began_ = MonotonicSeconds();
  const Ordered<double> phases_before_ = progress_.PhaseSeconds();  // of what else the progress has shown
};

}  // namespace mica
