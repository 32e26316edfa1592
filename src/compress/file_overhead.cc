#include "compress/file_overhead.h"

#include <algorithm>
#include <string>

#include "compress/fixed/plain_tensors.h"
#include "compress/work_directory.h"
#include "io/container/shard_index.h"

namespace mica {
namespace {

constexpr uint64_t kHeaderSlack = 96;  // by which a header may be longer than one like it

}  // namespace

void AddCopied(const ModelWeights& weights, size_t layer, PackedShard& shard) {
  const ModelConfig& config = weights.config();
  for (const TensorView& tensor : weights.checkpoint().tensors()) {
    const TensorPlace place = PlaceOf(*config.family, tensor.name);
    if (place.layer == layer && TreatmentOf(place.role, config.tied_head) == Treatment::kCopied)
      CopyTensor(weights.checkpoint(), tensor, shard);
  }
}

uint64_t MatrixBytes(std::span<const ShardRecord> finished) {
  uint64_t bytes = 0;
  for (const ShardRecord& shard : finished) bytes += shard.layer ? shard.layer->matrix_bytes.value() : 0;
  return bytes;
}

FileOverhead::FileOverhead(const ModelWeights& weights, const Coder& coder, const Ends& ends, bool counts)
    : weights_(weights), coder_(coder), ends_(ends), layer_(counts ? OfLayer() : 0) {}

// Bytes of a layer's shard and of its index entries besides the matrices, counted on matrices of the least
// size.
uint64_t FileOverhead::OfLayer() const {
  const ModelConfig& config = weights_.config();
  const size_t last = config.layers - 1;  // whose names are the longest
  PackedShard shard;
  for (const LinearKind kind : kLinearKinds) {
    const MatrixShape shape = LinearShape(config, kind);
    shard.Add(LinearTensorName(*config.family, last, kind), coder_.Smallest(shape.rows, shape.cols));
  }
  const uint64_t matrices = shard.data_bytes();
  AddCopied(weights_, last, shard);
  uint64_t bytes = shard.header_bytes() + shard.data_bytes() - matrices + kHeaderSlack;
  for (const std::string& name : shard.tensor_names()) bytes += IndexEntryBytes(name);
  return bytes;
}

OtherBytes FileOverhead::Least() const {
  const ModelConfig& config = weights_.config();
  uint64_t bytes = kIndexFrameBytes + layer_ * config.layers;
  PackedShard shard;
  for (const TensorView& tensor : weights_.checkpoint().tensors()) {
    const TensorPlace place = PlaceOf(*config.family, tensor.name);
    if (!place.layer && TreatmentOf(place.role, config.tied_head) == Treatment::kCopied)
      CopyTensor(weights_.checkpoint(), tensor, shard);
  }
  for (const std::string& name : ends_.Names()) bytes += ends_.BytesOf(name);
  for (const std::string& name : shard.tensor_names()) bytes += IndexEntryBytes(name);
  bytes += shard.header_bytes() + shard.data_bytes();
  return {.expected = bytes, .least = bytes};
}

OtherBytes FileOverhead::Besides(std::span<const ShardRecord> finished) const {
  const size_t layers = weights_.config().layers;
  uint64_t written = 0, index = kIndexFrameBytes;
  for (const ShardRecord& shard : finished) {
    written += shard.bytes;
    for (const std::string& name : shard.tensors) index += IndexEntryBytes(name);
  }
  const uint64_t head = ends_.has_head() ? ends_.BytesOf(ends_.Names().back()) : 0;
  const uint64_t besides = written - MatrixBytes(finished);
  const size_t layers_done = finished.size() - kShardsBeforeLayers, layers_left = layers - layers_done;
  // A layer's header and index entries are like those of the layers before.
  const uint64_t per_layer = layers_done > 0 ? (besides - finished.front().bytes) / layers_done +
                                                   index / finished.size() + kHeaderSlack
                                             : kHeaderBytesPerMatrix * kLinearKinds.size();
  const uint64_t least = besides + index + head + layer_ * layers_left;
  const uint64_t expected = besides + index + head + per_layer * layers_left;
  // After the last layer nothing makes up for an index whose other entries were shorter.
  return {.expected = layers_left == 1 ? std::max(least, expected) : expected, .least = least};
}

}  // namespace mica
