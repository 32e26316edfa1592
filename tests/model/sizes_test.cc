#include "model/family/family.h"
#include "model/sizes.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "io/packed/packed_checkpoint.h"
#include "ops/codes/codes.h"
#include "ops/codes/entropy_model.h"
#include "tests/format/entropy/testing.h"
#include "tests/format/fixed/testing.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

TEST(MeasurePacked, PartsSumToTheDirectory) {
  TemporaryDirectory scratch;
  const FixedMatrix up = RandomFixed(33, {{3, 70}, {2, 9}}, 32, MaskKind::kBitmap, 9);
  PackedShard shard;
  shard.Add("model.layers.0.mlp.up_proj", Pack(up));
  shard.Add("model.embed_tokens", Pack(RandomFixed(50, {{8, 33}}, 128, MaskKind::kNone, 9, true)));
  shard.AddPlain({"lm_head.weight", DType::kF16, {2, 3}}, std::vector<std::byte>(12));
  shard.AddPlain({"model.layers.0.input_layernorm.weight", DType::kF16, {5}}, std::vector<std::byte>(10));
  shard.AddPlain({"model.norm.weight", DType::kF16, {6}}, std::vector<std::byte>(12));
  shard.AddPlain({"model.layers.0.self_attn.q_proj.bias", DType::kF16, {7}}, std::vector<std::byte>(14));
  shard.AddPlain({"model.layers.0.mlp.down_proj.weight", DType::kF16, {1, 8}}, std::vector<std::byte>(16));
  const uint64_t file = shard.Write(scratch / "model.safetensors");
  WriteFileAtomically(scratch.path() / "config.json", "{}");

  const PackedSizes sizes = MeasurePacked(scratch.path(), *FindModelType("llama")->family);
  EXPECT_EQ(sizes.total_bytes, file + 2);
  uint64_t sum = 0;
  for (const auto& [kind, bytes] : sizes.bytes) sum += bytes;
  EXPECT_EQ(sum, sizes.total_bytes);
  EXPECT_EQ(sizes.bytes.at("other"), 2u);
  // 50 rows of 33 codes of 8 bits, padded to 16 bytes; 50 scales, 50 zeros; one run.
  EXPECT_EQ(sizes.bytes.at("embeddings"), 1664u + 50 + 50 + 8);
  EXPECT_EQ(sizes.bytes.at("head"), 12u);
  EXPECT_EQ(sizes.bytes.at("norms"), 22u);
  EXPECT_EQ(sizes.bytes.at("biases"), 14u);
  EXPECT_EQ(sizes.bytes.at("plain"), 16u);
  EXPECT_EQ(sizes.bytes.at("headers"), file - shard.data_bytes());
  EXPECT_EQ(sizes.compressed_weights, 33u * 79);
  EXPECT_EQ(sizes.bytes.at("mask"), 33u * 79 / 8);
  EXPECT_EQ(sizes.bytes.at("order"), 158u);
  EXPECT_EQ(sizes.bytes.at("groups"), 16u);
  EXPECT_EQ(sizes.bytes.at("scales"), 33u * 4);
  EXPECT_EQ(sizes.compressed_matrix_bits, sizes.matrix_bits.total());
  EXPECT_EQ(sizes.compressed_matrix_bits % 8, 0u);
}

TEST(MeasurePacked, CountsEntropyCoding) {
  TemporaryDirectory scratch;
  EntropyMatrix matrix = RandomEntropy(130, 40, 8, 0.5, 2);
  FitEntropyModel(matrix);
  PackedShard shard;
  shard.Add("model.layers.0.mlp.up_proj", Pack(matrix));
  const uint64_t file = shard.Write(scratch / "model.safetensors");
  const Checkpoint checkpoint = Checkpoint::Open(scratch.path());
  const PackedSizes sizes = MeasurePacked(scratch.path(), *FindModelType("llama")->family);
  EXPECT_EQ(sizes.total_bytes, file);
  EXPECT_EQ(sizes.bytes.at("codes"), checkpoint.Get("model.layers.0.mlp.up_proj.codes").data.size());
  EXPECT_EQ(sizes.bytes.at("scales"), checkpoint.Get("model.layers.0.mlp.up_proj.side").data.size());
  EXPECT_EQ(sizes.compressed_weights, 130u * 40);
  EXPECT_EQ(sizes.compressed_matrix_bits, 8 * shard.data_bytes());
}

}  // namespace
}  // namespace mica
