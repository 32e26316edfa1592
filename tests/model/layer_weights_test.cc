// The weights of one layer: the values of the checkpoint, each matrix read once.
#include "model/layer_weights.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "model/layer.h"
#include "tests/model/tiny_model.h"

namespace mica {
namespace {

TEST(LayerWeights, ReadsEachMatrixOnceAndHandsItOver) {
  Json json = TinyConfig();
  json["attention_bias"] = true;
  const TinyModel model(json);
  LayerWeights weights(model.weights(), 1);
  EXPECT_EQ(weights.index(), 1u);
  EXPECT_EQ(weights.norm(NormKind::kAttentionInput), model.weights().Norm(1, NormKind::kAttentionInput));
  EXPECT_EQ(weights.norm(NormKind::kMlpInput), model.weights().Norm(1, NormKind::kMlpInput));
  for (const LinearKind kind : kLinearKinds) {
    EXPECT_EQ(weights.bias(kind), model.weights().Bias(1, kind));
    const Matrix<float> expected = model.weights().Linear(1, kind);
    const uint64_t before = ModelWeights::LinearReads();
    const std::byte* const data = weights.Linear(kind).view().data;
    EXPECT_EQ(weights.Linear(kind).view().data, data);
    const Array taken = weights.Take(kind);
    EXPECT_EQ(taken.view().data, data);
    EXPECT_EQ(ModelWeights::LinearReads() - before, 1u);
    ASSERT_EQ(taken.rows() * taken.cols(), expected.size());
    EXPECT_TRUE(std::equal(expected.data(), expected.data() + expected.size(), taken.view().host<float>().data));
  }
}

TEST(LayerWeights, ALayerIsMadeMatrixByMatrix) {
  const TinyModel model(TinyConfig());
  const std::vector<int32_t> ids = RandomIds(20, 50, 4);
  Matrix<float> x(20, 24), y(20, 24);
  model.weights().Embed(ids, x);
  model.weights().Embed(ids, y);
  LayerWeights weights(model.weights(), 0);
  DecoderLayer layer(weights, Precision::kFp32);
  EXPECT_EQ(layer.weight_bytes(), 0u);
  for (const LinearKind kind : kLinearKinds) layer.SetLinear(kind, weights.Take(kind).view());
  layer.Forward(x, 10);
  DecoderLayer(model.weights(), 0, Precision::kFp32).Forward(y, 10);
  EXPECT_TRUE(std::equal(x.data(), x.data() + x.size(), y.data()));
}

}  // namespace
}  // namespace mica
