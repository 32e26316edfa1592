// A family that the program does not have, declared as docs/architecture.md says ("One more family"): EXAONE 3,
// LLaMA's mathematics under other names. It must compute what LLaMA computes from the same weights.
#include <gtest/gtest.h>

#include "model/layer.h"
#include "tests/model/tiny_model.h"

namespace mica {
namespace {

extern const Family kExaone;
constexpr ModelType kTypes[] = {
    {.family = &kExaone, .name = "exaone", .architecture = "ExaoneForCausalLM", .max_positions = 2048}};
constexpr ConfigKeys kKeys = [] {
  ConfigKeys keys = kUsualKeys;
  keys.layers = "num_layers";
  keys.norm_epsilon = "layer_norm_epsilon";
  keys.activation = "activation_function";
  return keys;
}();
constexpr TensorNames kNames = {
    .embedding = "transformer.wte",
    .head = "lm_head",
    .final_norm = "transformer.ln_f",
    .layers = "transformer.h.",
    .norms = {"ln_1", "ln_2", nullptr, nullptr, nullptr, nullptr},
    .linears = {"attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj",
                "attn.attention.out_proj", "mlp.c_fc_0", "mlp.c_fc_1", "mlp.c_proj"}};
const Family kExaone = {.types = kTypes, .keys = kKeys, .names = kNames};

TEST(NewFamily, IsAFileAndATableEntry) {
  AddFamily(kExaone);
  const TinyModel llama(TinyConfig());
  Json json = TinyConfig();
  for (const auto& [from, to] : {std::pair{"num_hidden_layers", "num_layers"},
                                 {"rms_norm_eps", "layer_norm_epsilon"}, {"hidden_act", "activation_function"}}) {
    json[to] = json[from];
    json.erase(from);
  }
  json["model_type"] = "exaone";
  json["architectures"] = {"ExaoneForCausalLM"};
  Tensors renamed;
  for (const auto& [name, tensor] : RandomTensors(llama.config(), 1)) {
    const std::string module = ModuleName(name);
    const TensorPlace place = PlaceOf(*llama.config().family, name);
    std::string other = module == "model.embed_tokens" ? kNames.embedding
                        : module == "model.norm"       ? kNames.final_norm
                                                       : kNames.head;
    if (place.role == TensorRole::kLinear) other = LinearTensorName(kNames, *place.layer, place.kind);
    if (place.role == TensorRole::kNorm) other = NormTensorName(kNames, *place.layer, place.norm);
    renamed[WeightName(other)] = tensor;
  }
  const TemporaryDirectory directory;
  WriteModel(directory.path(), json, renamed);
  const std::vector<int32_t> ids = RandomIds(20, 50, 1);
  const Matrix<float> expected = LogitsOf(llama.weights(), ids),
                      actual = LogitsOf(ModelWeights::Open(directory.path()), ids);
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(actual.data()[i], expected.data()[i]);
}

}  // namespace
}  // namespace mica
