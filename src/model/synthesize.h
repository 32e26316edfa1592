// A checkpoint of any shape with random weights, for tests of scale and memory where no trained one is at
// hand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "io/container/safetensors.h"
#include "io/container/tensor.h"

namespace mica {

enum class CheckpointFormat { kSafetensors, kTorch };

struct RandomCheckpointSpec {
  std::string model_type = "llama";  // one of ModelTypes()
  size_t layers = 2;
  size_t hidden = 64;
  size_t heads = 4;
  size_t kv_heads = 4;
  size_t head_dim = 0;  // 0: hidden / heads
  size_t ffn = 160;
  size_t vocab = 512;
  size_t max_positions = 2048;
  double rope_theta = 10000.0;
  std::optional<bool> tied;     // lm_head shares the embedding; none: as models of the type do
  bool attention_bias = false;  // biases on q, k, v and o where the type's config.json has the choice
  CheckpointFormat format = CheckpointFormat::kSafetensors;
  DType dtype = DType::kF16;  // F32, F16 or BF16
  uint64_t shard_bytes =
      10'000'000'000;  // tensor data of one file at most, unless one tensor alone is larger; 0: one file
  uint64_t seed = 0;
  std::filesystem::path tokenizer;  // file or directory whose tokenizer files are copied; empty: none
};

// Sets the shape of a published model: "tiny" (a smoke test), "llama-7b", "vicuna-13b". Throws Error for
// other names.
void ApplyPreset(const std::string& name, RandomCheckpointSpec& spec);

struct RandomCheckpointFacts {
  uint64_t parameters = 0;
  uint64_t file_bytes = 0;  // weight files and index
  size_t shards = 0;
};

// Names, types and shapes of the tensors, in the order in which they are stored. Throws Error for impossible
// shapes.
std::vector<TensorSpec> RandomTensors(const RandomCheckpointSpec& spec);

// Writes the checkpoint with config.json into `directory`, which must be absent or empty; holds at most 64
// MiB of weights in memory. Matrices are approximately normal with variance 1 / cols (those that write to the
// residual stream divided by 2 layers besides), norms are 1, so activations stay of order one. A value
// depends on seed, tensor name, position and dtype only: not on format, shards or threads. Throws Error
// before the first byte when the disk has not enough room; a failed run leaves nothing behind.
RandomCheckpointFacts WriteRandomCheckpoint(const RandomCheckpointSpec& spec,
                                            const std::filesystem::path& directory, Progress& progress);

}  // namespace mica
