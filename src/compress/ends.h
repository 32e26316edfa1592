// The matrices outside the decoder layers, embedding and output head: solved like those of the layers, each
// under what the loss feels of it, at one width for all columns (--embedding-bits).
//
// An error e of a token's embedding enters the residual stream wherever the token stands and costs (g . e)^2
// / 2, g what the loss feels of the stream before the first layer: H = E[g g^T], and the mean of its diagonal
// on every channel besides. The head is a linear layer whose inputs are those of the final norm. A matrix
// that is both is solved under the sum of the two, both in nats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "compress/blocks/storage_target.h"
#include "compress/calibrate/head_pass.h"
#include "compress/coders.h"
#include "compress/inform/statistics.h"
#include "compress/settings.h"
#include "device/array.h"
#include "io/container/checkpoint.h"
#include "io/packed/packed_checkpoint.h"
#include "model/weights.h"

namespace mica {

// Rows of a vocabulary that are solved at once: they bound the memory of the device.
inline constexpr size_t kSolvedRows = 32768;

class Ends {
 public:
  // Keeps the addresses of all. coder: of the layers, which may plan these matrices as well; null: it does
  // not.
  Ends(const ModelWeights& weights, const CompressionSettings& settings, const Coder* coder = nullptr)
      : weights_(weights), settings_(settings), coder_(coder), target_(MakeStorageTarget(settings, weights.config())) {}

  // Throws Error naming a value of either matrix that cannot be stored.
  void Check() const;
  // Bytes of all that stands outside the layers, about.
  double EstimatedBytes() const;

  // What stands outside the layers, but for a head of its own: the embedding (solved under its H, or rounded
  // to nearest where nothing is known of that), norm, and what else there is.
  PackedShard WithoutHead(const EndStatistics& statistics) const;
  // The embedding as a reader of that shard gets it, [vocab, hidden] FP32 on the device that computes.
  Array StoredEmbedding(const Checkpoint& packed) const;

  // Whether there is a head of its own, which is solved after the layers.
  bool has_head() const { return !weights_.config().tied_head; }
  PackedShard Head(const HeadMoments& moments) const;

  // The matrices that are stored so, the embedding first.
  std::vector<std::string> Names() const;
  // The type that the matrix has in a GGUF file (coding `gguf`).
  GgmlType TypeOf(const std::string& name) const;
  // Bytes of the file that the matrix takes at most, and no more than a few hundred more than it does: its
  // tensors, and its part of header and index.
  uint64_t BytesOf(const std::string& name) const;

 private:
  int bits() const { return settings_.embedding_bits; }
  const TensorView& TensorOf(const std::string& name) const;
  // FP32 on the device that computes; its pages go back.
  Array Read(const std::string& name) const;
  // drift: of the inputs; empty for none.
  PackedMatrix Solve(const std::string& name, ConstTensor h, ConstTensor drift) const;
  // The same on a grid of blocks, kSolvedRows rows at a time; of nothing known (h empty) rounded.
  PackedMatrix SolveForTarget(const std::string& name, Array w, ConstTensor h, ConstTensor drift) const;
  size_t GridFor(const std::string& name) const;

  const ModelWeights& weights_;
  const CompressionSettings& settings_;
  const Coder* const coder_;
  const std::unique_ptr<StorageTarget> target_;  // none for codings of mica's own
};

}  // namespace mica
