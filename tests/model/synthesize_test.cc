#include "model/synthesize.h"

#include <cmath>

#include "base/json.h"
#include "base/threads.h"
#include "io/container/checkpoint.h"
#include "io/text/tokenizer.h"
#include "model/fingerprint.h"
#include "tests/error_message.h"
#include "tests/io/container/test_files.h"
#include "tests/source_dir.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

namespace fs = std::filesystem;

std::string FingerprintOf(const fs::path& directory) { return ModelFingerprint(ModelWeights::Open(directory)); }

RandomCheckpointFacts Write(const RandomCheckpointSpec& spec, const fs::path& directory) {
  Progress silent(false);
  return WriteRandomCheckpoint(spec, directory, silent);
}

TEST(RandomCheckpointTest, ValuesDoNotDependOnFormatShardsOrThreads) {
  const TemporaryDirectory directory;
  RandomCheckpointSpec spec;
  ApplyPreset("tiny", spec);
  spec.vocab = 9000;  // more than one block of elements
  spec.seed = 5;
  SetThreads(1);
  const RandomCheckpointFacts facts = Write(spec, directory / "one");
  EXPECT_EQ(facts.shards, 1u);
  const Checkpoint one = Checkpoint::Open(directory / "one");
  EXPECT_EQ(facts.file_bytes, one.file_bytes());
  uint64_t parameters = 0;
  for (const TensorView& tensor : one.tensors()) parameters += tensor.elements();
  EXPECT_EQ(facts.parameters, parameters);

  SetThreads(2);
  spec.shard_bytes = 200000;
  const RandomCheckpointFacts sharded = Write(spec, directory / "shards");
  EXPECT_GT(sharded.shards, 2u);
  EXPECT_EQ(Checkpoint::Open(directory / "shards").file_bytes(), sharded.file_bytes);
  spec.format = CheckpointFormat::kTorch;
  Write(spec, directory / "bins");
  spec.shard_bytes = 0;
  EXPECT_EQ(Write(spec, directory / "bin").shards, 1u);
  for (const char* other : {"shards", "bins", "bin"}) {
    EXPECT_EQ(FingerprintOf(directory / other), FingerprintOf(directory / "one")) << other;
  }
  spec.seed = 6;
  Write(spec, directory / "seed");
  EXPECT_NE(FingerprintOf(directory / "seed"), FingerprintOf(directory / "one"));
  SetThreads(0);
}

TEST(RandomCheckpointTest, ValuesAreNearlyNormal) {
  const TemporaryDirectory directory;
  RandomCheckpointSpec spec;
  spec.layers = 3;
  spec.hidden = 256;
  spec.ffn = 512;
  spec.dtype = DType::kF32;
  Write(spec, directory / "m");
  const Checkpoint checkpoint = Checkpoint::Open(directory / "m");
  for (const auto& [name, deviation] :
       {std::pair("model.layers.1.mlp.gate_proj.weight", 1 / std::sqrt(256.0)),
        std::pair("model.layers.1.mlp.down_proj.weight", 1 / std::sqrt(512.0 * 6)),
        std::pair("lm_head.weight", 1 / std::sqrt(256.0))}) {
    const TensorView& tensor = checkpoint.Get(name);
    std::vector<float> values(tensor.elements());
    ReadFloats(tensor, 0, values);
    double sum = 0, square = 0, neighbours = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      sum += values[i];
      square += double{values[i]} * values[i];
      if (i > 0) neighbours += double{values[i]} * values[i - 1];
    }
    const double n = static_cast<double>(values.size());
    EXPECT_NEAR(sum / n, 0, 5 * deviation / std::sqrt(n)) << name;
    EXPECT_NEAR(std::sqrt(square / n) / deviation, 1, 0.01) << name;
    EXPECT_NEAR(neighbours / square, 0, 5 / std::sqrt(n)) << name;
  }
  std::vector<float> norm(256);
  ReadFloats(checkpoint.Get("model.norm.weight"), 0, norm);
  EXPECT_EQ(norm, std::vector<float>(256, 1.0f));
}

TEST(RandomCheckpointTest, TypesOfModelsDifferInTheirTensors) {
  RandomCheckpointSpec spec;
  const auto has = [&](const std::string& name) {
    for (const TensorSpec& tensor : RandomTensors(spec)) {
      if (tensor.name == name) return true;
    }
    return false;
  };
  EXPECT_TRUE(has("lm_head.weight"));
  EXPECT_FALSE(has("model.layers.0.self_attn.q_proj.bias"));
  spec.tied = true;
  EXPECT_FALSE(has("lm_head.weight"));
  spec.model_type = "qwen2";
  EXPECT_TRUE(has("model.layers.1.self_attn.v_proj.bias"));
  EXPECT_FALSE(has("model.layers.1.self_attn.o_proj.bias"));
  spec.model_type = "llama";
  spec.attention_bias = true;
  EXPECT_TRUE(has("model.layers.1.self_attn.o_proj.bias"));
}

// The shape that Vicuna-13B-v1.5 is published with: 13.0 billion parameters, 26 GB.
TEST(RandomCheckpointTest, KnowsPublishedShapes) {
  RandomCheckpointSpec spec;
  ApplyPreset("vicuna-13b", spec);
  uint64_t bytes = 0;
  for (const TensorSpec& tensor : RandomTensors(spec)) bytes += SpecBytes(tensor);
  EXPECT_EQ(bytes, uint64_t{26031728640});
  ApplyPreset("llama-7b", spec);
  bytes = 0;
  for (const TensorSpec& tensor : RandomTensors(spec)) bytes += SpecBytes(tensor);
  EXPECT_EQ(bytes, uint64_t{13476831232});
  ExpectError([&] { ApplyPreset("gpt-4", spec); }, {"'gpt-4'", "vicuna-13b"});
}

TEST(RandomCheckpointTest, CopiesTheTokenizer) {
  const TemporaryDirectory directory;
  RandomCheckpointSpec spec;
  spec.tokenizer = SourceDir() / "models/demo";
  ExpectError([&] { Write(spec, directory / "m"); }, {"16000 pieces", "vocabulary of the model, 512"});
  EXPECT_FALSE(fs::exists(directory / "m"));
  spec.vocab = 16000;
  Write(spec, directory / "m");
  EXPECT_EQ(Tokenizer::Open(directory / "m").fingerprint(), Tokenizer::Open(spec.tokenizer).fingerprint());
  EXPECT_EQ(ReadJson(directory / "m/config.json")["vocab_size"], 16000);
}

TEST(RandomCheckpointTest, RefusesImpossibleShapes) {
  const TemporaryDirectory directory;
  const auto refuse = [&](auto change, const std::vector<std::string>& parts) {
    RandomCheckpointSpec spec;
    change(spec);
    ExpectError([&] { Write(spec, directory / "m"); }, parts);
    EXPECT_FALSE(fs::exists(directory / "m"));
  };
  refuse([](auto& spec) { spec.layers = 0; }, {"--layers is 0"});
  refuse([](auto& spec) { spec.hidden = size_t{1} << 40; }, {"--hidden is 1099511627776"});
  refuse([](auto& spec) { spec.kv_heads = 3; }, {"--kv-heads is 3", "divisor"});
  refuse([](auto& spec) { spec.hidden = 66; }, {"--heads is 4", "divisor of --hidden, 66"});
  refuse([](auto& spec) { spec.head_dim = 5; }, {"head dimension is 5"});
  refuse([](auto& spec) { spec.rope_theta = -1; }, {"--rope-theta is -1"});
  refuse([](auto& spec) { spec.dtype = DType::kI8; }, {"--dtype is I8"});
  refuse([](auto& spec) { spec.model_type = "gpt2"; }, {"'gpt2'"});
  refuse([](auto& spec) { spec.layers = 4096, spec.hidden = 65536, spec.heads = spec.kv_heads = 64; },
         {"of disk space", "are free"});
}

TEST(RandomCheckpointTest, KeepsWhatIsThere) {
  const TemporaryDirectory directory;
  test::WriteBytes(directory / "mine", "x");
  ExpectError([&] { Write({}, directory.path()); }, {directory.path().string(), "is not an empty directory"});
  ExpectError([&] { Write({}, directory / "mine"); }, {"mine", "is not a directory"});
  EXPECT_TRUE(fs::exists(directory / "mine"));
}

}  // namespace
}  // namespace mica
