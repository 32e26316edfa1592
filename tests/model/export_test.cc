#include "model/export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/file.h"
#include "io/packed/packed_checkpoint.h"
#include "ops/codes/codes.h"
#include "tests/error_message.h"
#include "tests/format/fixed/testing.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

using testing::HasSubstr;

class Export : public testing::Test {
 protected:
  Export() {
    packed_ = scratch_.path() / "packed";
    out_ = scratch_.path() / "plain";
    MakeDirectories(packed_);
    PackedShard shard;
    shard.Add("model.layers.0.mlp.up_proj", Pack(up_));
    shard.Add("model.embed_tokens", Pack(embedding_));
    const float norm[3] = {1.5f, -2.0f, 0.25f};
    std::vector<std::byte> bytes(sizeof(norm));
    std::memcpy(bytes.data(), norm, sizeof(norm));
    shard.AddPlain({"model.norm.weight", DType::kF32, {3}}, bytes);
    shard.Write(packed_ / "model.safetensors");
    WriteJson(packed_ / "config.json",
              {{"model_type", "llama"}, {"quantization_config", PackedQuantizationConfig()}});
    WriteFileAtomically(packed_ / "tokenizer.model", "words");
    WriteFileAtomically(packed_ / "compression.json", "{}");
  }
  Matrix<float> Weights(const FixedMatrix& matrix) {
    Matrix<float> weights(matrix.rows, matrix.cols);
    Decode(matrix, weights);
    return weights;
  }

  TemporaryDirectory scratch_;
  FixedMatrix up_ = RandomFixed(70, {{4, 100}, {2, 30}}, 64, MaskKind::kBitmap, 3);
  FixedMatrix embedding_ = RandomFixed(200, {{8, 40}}, 128, MaskKind::kNone, 4, true);
  std::filesystem::path packed_, out_;
  Progress progress_{false};
};

TEST_F(Export, Fp16IsTheDecodedWeightRounded) {
  const ExportFacts facts = ExportPlain(packed_, out_, {}, progress_);
  EXPECT_EQ(facts.tensors, 3u);
  EXPECT_EQ(facts.shards, 1u);
  const Checkpoint plain = Checkpoint::Open(out_);
  EXPECT_EQ(facts.file_bytes, plain.file_bytes());
  ASSERT_EQ(plain.tensors().size(), 3u);
  for (const auto& [name, matrix] : {std::pair{"model.layers.0.mlp.up_proj.weight", &up_},
                                     std::pair{"model.embed_tokens.weight", &embedding_}}) {
    const TensorView& tensor = plain.Get(name);
    EXPECT_EQ(tensor.dtype, DType::kF16);
    EXPECT_EQ(tensor.shape, (std::vector<uint64_t>{matrix->rows, matrix->cols}));
    const Matrix<float> expected = Weights(*matrix);
    std::vector<float> values(expected.size());
    ReadFloats(tensor, 0, values);
    for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], ToFloat(ToF16(expected.data()[i]))) << i;
  }
  std::vector<float> norm(3);
  ReadFloats(plain.Get("model.norm.weight"), 0, norm);
  EXPECT_EQ(norm, (std::vector<float>{1.5f, -2.0f, 0.25f}));
  const Json config = ReadJson(out_ / "config.json");
  EXPECT_FALSE(config.contains("quantization_config"));
  EXPECT_EQ(config["torch_dtype"], "float16");
  EXPECT_EQ(ReadFile(out_ / "tokenizer.model"), "words");
  EXPECT_FALSE(std::filesystem::exists(out_ / "compression.json"));
  EXPECT_FALSE(std::filesystem::exists(out_.string() + ".partial"));
}

TEST_F(Export, Fp32IsExactAndShardsAreIndexed) {
  MakeDirectories(out_);  // an empty directory is accepted
  ExportOptions options;
  options.dtype = DType::kF32;
  options.shard_bytes = 36000;
  const ExportFacts facts = ExportPlain(packed_, out_, options, progress_);
  EXPECT_EQ(facts.shards, 3u);
  const Checkpoint plain = Checkpoint::Open(out_);
  EXPECT_EQ(plain.layout(), "safetensors, 3 shards");
  EXPECT_EQ(facts.file_bytes, plain.file_bytes());
  uint64_t bytes = 0;
  for (const TensorView& tensor : plain.tensors()) bytes += tensor.data.size();
  EXPECT_EQ(ReadJson(out_ / "model.safetensors.index.json")["metadata"]["total_size"], bytes);
  const Matrix<float> expected = Weights(up_);
  EXPECT_EQ(std::memcmp(plain.Get("model.layers.0.mlp.up_proj.weight").data.data(), expected.data(),
                        4 * expected.size()),
            0);
}

TEST_F(Export, CompanionsComeAlongAndTheTypeHasOneKey) {
  for (const char* name : {"tokenizer_config.json", "chat_template.jinja", "chat_template.json",
                           "generation_config.json", "added_tokens.json", "modeling_some.py", "LICENSE"})
    WriteFileAtomically(packed_ / name, name);
  MakeDirectories(packed_ / "additional_chat_templates");
  WriteFileAtomically(packed_ / "additional_chat_templates" / "tool_use.jinja", "tools");
  WriteFileAtomically(packed_ / "letter.txt", "mine");
  Json config = ReadJson(packed_ / "config.json");
  config["dtype"] = "bfloat16";
  WriteJson(packed_ / "config.json", config);
  ExportPlain(packed_, out_, {}, progress_);
  for (const char* name : {"tokenizer_config.json", "chat_template.jinja", "chat_template.json",
                           "generation_config.json", "added_tokens.json", "modeling_some.py", "LICENSE"})
    EXPECT_EQ(ReadFile(out_ / name), name);
  EXPECT_EQ(ReadFile(out_ / "additional_chat_templates" / "tool_use.jinja"), "tools");
  EXPECT_FALSE(std::filesystem::exists(out_ / "letter.txt"));
  Json plain = ReadJson(out_ / "config.json");
  EXPECT_EQ(plain["dtype"], "float16");
  EXPECT_FALSE(plain.contains("torch_dtype"));

  std::filesystem::remove_all(out_);
  config["torch_dtype"] = "bfloat16";
  WriteJson(packed_ / "config.json", config);
  ExportPlain(packed_, out_, {}, progress_);
  plain = ReadJson(out_ / "config.json");
  EXPECT_EQ(plain["torch_dtype"], "float16");
  EXPECT_FALSE(plain.contains("dtype"));
}

TEST_F(Export, Refusals) {
  MakeDirectories(out_);
  WriteFileAtomically(out_ / "something", "x");
  EXPECT_THAT(MessageOf([&] { ExportPlain(packed_, out_, {}, progress_); }),
              HasSubstr("not an empty directory"));
  std::filesystem::remove_all(out_);
  WriteJson(packed_ / "config.json", {{"model_type", "llama"}});
  EXPECT_THAT(MessageOf([&] { ExportPlain(packed_, out_, {}, progress_); }),
              HasSubstr("not a packed checkpoint"));
}

TEST_F(Export, FailureLeavesNothing) {
  PackedShard shard;
  const float large[1] = {1e6f};
  std::vector<std::byte> bytes(sizeof(large));
  std::memcpy(bytes.data(), large, sizeof(large));
  shard.AddPlain({"model.norm.weight", DType::kF32, {1}}, bytes);
  shard.Add("model.layers.0.mlp.up_proj", Pack(up_));
  shard.Write(packed_ / "model.safetensors");
  EXPECT_THAT(MessageOf([&] { ExportPlain(packed_, out_, {}, progress_); }),
              HasSubstr("model.norm.weight: value 1000000 does not fit FP16"));
  EXPECT_FALSE(std::filesystem::exists(out_));
  EXPECT_FALSE(std::filesystem::exists(out_.string() + ".partial"));
}

}  // namespace
}  // namespace mica
