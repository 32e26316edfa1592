#include "compress/plan.h"

#include <gtest/gtest.h>

namespace mica {
namespace {

ModelConfig Vicuna13B() {
  return ParseConfig({{"model_type", "llama"},
                      {"hidden_size", 5120},
                      {"intermediate_size", 13824},
                      {"num_hidden_layers", 40},
                      {"num_attention_heads", 40},
                      {"vocab_size", 32000},
                      {"max_position_embeddings", 4096}},
                     "config");
}

CompressionSettings Settings(size_t samples, size_t seqlen) {
  CompressionSettings settings;
  settings.calibration.samples = samples;
  settings.calibration.seqlen = seqlen;
  return settings;
}

// Measured (docs/performance.md): 8.9 GB with coding fixed, 9.9 GB with coding entropy.
TEST(PlanCompression, IsNearWhatWasMeasured) {
  const uint64_t bytes = PlanCompression(Settings(16, 2048), Vicuna13B(), true).total();
  EXPECT_GT(bytes, uint64_t{8'900'000'000});
  EXPECT_LT(bytes, uint64_t{11'500'000'000});
}

TEST(PlanCompression, GrowsWithTheTextAndNotWithDepth) {
  ModelConfig config = Vicuna13B();
  const uint64_t few = PlanCompression(Settings(16, 2048), config, true).total(),
                 many = PlanCompression(Settings(128, 2048), config, true).total();
  // 112 x 2048 more tokens: two streams of the width and one of hidden activations, of 2 bytes a value.
  EXPECT_GE(many - few, uint64_t{112} * 2048 * 2 * (2 * 5120 + 13824));
  config.layers = 80;
  EXPECT_EQ(PlanCompression(Settings(16, 2048), config, true).total(), few);
}

// A quarter of a million tokens: more than a layer of this model.
TEST(PlanCompression, CountsAVocabularyThatIsLargerThanALayer) {
  ModelConfig config = Vicuna13B();
  const uint64_t few = PlanCompression(Settings(16, 2048), config, true).total();
  config.vocab = 256000;
  const uint64_t many = PlanCompression(Settings(16, 2048), config, true).total();
  EXPECT_GT(many, few);
  // The solver takes 32768 rows at a time, the weights and their targets are there as a whole.
  EXPECT_LT(many, few + uint64_t{3} * 256000 * 5120 * 4);
}

TEST(EstimatedMatrixBytes, FollowsTheBudget) {
  const double weights = 40.0 * (4 * 5120.0 * 5120 + 3 * 5120.0 * 13824);
  CompressionSettings settings = Settings(16, 2048);
  settings.budget = {BudgetTarget::kBitsPerWeight, 3.2};
  EXPECT_DOUBLE_EQ(EstimatedMatrixBytes(settings, Vicuna13B()), 3.2 * weights / 8);
  // models/demo stores 3.206 bits a weight so.
  settings.budget = {BudgetTarget::kMeanBits, 4.0};
  settings.sparsity.rate = 0.5;
  EXPECT_NEAR(EstimatedMatrixBytes(settings, Vicuna13B()) * 8 / weights, 3.25, 0.06);
  settings.budget = {BudgetTarget::kFileBytes, 5e9};
  EXPECT_DOUBLE_EQ(EstimatedMatrixBytes(settings, Vicuna13B()), 5e9);
}

}  // namespace
}  // namespace mica
