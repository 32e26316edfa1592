#include "model/sizes.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "format/stored_bits.h"
#include "io/packed/packed_checkpoint.h"
#include "io/packed/stored_matrix.h"
#include "model/weights.h"

namespace mica {
namespace {

namespace fs = std::filesystem;

// The part of the file that a tensor belongs to when it is not packed or no matrix of a decoder layer.
const char* KindOf(TensorRole role) {
  switch (role) {
    case TensorRole::kEmbedding:
      return "embeddings";
    case TensorRole::kHead:
      return "head";
    case TensorRole::kFinalNorm:
    case TensorRole::kNorm:
      return "norms";
    case TensorRole::kBias:
      return "biases";
    case TensorRole::kLinear:
    case TensorRole::kOther:
      return "plain";
  }
  MICA_CHECK(false);
}

// All parts, of no bytes.
PackedSizes NoSizes() {
  PackedSizes sizes;
  for (const char* kind : {"codes", "scales", "zeros", "mask", "order", "groups", "padding", "embeddings",
                           "head", "plain", "norms", "biases", "headers", "other"}) {
    sizes.bytes[kind] = 0;
  }
  return sizes;
}

// The parts of the matrices of decoder layers in whole bytes.
void CountMatrices(PackedSizes& sizes) {
  const StoredBits& bits = sizes.matrix_bits;
  sizes.compressed_matrix_bits = bits.total();
  sizes.bytes["codes"] = bits.codes / 8;
  sizes.bytes["scales"] = bits.scales / 8;
  sizes.bytes["zeros"] = bits.zeros / 8;
  sizes.bytes["mask"] = bits.mask / 8;
  sizes.bytes["order"] = bits.order / 8;
  sizes.bytes["groups"] = bits.groups / 8;
}

// The directory's total, and what stands beside the checkpoint.
void CountDirectory(const fs::path& directory, const Checkpoint& checkpoint, PackedSizes& sizes) {
  for (auto entry = fs::recursive_directory_iterator(directory); entry != fs::recursive_directory_iterator();
       ++entry) {
    if (entry->is_directory() && entry->path().filename().string().starts_with('.'))
      entry.disable_recursion_pending();  // not part of a checkpoint: .git, or the work of a run
    if (entry->is_regular_file()) sizes.total_bytes += entry->file_size();
  }
  sizes.bytes["other"] = sizes.total_bytes - checkpoint.file_bytes();
}

}  // namespace

PackedSizes MeasureOtherFormat(const fs::path& model) {
  const ModelWeights weights = ModelWeights::Open(model);
  const Checkpoint& checkpoint = weights.checkpoint();
  PackedSizes sizes = NoSizes();
  uint64_t tensor_bytes = 0;
  for (const TensorView& tensor : checkpoint.tensors()) {
    const TensorRole role = PlaceOf(*weights.config().family, tensor.name).role;
    tensor_bytes += tensor.stored_bytes();
    if (role != TensorRole::kLinear) {
      sizes.bytes[KindOf(role)] += tensor.stored_bytes();
      continue;
    }
    sizes.matrix_bits +=
        tensor.integers != nullptr ? BitsOf(*tensor.integers) : StoredBits{.codes = 8 * tensor.data.size()};
    sizes.compressed_weights += tensor.elements();
  }
  CountMatrices(sizes);
  sizes.bytes["headers"] = checkpoint.file_bytes() - tensor_bytes;
  CountDirectory(fs::is_directory(model) ? model : fs::absolute(model).parent_path(), checkpoint, sizes);
  return sizes;
}

PackedSizes MeasurePacked(const fs::path& directory, const Family& family) {
  const Checkpoint checkpoint = Checkpoint::Open(directory, true);
  PackedSizes sizes = NoSizes();
  std::set<std::string> packed_tensors;
  uint64_t matrix_bytes = 0;
  for (const std::string& name : PackedNames(checkpoint)) {
    const StoredMatrix stored = OpenPacked(checkpoint, name, false);
    const StoredBits bits = stored.bits();
    uint64_t bytes = 0;
    for (const TensorView* tensor : stored.tensors) {
      bytes += tensor->data.size();
      packed_tensors.insert(tensor->name);
    }
    stored.Release(checkpoint);
    MICA_CHECK(8 * bytes == bits.total());
    const TensorRole role = PlaceOf(family, WeightName(name)).role;
    if (role == TensorRole::kEmbedding || role == TensorRole::kHead) {
      sizes.bytes[KindOf(role)] += bytes;
      continue;
    }
    matrix_bytes += bytes;
    sizes.matrix_bits += bits;
    sizes.compressed_weights += uint64_t{stored.rows()} * stored.cols();
  }
  CountMatrices(sizes);
  const StoredBits& bits = sizes.matrix_bits;
  sizes.bytes["padding"] = matrix_bytes - bits.codes / 8 - bits.scales / 8 - bits.zeros / 8 - bits.mask / 8 -
                           bits.order / 8 - bits.groups / 8;

  uint64_t tensor_bytes = 0;
  for (const TensorView& tensor : checkpoint.tensors()) {
    tensor_bytes += tensor.data.size();
    if (packed_tensors.contains(tensor.name)) continue;
    sizes.bytes[KindOf(PlaceOf(family, tensor.name).role)] += tensor.data.size();
  }
  sizes.bytes["headers"] = checkpoint.file_bytes() - tensor_bytes;
  CountDirectory(directory, checkpoint, sizes);
  return sizes;
}

}  // namespace mica
