// Matrices that a checkpoint stores as one.
#include "model/fused.h"

#include <cstring>

#include "tests/error_message.h"
#include "tests/model/tiny_model.h"

namespace mica {
namespace {

Json Phi3() {
  Json json = TinyConfig();
  json.update({{"model_type", "phi3"}, {"architectures", {"Phi3ForCausalLM"}}});
  return json;
}

// The tensors with q, k, v and gate, up of each layer one behind the other.
Tensors Fused(const ModelConfig& config, Tensors tensors) {
  for (size_t layer = 0; layer < config.layers; ++layer) {
    for (const FusedLinears& fused : config.family->fused) {
      std::pair<std::vector<uint64_t>, std::vector<float>> whole = {{0, 0}, {}};
      for (const LinearKind kind : fused.kinds) {
        auto part = tensors.extract(WeightName(LinearTensorName(*config.family, layer, kind)));
        whole.first = {whole.first[0] + part.mapped().first[0], part.mapped().first[1]};
        whole.second.insert(whole.second.end(), part.mapped().second.begin(), part.mapped().second.end());
      }
      tensors[WeightName(LayerName(*config.family, layer, fused.part))] = std::move(whole);
    }
  }
  return tensors;
}

TEST(FusedTest, PartsAreTheLinearLayers) {
  const TinyModel parts(Phi3());
  const TemporaryDirectory directory;
  const Tensors fused = Fused(parts.config(), RandomTensors(parts.config(), 1));
  ASSERT_TRUE(fused.contains("model.layers.1.mlp.gate_up_proj.weight"));
  WriteModel(directory.path(), Phi3(), fused);
  const ModelWeights read = ModelWeights::Open(directory.path());
  for (size_t layer = 0; layer < 2; ++layer) {
    for (const LinearKind kind : kLinearKinds) {
      const Matrix<float> a = parts.weights().Linear(layer, kind), b = read.Linear(layer, kind);
      ASSERT_EQ(a.size(), b.size());
      EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << LinearName(kind);
    }
  }
}

TEST(FusedTest, RefusesOtherShapes) {
  const TinyModel parts(Phi3());
  Tensors fused = Fused(parts.config(), RandomTensors(parts.config(), 1));
  auto& whole = fused.at("model.layers.0.self_attn.qkv_proj.weight");
  whole.first[0] -= 1;
  whole.second.resize(whole.first[0] * whole.first[1]);
  const TemporaryDirectory directory;
  WriteModel(directory.path(), Phi3(), fused);
  ExpectError([&] { ModelWeights::Open(directory.path()); },
              {"model.layers.0.self_attn.qkv_proj.weight", "[47, 24]", "[48, 24]"});
}

}  // namespace
}  // namespace mica
