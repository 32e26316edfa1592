// A model as a GGUF file: written, read back by role, and refused where the file lies.
#include <gmock/gmock.h>

#include <cmath>
#include <cstring>

#include "format/gguf/decode.h"
#include "io/container/gguf.h"
#include "model/export.h"
#include "model/fingerprint.h"
#include "model/rope.h"
#include "model/gguf/layout.h"
#include "model/gguf/rows.h"
#include "model/gguf/vocabulary.h"
#include "tests/error_message.h"
#include "tests/model/tiny_model.h"

namespace mica {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

Matrix<float> HeadOf(const ModelWeights& weights) {
  const Array rows = weights.HeadOn(Device::Cpu(), 0, weights.config().vocab, DType::kF32);
  Matrix<float> matrix(rows.rows(), rows.cols());
  std::copy_n(rows.view().host<float>().data, matrix.size(), matrix.data());
  return matrix;
}

Matrix<float> EmbeddingOf(const ModelWeights& weights) {
  std::vector<int32_t> ids(weights.config().vocab);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  Matrix<float> rows(ids.size(), weights.config().hidden);
  weights.Embed(ids, rows);
  return rows;
}

void ExpectSame(const Matrix<float>& a, const Matrix<float>& b, const char* what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << what;
}

// Every value that a layer reads.
void ExpectSameModel(const ModelWeights& a, const ModelWeights& b) {
  ExpectSame(EmbeddingOf(a), EmbeddingOf(b), "embedding");
  ExpectSame(HeadOf(a), HeadOf(b), "head");
  EXPECT_EQ(a.FinalNorm(), b.FinalNorm());
  for (size_t layer = 0; layer < a.config().layers; ++layer) {
    for (const NormKind norm : kNormKinds) EXPECT_EQ(a.Norm(layer, norm), b.Norm(layer, norm));
    for (const LinearKind kind : kLinearKinds) {
      ExpectSame(a.Linear(layer, kind), b.Linear(layer, kind), LinearName(kind));
      EXPECT_EQ(a.Bias(layer, kind), b.Bias(layer, kind)) << LinearName(kind);
    }
  }
}

Json WithBiases() {
  Json json = TinyConfig();
  json["attention_bias"] = json["mlp_bias"] = true;
  return json;
}
Json Qwen2() {
  Json json = TinyConfig();
  json["architectures"] = {"Qwen2ForCausalLM"};
  json["model_type"] = "qwen2";
  json["tie_word_embeddings"] = true;
  json["rope_theta"] = 1000000.0;
  return json;
}
Json Llama3() {
  Json json = TinyConfig();
  json["head_dim"] = 16;
  json["rope_theta"] = 500000.0;
  json["rope_scaling"] = {{"rope_type", "llama3"},
                          {"factor", 8.0},
                          {"low_freq_factor", 1.0},
                          {"high_freq_factor", 4.0},
                          {"original_max_position_embeddings", 8192}};
  return json;
}
Json Mistral() {
  Json json = TinyConfig();
  json["architectures"] = {"MistralForCausalLM"};
  json["model_type"] = "mistral";
  json["sliding_window"] = nullptr;
  json["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 4.0}};
  return json;
}

Json SmolLm3() {
  Json json = TinyConfig();
  json.update({{"model_type", "smollm3"}, {"architectures", {"SmolLM3ForCausalLM"}}, {"num_hidden_layers", 4}});
  return json;
}
Json Gemma2() {
  Json json = TinyConfig();
  json.update({{"model_type", "gemma2"}, {"architectures", {"Gemma2ForCausalLM"}}, {"head_dim", 8},
               {"query_pre_attn_scalar", 8}, {"sliding_window", 16}});
  return json;
}
Json Gemma3() {
  Json json = Gemma2();
  json.update({{"model_type", "gemma3_text"}, {"architectures", {"Gemma3ForCausalLM"}}, {"rope_theta", 1000000.0},
               {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}},
               {"layer_types", {"full_attention", "sliding_attention"}}});
  return json;
}
// Of ArchitectureCases, what keys of GGUF files can say.
template <size_t kIndex>
Json Architecture() {
  constexpr const char* kNames[] = {"Ministral3", "Qwen3", "Granite", "Phi3Partial",
                                    "Phi3Long",   "Olmo2", "Olmo3",   "Gemma"};
  Json json = TinyConfig();
  for (const ShapeCase& one : ArchitectureCases()) {
    if (one.name == std::string_view(kNames[kIndex])) json.update(one.changes);
  }
  return json;
}

class GgufRoundTrip : public testing::TestWithParam<Json (*)()> {};

TEST_P(GgufRoundTrip, EveryRoleIsTheSame) {
  const TinyModel model(GetParam()());
  const TemporaryDirectory scratch;
  Progress progress(false);
  const fs::path file = scratch / "m.gguf";
  const ExportFacts facts = ExportGguf(model.directory(), file, {}, progress);
  EXPECT_EQ(facts.file_bytes, fs::file_size(file));
  const ModelWeights read = ModelWeights::Open(file);
  EXPECT_FALSE(read.packed());
  EXPECT_EQ(read.checkpoint().layout(), "GGUF, F32");
  ExpectSameModel(model.weights(), read);
  const ModelConfig &a = model.config(), &b = read.config();
  EXPECT_EQ(ParameterCount(a), ParameterCount(b));
  EXPECT_EQ(std::tuple(a.layers, a.hidden, a.heads, a.kv_heads, a.head_dim, a.ffn, a.vocab, a.max_positions),
            std::tuple(b.layers, b.hidden, b.heads, b.kv_heads, b.head_dim, b.ffn, b.vocab, b.max_positions));
  EXPECT_EQ(a.norm_epsilon, b.norm_epsilon);
  EXPECT_EQ(a.norms, b.norms);
  EXPECT_EQ(a.activation, b.activation);
  const auto factors = [](const ModelConfig& c) {
    return std::vector<float>{c.score_factor, c.attention_cap, c.logit_cap, c.embedding_factor, c.residual_factor,
                              c.logit_factor, static_cast<float>(c.query_slope),
                              static_cast<float>(c.query_positions)};
  };
  const std::vector<float> of_a = factors(a), of_b = factors(b);
  for (size_t i = 0; i < of_a.size(); ++i) EXPECT_NEAR(of_a[i], of_b[i], 1e-6 * std::abs(of_a[i])) << i;
  ASSERT_EQ(a.ropes.size(), b.ropes.size());
  for (size_t i = 0; i < a.ropes.size(); ++i) {
    for (const size_t window : {5, 100}) {
      const std::vector<double> one = RopeFrequencies(a.ropes[i], window), other = RopeFrequencies(b.ropes[i], window);
      ASSERT_EQ(one.size(), other.size());
      for (size_t k = 0; k < one.size(); ++k) EXPECT_NEAR(one[k], other[k], 1e-6 * one[k]);
    }
    EXPECT_NEAR(a.ropes[i].amplitude, b.ropes[i].amplitude, 1e-6);
  }
  for (size_t layer = 0; layer < a.layers; ++layer) {
    EXPECT_EQ(a.traits[layer].sliding, b.traits[layer].sliding);
    EXPECT_EQ(a.traits[layer].rope, b.traits[layer].rope);
  }
  EXPECT_EQ(a.tied_head, b.tied_head);
  // What was read is written again as it was.
  fs::create_directory(scratch / "again");
  ExportGguf(file, scratch / "again" / "m.gguf", {}, progress);
  const GgufFile one = OpenGguf(file), other = OpenGguf(scratch / "again" / "m.gguf");
  ASSERT_EQ(one.tensors.size(), other.tensors.size());
  for (size_t i = 0; i < one.tensors.size(); ++i) {
    EXPECT_EQ(one.tensors[i].name, other.tensors[i].name);
    EXPECT_TRUE(std::ranges::equal(one.tensors[i].data, other.tensors[i].data)) << one.tensors[i].name;
  }
  EXPECT_EQ(ModelFingerprint(read), ModelFingerprint(ModelWeights::Open(scratch / "again")));
}

INSTANTIATE_TEST_SUITE_P(Models, GgufRoundTrip,
                         testing::Values(TinyConfig, WithBiases, Qwen2, Llama3, Mistral, SmolLm3, Gemma2, Gemma3,
                                         Architecture<0>, Architecture<1>, Architecture<2>, Architecture<3>,
                                         Architecture<4>, Architecture<5>, Architecture<6>, Architecture<7>));

TEST(GgufModel, WhatTheFileHolds) {
  const TinyModel model(WithBiases());
  const TemporaryDirectory scratch;
  Progress progress(false);
  ExportGguf(model.directory(), scratch / "m.gguf", {.dtype = DType::kF16}, progress);
  const GgufFile file = OpenGguf(scratch / "m.gguf");
  EXPECT_EQ(std::get<std::string>(*FindKey(file.keys, "general.architecture")), "llama");
  EXPECT_EQ(std::get<uint32_t>(*FindKey(file.keys, "llama.attention.head_count_kv")), 2u);
  EXPECT_EQ(std::get<uint32_t>(*FindKey(file.keys, "general.file_type")), 1u);
  EXPECT_EQ(std::get<float>(*FindKey(file.keys, "llama.rope.freq_base")), 10000.0f);
  EXPECT_EQ(std::get<std::string>(*FindKey(file.keys, "tokenizer.ggml.model")), "no_vocab");
  for (const GgufTensor& tensor : file.tensors)
    EXPECT_EQ(tensor.type, tensor.shape.size() == 2 ? GgmlType::kF16 : GgmlType::kF32) << tensor.name;
  // Rows of k, and its bias, have halves of a head of 6 beside each other.
  const Matrix<float> k = model.weights().Linear(1, LinearKind::kK);
  const std::vector<float> bias = model.weights().Bias(1, LinearKind::kK);
  for (const GgufTensor& tensor : file.tensors) {
    std::vector<float> values(tensor.rows * tensor.cols);
    if (tensor.name == "blk.1.attn_k.bias") {
      std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
      for (size_t r = 0; r < 12; ++r) EXPECT_EQ(values[r], bias[r / 6 * 6 + r % 2 * 3 + r % 6 / 2]);
    } else if (tensor.name == "blk.1.attn_k.weight") {
      DecodeRow(tensor.type, tensor.data, values);
      for (size_t r = 0; r < 12; ++r)
        EXPECT_EQ(values[r * 24 + 5], ToFloat(ToF16(k(r / 6 * 6 + r % 2 * 3 + r % 6 / 2, 5))));
    }
  }
}

// A model all of whose matrices are random blocks of one type.
TEST(GgufModel, EveryTypeByRole) {
  Json json = TinyConfig();
  json["hidden_size"] = 256;
  json["intermediate_size"] = 512;
  json["num_attention_heads"] = 8;
  json["num_key_value_heads"] = 4;
  json["num_hidden_layers"] = 1;
  const ModelConfig config = ParseConfig(json, "test");
  uint32_t seed = 1;
  for (const GgmlTypeFacts& facts : GgmlTypes()) {
    const TemporaryDirectory scratch;
    const GgufModelLayout layout = MakeGgufLayout(
        config,
        {.name = "random", .tokenizer_keys = {}, .type_of = [&](const TensorPlace&) { return facts.type; }});
    std::map<std::string, std::vector<std::byte>> stored;
    GgufWriter writer(scratch / "m.gguf", layout.Specs(), layout.keys);
    for (const GgufModelTensor& tensor : layout.tensors) {
      std::vector<std::byte> bytes(SpecBytes(tensor.spec));
      for (std::byte& byte : bytes)  // no scale is infinite
        byte = static_cast<std::byte>((seed = seed * 1664525 + 1013904223) >> 24 & 0x3B);
      writer.Write(bytes);
      stored[tensor.source] = std::move(bytes);
    }
    writer.Commit();
    if (!CanDecode(facts.type)) {
      ExpectError([&] { ModelWeights::Open(scratch / "m.gguf"); },
                  {"has dtype ", facts.name, "expected F32"});
      continue;
    }
    const ModelWeights weights = ModelWeights::Open(scratch / "m.gguf");
    const auto expected = [&](const std::string& name, size_t rows, size_t cols) {
      Matrix<float> values(rows, cols);
      DecodeRow(facts.type, stored.at(name), {values.data(), values.size()});
      return values;
    };
    ExpectSame(EmbeddingOf(weights), expected("model.embed_tokens.weight", 50, 256), facts.name);
    ExpectSame(HeadOf(weights), expected("lm_head.weight", 50, 256), facts.name);
    for (const LinearKind kind : kLinearKinds) {
      const MatrixShape shape = LinearShape(config, kind);
      const Matrix<float> values =
          expected(WeightName(LinearTensorName(*config.family, 0, kind)), shape.rows, shape.cols);
      const std::vector<uint32_t> order = GgufRowOrder(*FindGgufArchitecture("llama"), config, kind);
      Matrix<float> in_order(shape.rows, shape.cols);
      for (size_t r = 0; r < shape.rows; ++r)
        std::copy_n(values.row(order.empty() ? r : order[r]), shape.cols, in_order.row(r));
      ExpectSame(weights.Linear(0, kind), in_order, facts.name);
    }
    EXPECT_EQ(ModelFingerprint(weights).size(), 64u);
    EXPECT_EQ(weights.checkpoint().layout(), fmt::format("GGUF, {}", facts.name));
  }
}

// A file in the making, to be changed before it is written.
class GgufFaults : public testing::Test {
 protected:
  GgufFaults() { Make(TinyConfig()); }
  void Make(const Json& json) {
    const TinyModel model(json);
    Progress progress(false);
    ExportGguf(model.directory(), scratch_ / "made.gguf", {}, progress);
    const GgufFile file = OpenGguf(scratch_ / "made.gguf");
    keys_ = file.keys;
    tensors_.clear();
    for (const GgufTensor& tensor : file.tensors)
      tensors_.emplace_back(tensor, std::vector<std::byte>(tensor.data.begin(), tensor.data.end()));
    fs::remove(scratch_ / "made.gguf");
  }
  GgufValue& Key(const std::string& name) {
    for (GgufKey& key : keys_) {
      if (key.name == name) return key.value;
    }
    return keys_.emplace_back(GgufKey{name, {}}).value;
  }
  void Erase(const std::string& key) {
    std::erase_if(keys_, [&](const GgufKey& one) { return one.name == key; });
  }
  GgufTensorSpec& Tensor(const std::string& name) {
    for (auto& [spec, bytes] : tensors_) {
      if (spec.name == name) return spec;
    }
    throw std::runtime_error(name);
  }
  // Writes what there is and opens it.
  ModelWeights Open() {
    std::vector<GgufTensorSpec> specs;
    for (const auto& [spec, bytes] : tensors_) specs.push_back(spec);
    GgufWriter writer(scratch_ / "m.gguf", specs, keys_);
    for (auto& [spec, bytes] : tensors_) {
      bytes.resize(SpecBytes(spec));
      writer.Write(bytes);
    }
    writer.Commit();
    return ModelWeights::Open(scratch_ / "m.gguf");
  }
  void ExpectRefused(std::vector<std::string> parts) {
    parts.push_back("m.gguf: ");
    ExpectError([&] { Open(); }, parts);
    Make(TinyConfig());
  }

  TemporaryDirectory scratch_;
  std::vector<GgufKey> keys_;
  std::vector<std::pair<GgufTensorSpec, std::vector<std::byte>>> tensors_;
};

TEST_F(GgufFaults, Keys) {
  Open();
  Key("general.architecture") = std::string("mamba");
  ExpectRefused({"general.architecture is \"mamba\"", "supported are llama, mistral3, "});
  Erase("general.architecture");
  ExpectRefused({"has no key general.architecture"});
  Key("general.architecture") = uint32_t{1};
  ExpectRefused({"general.architecture has type UINT32, expected STRING"});
  Key("general.type") = std::string("imatrix");
  ExpectRefused({"of type \"imatrix\", expected \"model\""});
  Erase("llama.block_count");
  ExpectRefused({"has no key llama.block_count"});
  Key("llama.block_count") = std::string("two");
  ExpectRefused({"llama.block_count has type STRING, expected one number"});
  Key("llama.attention.head_count_kv") = GgufArray{std::vector<uint32_t>{2, 2}};
  ExpectRefused({"llama.attention.head_count_kv has type ARRAY, expected one number for all layers"});
  Key("llama.block_count") = uint32_t{3};
  ExpectRefused({"tensor blk.2.attn_norm.weight is missing", "3 layers"});
  Key("llama.block_count") = uint32_t{1};
  ExpectRefused({"tensor blk.1.", "has no place in a llama model of 1 layers"});
  Key("llama.feed_forward_length") = uint32_t{41};
  ExpectRefused({"has shape [40, 24], expected [41, 24]", "does not match its keys"});
  Key("llama.attention.head_count") = int32_t{-4};
  ExpectRefused({"num_attention_heads is -4"});
  Key("llama.expert_count") = uint32_t{8};
  ExpectRefused({"llama.expert_count is 8: a mixture of experts"});
  Key("llama.attention.value_length") = uint32_t{8};
  ExpectRefused({"llama.attention.value_length is 8, supported is 6 of heads of 6 channels"});
  Key("llama.rope.dimension_count") = uint32_t{4};
  ExpectRefused({"llama.rope.dimension_count is 4"});
  Key("llama.rope.scaling.type") = std::string("yarm");
  ExpectRefused({"llama.rope.scaling.type is \"yarm\"", "supported are none, linear, yarn"});
}

TEST_F(GgufFaults, KeysThatMayBeLeftOut) {
  for (const char* key : {"llama.attention.head_count_kv", "llama.vocab_size", "llama.attention.key_length",
                          "llama.attention.value_length", "llama.rope.dimension_count",
                          "llama.rope.freq_base", "general.type", "general.name"})
    Erase(key);
  Tensor("blk.0.attn_k.weight").shape = Tensor("blk.0.attn_v.weight").shape = {24, 24};
  Tensor("blk.1.attn_k.weight").shape = Tensor("blk.1.attn_v.weight").shape = {24, 24};
  const ModelWeights weights = Open();
  EXPECT_EQ(weights.config().kv_heads, 4u);
  EXPECT_EQ(weights.config().vocab, 50u);
  EXPECT_EQ(weights.config().ropes.front().theta, 10000.0);
}

TEST_F(GgufFaults, Tensors) {
  Tensor("blk.0.attn_q.weight").name = "blk.0.attn_qkv.weight";
  ExpectRefused({"tensor blk.0.attn_q.weight is missing"});
  tensors_.push_back({{"blk.0.attn_q_norm.weight", GgmlType::kF32, {6}}, {}});
  ExpectRefused({"tensor blk.0.attn_q_norm.weight has no place in a llama model"});
  Tensor("blk.0.attn_q.weight").shape = {23, 24};
  ExpectRefused({"model.layers.0.self_attn.q_proj.weight has shape [23, 24], expected [24, 24]"});
  Tensor("output_norm.weight").type = GgmlType::kI32;
  ExpectRefused({"has dtype I32, expected F32, F16 or BF16"});
  tensors_.push_back({{"rope_freqs.weight", GgmlType::kF32, {4}}, {}});
  ExpectRefused({"rope_freqs.weight has shape [4], expected [3]"});
  tensors_.push_back({{"rope_freqs.weight", GgmlType::kF32, {3}}, {}});  // all 0
  ExpectRefused({"rope_freqs.weight holds factors from 0 to 0"});
}

TEST_F(GgufFaults, BiasesOfOneLayerAreRead) {
  std::vector<std::byte> bytes(6 * 2 * 4);
  const float value = 0.5f;
  std::memcpy(&bytes[4 * 3], &value, 4);
  tensors_.push_back({{"blk.1.attn_k.bias", GgmlType::kF32, {12}}, bytes});
  const ModelWeights weights = Open();
  EXPECT_TRUE(weights.Bias(0, LinearKind::kK).empty());
  const std::vector<float> bias = weights.Bias(1, LinearKind::kK);  // stored row 3 is channel 4 of its head
  for (size_t r = 0; r < 12; ++r) EXPECT_EQ(bias[r], r == 4 ? 0.5f : 0.0f) << r;
}

TEST_F(GgufFaults, FactorsOfOneAreNoScaling) {
  std::vector<std::byte> bytes(3 * 4);
  for (size_t i = 0; i < 3; ++i) {
    const float one = 1.0f;
    std::memcpy(&bytes[4 * i], &one, 4);
  }
  tensors_.push_back({{"rope_freqs.weight", GgmlType::kF32, {3}}, bytes});
  EXPECT_EQ(Open().config().ropes.front().scaling, RopeScaling::kNone);
}

TEST(GgufExport, ValuesThatDoNotFit) {
  const TemporaryDirectory scratch;
  Tensors tensors = RandomTensors(ParseConfig(TinyConfig(), "test"), 1);
  tensors["model.layers.1.mlp.up_proj.weight"].second[7] = 1e6f;
  WriteModel(scratch.path(), TinyConfig(), tensors);
  Progress progress(false);
  ExpectError([&] { ExportGguf(scratch.path(), scratch / "m.gguf", {.dtype = DType::kF16}, progress); },
              {"blk.1.ffn_up.weight: value 1000000 does not fit FP16", "--dtype fp32"});
  EXPECT_FALSE(fs::exists(scratch / "m.gguf"));
  ExportGguf(scratch.path(), scratch / "m.gguf", {.dtype = DType::kBF16}, progress);
  ExpectError([&] { ExportGguf(scratch / "m.gguf", scratch / "m.gguf", {}, progress); }, {"m.gguf"});
}

}  // namespace
}  // namespace mica
