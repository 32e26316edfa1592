#include "model/sizes.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "format/stored_bits.h"
#include "io/packed/packed_checkpoint.h"

namespace mica {
namespace {

namespace fs = std::filesystem;

// What a tensor outside the compressed decoder matrices is for; `name` without the part or ".weight".
std::string KindOf(const std::string& name) {
  if (name.ends_with("embed_tokens")) return "embeddings";
  if (name.ends_with("lm_head")) return "head";
  if (name.ends_with(".bias")) return "biases";
  if (name.ends_with("norm")) return "norms";
  return "plain";
}

}  // namespace

PackedSizes MeasurePacked(const fs::path& directory) {
  const Checkpoint checkpoint = Checkpoint::Open(directory);
  PackedSizes sizes;
  for (const char* kind : {"codes", "scales", "zeros", "mask", "order", "groups", "padding", "embeddings",
                           "head", "plain", "norms", "biases", "headers", "other"}) {
    sizes.bytes[kind] = 0;
  }
  std::set<std::string> packed_tensors;
  uint64_t matrix_bytes = 0;
  for (const std::string& name : PackedNames(checkpoint)) {
    const std::unique_ptr<PackedReader> reader = OpenPacked(checkpoint, name, false);
    uint64_t bytes = 0;
    for (const TensorView* tensor : reader->tensors()) {
      bytes += tensor->data.size();
      packed_tensors.insert(tensor->name);
      checkpoint.Release(*tensor);
    }
    MICA_CHECK(8 * bytes == reader->stored_bits().total());
    if (KindOf(name) != "plain") {
      sizes.bytes[KindOf(name)] += bytes;
      continue;
    }
    matrix_bytes += bytes;
    sizes.matrix_bits += reader->stored_bits();
    sizes.compressed_weights += uint64_t{reader->rows()} * reader->cols();
  }
  const StoredBits& bits = sizes.matrix_bits;
  sizes.compressed_matrix_bits = bits.total();
  sizes.bytes["codes"] = bits.codes / 8;
  sizes.bytes["scales"] = bits.scales / 8;
  sizes.bytes["zeros"] = bits.zeros / 8;
  sizes.bytes["mask"] = bits.mask / 8;
  sizes.bytes["order"] = bits.order / 8;
  sizes.bytes["groups"] = bits.groups / 8;
  sizes.bytes["padding"] = matrix_bytes - bits.codes / 8 - bits.scales / 8 - bits.zeros / 8 - bits.mask / 8 -
                           bits.order / 8 - bits.groups / 8;

  uint64_t tensor_bytes = 0;
  for (const TensorView& tensor : checkpoint.tensors()) {
    tensor_bytes += tensor.data.size();
    if (packed_tensors.contains(tensor.name)) continue;
    const std::string weight = ".weight";
    const std::string name = tensor.name.ends_with(weight)
                                 ? tensor.name.substr(0, tensor.name.size() - weight.size())
                                 : tensor.name;
    sizes.bytes[KindOf(name)] += tensor.data.size();
  }
  sizes.bytes["headers"] = checkpoint.file_bytes() - tensor_bytes;
  for (auto entry = fs::recursive_directory_iterator(directory); entry != fs::recursive_directory_iterator();
       ++entry) {
    if (entry->is_directory() && entry->path().filename().string().starts_with('.'))
      entry.disable_recursion_pending();  // not part of a checkpoint: .git, or the work of a run
    if (entry->is_regular_file()) sizes.total_bytes += entry->file_size();
  }
  sizes.bytes["other"] = sizes.total_bytes - checkpoint.file_bytes();
  return sizes;
}

}  // namespace mica
