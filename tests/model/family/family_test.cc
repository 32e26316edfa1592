// What a family says of its tensors: each name's role, the treatment of each role, and lists for messages.
#include "model/family/family.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace mica {
namespace {

const Family& Llama() { return *FindModelType("llama")->family; }

struct NamedPlace {
  const char* name;
  TensorRole role;
  std::optional<size_t> layer;
};

TEST(Family, KnowsTheRoleOfEachTensor) {
  constexpr size_t kNoLayer = std::numeric_limits<size_t>::max();
  for (const NamedPlace& expected : std::initializer_list<NamedPlace>{
           {"model.embed_tokens.weight", TensorRole::kEmbedding, {}},
           {"lm_head.weight", TensorRole::kHead, {}},
           {"lm_head.bias", TensorRole::kBias, {}},
           {"model.norm.weight", TensorRole::kFinalNorm, {}},
           {"model.layers.12.input_layernorm.weight", TensorRole::kNorm, 12},
           {"model.layers.0.post_attention_layernorm.weight", TensorRole::kNorm, 0},
           {"model.layers.3.self_attn.q_proj.bias", TensorRole::kBias, 3},
           {"model.layers.3.self_attn.rotary_emb.inv_freq", TensorRole::kOther, 3},
           {"model.layers.3.lm_head.weight", TensorRole::kOther, 3},
           {"model.layers.03.mlp.up_proj.weight", TensorRole::kOther, kNoLayer},
           {"model.layers.x.mlp.up_proj.weight", TensorRole::kOther, kNoLayer},
           {"model.layers.", TensorRole::kOther, kNoLayer},
           {"mlp.up_proj.weight", TensorRole::kOther, {}},
           {"model.embed_tokens", TensorRole::kOther, {}},
           {"", TensorRole::kOther, {}}}) {
    const TensorPlace place = PlaceOf(Llama(), expected.name);
    EXPECT_EQ(place.role, expected.role) << expected.name;
    EXPECT_EQ(place.layer, expected.layer) << expected.name;
  }
  for (const LinearKind kind : kLinearKinds) {
    const TensorPlace place = PlaceOf(Llama(), WeightName(LinearTensorName(Llama(), 31, kind)));
    EXPECT_EQ(place.role, TensorRole::kLinear);
    EXPECT_EQ(place.layer, 31u);
    EXPECT_EQ(place.kind, kind);
  }
  EXPECT_EQ(LinearTensorName(Llama(), 3, LinearKind::kGate), "model.layers.3.mlp.gate_proj");
  EXPECT_EQ(ModuleName("model.norm.weight"), "model.norm");
}

TEST(Family, SaysWhatCompressionDoesWithEachRole) {
  EXPECT_EQ(TreatmentOf(TensorRole::kLinear, false), Treatment::kCompressed);
  EXPECT_EQ(TreatmentOf(TensorRole::kEmbedding, true), Treatment::kGivenWidth);
  EXPECT_EQ(TreatmentOf(TensorRole::kHead, false), Treatment::kGivenWidth);
  EXPECT_EQ(TreatmentOf(TensorRole::kHead, true), Treatment::kLeftOut);
  for (const TensorRole role : {TensorRole::kFinalNorm, TensorRole::kNorm,
                                TensorRole::kBias, TensorRole::kOther}) {
    EXPECT_EQ(TreatmentOf(role, false), Treatment::kCopied);
  }
}

TEST(Family, ListsModelTypesForMessages) {
  EXPECT_TRUE(JoinNames(ModelTypes(), "or").starts_with("llama, mistral, ministral, "));
  EXPECT_THAT(JoinNames(ModelTypes(), "and", &ModelType::also),
              testing::HasSubstr("llama (also Vicuna and Yi), mistral"));
  EXPECT_EQ(FindModelType("gpt2"), nullptr);
  EXPECT_EQ(FindModelType("mistral")->family, &Llama());
}

TEST(Family, NormsMayBeStoredLessOne) {
  Family family = Llama();
  EXPECT_EQ(NormFactors(family, {0.5f, 1.0f}), (std::vector{0.5f, 1.0f}));
  family.norm_offset = 1.0f;
  EXPECT_EQ(NormFactors(family, {0.5f, -0.25f}), (std::vector{1.5f, 0.75f}));
}

}  // namespace
}  // namespace mica
