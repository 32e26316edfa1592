// The weights of one model by role, with shapes checked when opened; matrices are converted (or decoded, when
// packed) on request.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/matrix.h"
#include "device/array.h"
#include "device/tensor.h"
#include "io/container/checkpoint.h"
#include "io/packed/stored_matrix.h"
#include "model/config.h"
#include "model/family/family.h"
#include "ops/packed_product/resident_weights.h"

namespace mica {

struct MatrixShape {
  size_t rows = 0;  // output channels
  size_t cols = 0;  // input channels
};
MatrixShape LinearShape(const ModelConfig& config, LinearKind kind);
// Whether the architecture gives this linear layer a bias.
bool HasBias(const ModelConfig& config, LinearKind kind);

// Reading is const. Matrices are read by all threads of ParallelFor; call from one thread at a time.
class ModelWeights {
 public:
  // Opens directory (plain or packed), validates config.json and that every tensor the architecture needs is
  // there with the right shape and a type that can be read, that none is stored which would change what is
  // computed (unread_tensors.h), and that a packed directory is as it was written (packed.h). Values are
  // checked when they are read: NaN and infinity throw Error naming the tensor and the place, and so does a
  // checksum that differs. A GGUF model (IsGgufModel) is configured by its keys; its tensors are known and
  // read as Hugging Face's: names, order of rows (model/gguf/adopt.h); matrices of compressed-tensors as
  // plain ones (model/compressed_tensors/adopt.h).
  static ModelWeights Open(const std::filesystem::path& model);
  ModelWeights(ModelWeights&&) = default;
  ModelWeights& operator=(ModelWeights&&) = default;

  const ModelConfig& config() const { return config_; }
  // Matrices of decoder layers that this process has read so far, by any Linear: for tests that each is read
  // no more often than it must be.
  static uint64_t LinearReads();
  // The same of packed embeddings and heads that were opened and checked.
  static uint64_t VocabularyChecks();
  const Checkpoint& checkpoint() const { return checkpoint_; }
  // Whether it is a checkpoint that mica packed.
  bool packed() const { return packed_; }
  // Whether it is a checkpoint of compressed-tensors.
  bool compressed_tensors() const { return compressed_tensors_; }
  // Whether any layer reads the tensor, or a part of a packed matrix, of this name.
  bool IsRead(const std::string& tensor) const { return read_.contains(tensor); }

  // [rows, cols] FP32, decoded when packed; the mapped pages are released behind it.
  Matrix<float> Linear(size_t layer, LinearKind kind) const;
  // The bias, [rows], or empty when the linear layer has none. A packed checkpoint and a GGUF file may hold
  // biases that the architecture has not.
  std::vector<float> Bias(size_t layer, LinearKind kind) const;
  // Factors of a norm, [config().NormWidth(norm)]; empty where the model has none.
  std::vector<float> Norm(size_t layer, NormKind norm) const;
  // Of the norm before the output head, [hidden].
  std::vector<float> FinalNorm() const;
  // The same times the factor of the logits: the norm of what the head is multiplied with.
  std::vector<float> HeadNorm() const;
  // out[t] = row ids[t] of the embedding, [tokens, hidden] FP32 on any device. Ids must lie in [0, vocab);
  // throws Error otherwise.
  void EmbeddingRows(std::span<const int32_t> ids, Tensor out) const;
  // The same times the factor of the embedding: the residual stream before the first layer.
  void Embed(std::span<const int32_t> ids, Tensor out) const;
  // The same on a device, FP32 on the processor. To a CUDA device go the bytes as they are stored; they are
  // decoded or converted there, rounded once to `dtype`. Blocks of GGUF types, and rows in another order, are
  // decoded on the processor.
  Array LinearOn(Device device, size_t layer, LinearKind kind, DType dtype) const;
  // All of a layer, which a CUDA device decodes side by side.
  std::array<Array, kLinearKinds.size()> LinearsOn(Device device, size_t layer, DType dtype) const;
  // Rows [first, first + count) of the output head (the embedding when tied), [count, hidden].
  Array HeadOn(Device device, size_t first, size_t count, DType dtype) const;
  // A matrix in the form that a running model keeps on a device: packed integers as such, values as they are
  // stored. What is decoded for every product (GGUF blocks, integers of compressed-tensors on the processor)
  // is read from the checkpoint, which must live as long.
  ResidentWeights ResidentLinear(Device device, size_t layer, LinearKind kind) const;
  // The embedding and the output head; of a model whose head is the embedding the same matrix.
  ResidentWeights ResidentEmbedding(Device device) const;
  ResidentWeights ResidentHead(Device device) const;
  // What all of these take, known before they are read: at most about so many bytes.
  uint64_t PlannedResidentBytes(Device device) const;

 private:
  ModelWeights() = default;
  ResidentWeights Resident(Device device, const std::string& name, size_t rows, size_t cols) const;
  // Rows [first, first + out.rows) of NAME.weight, which is not packed.
  void ReadPlainRows(const std::string& name, size_t first, MatrixView<float> out) const;
  Array ReadPlainRowsOn(Device device, const std::string& name, size_t first, size_t count, DType dtype) const;
  void ReadLinear(size_t layer, LinearKind kind, Tensor out) const;
  // Rows of the embedding or the head.
  Array VocabularyOn(Device device, const std::string& name, size_t first, size_t count, DType dtype) const;
  std::string head_name() const;
  // The packed matrix of the embedding or the head, opened and checked the first time it is asked for: its
  // rows are read in many small ranges.
  const StoredMatrix& OfVocabulary(const std::string& name) const;
  std::vector<float> ReadVector(const std::string& name) const;
  std::vector<float> ReadNorm(const std::string& module) const;
  // The plain tensor, its checksum (packed checkpoints have them) compared the first time it is asked for.
  const TensorView& Verified(const std::string& name) const;

  ModelConfig config_;
  Checkpoint checkpoint_;
  bool packed_ = false, compressed_tensors_ = false;
  std::set<std::string> read_;  // names of the tensors that the model consists of
  mutable std::set<std::string> verified_;
  mutable std::map<std::string, StoredMatrix>
      of_vocabulary_;  // keep places in checkpoint_, which moves along
};

}  // namespace mica
