// Opening a checkpoint by role: shapes, types, missing tensors and values that are not finite, each refused
// with its tensor's name.
#include "model/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <limits>

#include "io/packed/packed_checkpoint.h"
#include "ops/codes/codes.h"
#include "ops/codes/entropy_model.h"
#include "tests/error_message.h"
#include "tests/format/entropy/testing.h"
#include "tests/format/fixed/testing.h"
#include "tests/model/tiny_model.h"

namespace mica {
namespace {

// Rows of the output head on the processor.
Matrix<float> HeadRows(const ModelWeights& weights, size_t first, size_t count) {
  const Array rows = weights.HeadOn(Device::Cpu(), first, count, DType::kF32);
  Matrix<float> matrix(count, rows.cols());
  std::copy_n(rows.view().host<float>().data, matrix.size(), matrix.data());
  return matrix;
}

using testing::AllOf;
using testing::HasSubstr;

// The message with which a checkpoint is refused after `change`.
std::string RefusalAfter(const std::function<void(Tensors&)>& change, Json json = TinyConfig()) {
  const TemporaryDirectory directory;
  Tensors tensors = RandomTensors(ParseConfig(json, "test"), 1);
  change(tensors);
  WriteModel(directory.path(), json, tensors);
  return MessageOf([&] { ModelWeights::Open(directory.path()); });
}

TEST(Weights, ReadsByRole) {
  const TinyModel model(TinyConfig());
  const ModelWeights& weights = model.weights();
  EXPECT_FALSE(weights.packed());
  const auto expect_tensor = [&](const std::string& name, MatrixView<const float> actual) {
    const TensorView& tensor = weights.checkpoint().Get(name);
    std::vector<float> expected(tensor.elements());
    ReadFloats(tensor, 0, expected);
    ASSERT_EQ(actual.rows * actual.cols, expected.size()) << name;
    for (size_t i = 0; i < expected.size(); ++i) ASSERT_EQ(actual.data[i], expected[i]) << name;
  };
  for (const LinearKind kind : kLinearKinds) {
    const Matrix<float> matrix = weights.Linear(1, kind);
    EXPECT_EQ(matrix.rows(), LinearShape(weights.config(), kind).rows);
    expect_tensor(WeightName(LinearTensorName(*weights.config().family, 1, kind)), matrix);
    EXPECT_TRUE(weights.Bias(1, kind).empty());
  }
  expect_tensor("model.norm.weight", {weights.FinalNorm().data(), 1, 24});
  expect_tensor("model.layers.1.input_layernorm.weight", {weights.Norm(1, NormKind::kAttentionInput).data(), 1, 24});
  expect_tensor("model.layers.0.post_attention_layernorm.weight", {weights.Norm(0, NormKind::kMlpInput).data(), 1, 24});
  expect_tensor("lm_head.weight", HeadRows(weights, 0, 50));
  const Matrix<float> part = HeadRows(weights, 7, 3), whole = HeadRows(weights, 0, 50);
  EXPECT_TRUE(std::equal(part.data(), part.data() + part.size(), whole.row(7)));
}

TEST(Weights, EmbedsIdsInAnyOrder) {
  const TinyModel model(TinyConfig());
  const std::vector<int32_t> ids = {49, 0, 7, 49};
  Matrix<float> out(4, 24), all(50, 24);
  model.weights().Embed(ids, out);
  ReadFloats(model.weights().checkpoint().Get("model.embed_tokens.weight"), 0, {all.data(), all.size()});
  for (size_t t = 0; t < ids.size(); ++t)
    EXPECT_TRUE(std::equal(out.row(t), out.row(t) + 24, all.row(static_cast<size_t>(ids[t]))));
  Matrix<float> one(1, 24);
  for (const int32_t id : {-1, 50}) {
    EXPECT_THAT(MessageOf([&] { model.weights().Embed(std::vector<int32_t>{id}, one); }),
                HasSubstr("expected 0 to 49"));
  }
}

TEST(Weights, TiedHeadIsTheEmbedding) {
  Json json = TinyConfig();
  json["tie_word_embeddings"] = true;
  const TinyModel model(json);
  EXPECT_EQ(model.weights().checkpoint().Find("lm_head.weight"), nullptr);
  Matrix<float> embedded(2, 24);
  model.weights().Embed(std::vector<int32_t>{5, 6}, embedded);
  const Matrix<float> head = HeadRows(model.weights(), 5, 2);
  EXPECT_TRUE(std::equal(head.data(), head.data() + head.size(), embedded.data()));
}

// A packed embedding and head are checked once, however many slices are read, and show each row the same.
TEST(Weights, PackedVocabularyIsCheckedOnce) {
  const ModelConfig config = ParseConfig(TinyConfig(), "test");
  const TemporaryDirectory directory;
  PackedShard shard;
  std::map<std::string, Matrix<float>> expected;
  const auto add = [&](const std::string& name, const auto& matrix) {
    shard.Add(name, Pack(matrix));
    expected[name] = Matrix<float>(matrix.rows, matrix.cols);
    Decode(matrix, expected[name]);
  };
  for (const auto& [name, tensor] : RandomTensors(config, 1)) {
    const auto& [shape, values] = tensor;
    const std::string module = name.substr(0, name.rfind('.'));
    if (shape.size() == 1) {
      const auto bytes = std::as_bytes(std::span(values));
      shard.AddPlain({name, DType::kF32, shape}, {bytes.begin(), bytes.end()});
    } else if (module == "lm_head") {
      EntropyMatrix head = RandomEntropy(shape[0], shape[1], 8, 1.0, 3);
      head.tile_rows = 16;
      for (size_t r = 0; r < head.rows; ++r) head.row_key.push_back(static_cast<int16_t>((r * 7) % 5));
      FitEntropyModel(head);
      add(module, head);
    } else {
      add(module, RandomFixed(shape[0], {{4, shape[1]}}, 16, MaskKind::kNone, 5));
    }
  }
  shard.Write(directory / "model.safetensors");
  Json json = TinyConfig();
  json["quantization_config"] = PackedQuantizationConfig();
  WriteJson(directory / "config.json", json);
  ModelWeights opened = ModelWeights::Open(directory.path());
  const uint64_t before = ModelWeights::VocabularyChecks();
  const Matrix<float> early = HeadRows(opened, 0, 1);
  const ModelWeights weights = std::move(opened);  // with what it has opened
  for (size_t first = 0; first < 50; first += 10) {
    const Matrix<float> head = HeadRows(weights, first, 10);
    EXPECT_TRUE(std::equal(head.data(), head.data() + head.size(), expected["lm_head"].row(first))) << first;
  }
  Matrix<float> embedded(2, 24);
  for (const int32_t id : {0, 17, 48}) {
    weights.Embed(std::vector<int32_t>{id + 1, id}, embedded);
    const float* row = expected["model.embed_tokens"].row(static_cast<size_t>(id));
    EXPECT_TRUE(std::equal(row, row + 24, embedded.row(1))) << id;
  }
  EXPECT_EQ(ModelWeights::VocabularyChecks() - before, 2u);
}

TEST(Weights, RefusesMissingAndMisshapen) {
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight",
                           "model.layers.1.mlp.up_proj.weight", "model.layers.0.input_layernorm.weight"}) {
    EXPECT_THAT(RefusalAfter([&](Tensors& tensors) { tensors.erase(name); }), HasSubstr(name));
  }
  EXPECT_THAT(RefusalAfter([](Tensors& tensors) {
                std::swap(tensors["model.layers.1.mlp.up_proj.weight"].first[0],
                          tensors["model.layers.1.mlp.up_proj.weight"].first[1]);
              }),
              AllOf(HasSubstr("model.safetensors"),
                    HasSubstr("model.layers.1.mlp.up_proj.weight has shape [24, 40], expected [40, 24]"),
                    HasSubstr("does not match its config.json")));
  EXPECT_THAT(RefusalAfter([](Tensors& tensors) {
                tensors["model.norm.weight"] = {{25}, std::vector<float>(25)};
              }),
              HasSubstr("model.norm.weight has shape [25], expected [24]"));
  EXPECT_THAT(RefusalAfter([](Tensors& tensors) {
                tensors["model.layers.0.mlp.up_proj.bias"] = {{40}, std::vector<float>(40, 0.5f)};
              }),
              HasSubstr("up_proj.bias is not zero, but config.json gives this layer no bias"));
}

// A tensor that nobody reads is refused where it would change what is computed, and listed where not.
TEST(Weights, UnreadTensors) {
  const auto with = [](const std::string& name, std::vector<uint64_t> shape, float value,
                       Json json = TinyConfig()) {
    return RefusalAfter(
        [&](Tensors& tensors) {
          uint64_t elements = 1;
          for (const uint64_t extent : shape) elements *= extent;
          tensors[name] = {shape, std::vector<float>(elements, value)};
        },
        json);
  };
  for (const char* name : {"self_attn.q_norm.weight", "self_attn.k_norm.weight", "mlp.up_proj.weight_scale",
                           "post_feedforward_layernorm.weight", "self_attn.q_proj.lora_A.weight"}) {
    EXPECT_THAT(with(std::string("model.layers.1.") + name, {6}, 1.0f),
                AllOf(HasSubstr(name), HasSubstr("not part of layer 1"), HasSubstr("model_type \"llama\"")));
  }
  EXPECT_THAT(with("lm_head.bias", {50}, 1.0f), HasSubstr("lm_head.bias is not zero"));
  EXPECT_THAT(with("model.layers.0.input_layernorm.bias", {24}, 1.0f),
              HasSubstr("input_layernorm.bias is not zero"));
  // Old LLaMA checkpoints hold rotary_emb.inv_freq.
  for (const char* name :
       {"model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.2.mlp.up_proj.weight",
        "model.layers.17.self_attn.q_norm.weight", "v_head.summary.weight"}) {
    EXPECT_EQ(with(name, {3}, 1.0f), "") << name;
  }
  for (const char* name : {"lm_head.bias", "model.layers.0.mlp.up_proj.bias"})
    EXPECT_EQ(with(name, {3}, 0.0f), "");
  Json tied = TinyConfig();
  tied["tie_word_embeddings"] = true;
  EXPECT_THAT(
      with("lm_head.weight", {50, 24}, 1.0f, tied),
      AllOf(HasSubstr("lm_head.weight differs from the embedding"), HasSubstr("tie_word_embeddings")));
  EXPECT_THAT(with("lm_head.weight", {49, 24}, 1.0f, tied), HasSubstr("differs from the embedding"));
  EXPECT_EQ(
      RefusalAfter([](Tensors& tensors) { tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]; },
                   tied),
      "");
}

TEST(Weights, UnreadTensorsAreListedOnce) {
  const TemporaryDirectory directory;
  Tensors tensors = RandomTensors(ParseConfig(TinyConfig(), "test"), 1);
  for (const char* name : {"model.layers.2.a", "model.layers.2.b", "model.layers.2.c", "model.layers.2.d",
                           "model.layers.2.e", "model.layers.2.f", "v_head.weight"}) {
    tensors[name] = {{1}, {1.0f}};
  }
  WriteModel(directory.path(), TinyConfig(), tensors);
  testing::internal::CaptureStderr();
  ModelWeights::Open(directory.path());
  ModelWeights::Open(directory.path());
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_THAT(
      said,
      HasSubstr("7 tensors are stored that the model does not read: model.layers.2.a, model.layers.2.b, "
                "model.layers.2.c, model.layers.2.d, model.layers.2.e and 2 more"));
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
}

TEST(Weights, TwoLayoutsAreNamed) {
  const TemporaryDirectory directory;
  WriteModel(directory.path(), TinyConfig(), RandomTensors(ParseConfig(TinyConfig(), "test"), 1));
  WriteFileAtomically(directory / "pytorch_model.bin", "not read");
  WriteFileAtomically(directory / "consolidated.safetensors", "not read");
  WriteFileAtomically(directory / "training_args.bin", "no weights");
  testing::internal::CaptureStderr();
  ModelWeights::Open(directory.path());
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              AllOf(HasSubstr("reads model.safetensors (safetensors), as Hugging Face's loader does"),
                    HasSubstr("not read: consolidated.safetensors, pytorch_model.bin\n")));
  WriteFileAtomically(directory / "compression.json", "{}");
  EXPECT_THAT(MessageOf([&] { ModelWeights::Open(directory.path()); }),
              HasSubstr("has compression.json, but its config.json is not that of a packed checkpoint"));
}

TEST(Weights, AFileThatChangesIsNamed) {
  const TemporaryDirectory directory;
  Tensors tensors = RandomTensors(ParseConfig(TinyConfig(), "test"), 1);
  WriteModel(directory.path(), TinyConfig(), tensors);
  const ModelWeights weights = ModelWeights::Open(directory.path());
  EXPECT_EQ(MessageOf([&] { weights.Linear(0, LinearKind::kQ); }), "");
  {
    std::fstream file(directory / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put('x');
  }
  EXPECT_THAT(MessageOf([&] { weights.Linear(0, LinearKind::kQ); }),
              AllOf(HasSubstr("model.safetensors: changed while it was read")));
  EXPECT_THAT(MessageOf([&] { weights.FinalNorm(); }), HasSubstr("changed while it was read"));
}

TEST(Weights, RefusesOtherTypes) {
  const TemporaryDirectory directory;
  const ModelConfig config = ParseConfig(TinyConfig(), "test");
  WriteJson(directory.path() / "config.json", TinyConfig());
  std::vector<TensorSpec> specs;
  for (const auto& [name, shape] : TensorShapes(config)) {
    specs.push_back({name, name == "model.layers.0.mlp.down_proj.weight" ? DType::kI32 : DType::kF32, shape});
  }
  SafetensorsWriter writer(directory.path() / "model.safetensors", specs);
  for (const TensorSpec& spec : specs) {
    uint64_t elements = 1;
    for (const uint64_t extent : spec.shape) elements *= extent;
    writer.Write(std::vector<std::byte>(4 * elements));
  }
  writer.Commit();
  EXPECT_THAT(MessageOf([&] { ModelWeights::Open(directory.path()); }),
              HasSubstr("model.layers.0.mlp.down_proj.weight has dtype I32, expected F32, F16 or BF16"));
}

TEST(Weights, NamesTheTensorThatIsNotFinite) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    const TemporaryDirectory directory;
    Tensors tensors = RandomTensors(ParseConfig(TinyConfig(), "test"), 1);
    tensors["model.layers.1.mlp.down_proj.weight"].second[3 * 40 + 17] = bad;
    tensors["model.embed_tokens.weight"].second[24 * 10 + 2] = bad;
    tensors["model.norm.weight"].second[23] = bad;
    WriteModel(directory.path(), TinyConfig(), tensors);
    const ModelWeights weights = ModelWeights::Open(directory.path());
    const char* what = std::isnan(bad) ? "holds NaN at " : "holds infinity at ";
    EXPECT_THAT(
        MessageOf([&] { weights.Linear(1, LinearKind::kDown); }),
        AllOf(HasSubstr("model.layers.1.mlp.down_proj.weight"), HasSubstr(std::string(what) + "[3, 17]")));
    EXPECT_EQ(MessageOf([&] { weights.Linear(0, LinearKind::kDown); }), "");
    Matrix<float> out(1, 24);
    EXPECT_THAT(MessageOf([&] { weights.Embed(std::vector<int32_t>{10}, out); }),
                AllOf(HasSubstr("model.embed_tokens.weight"), HasSubstr(std::string(what) + "[10, 2]")));
    EXPECT_EQ(MessageOf([&] { weights.Embed(std::vector<int32_t>{11}, out); }), "");
    EXPECT_THAT(MessageOf([&] { weights.FinalNorm(); }), HasSubstr(std::string(what) + "[23]"));
  }
}

}  // namespace
}  // namespace mica
