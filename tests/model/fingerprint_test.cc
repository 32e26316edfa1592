// What a fingerprint follows: what is read, and nothing else.
#include "model/fingerprint.h"

#include <gtest/gtest.h>

#include <limits>
#include <stop_token>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "tests/error_message.h"
#include "tests/model/tiny_model.h"

namespace mica {
namespace {

std::string Of(const Json& config, const Tensors& tensors) {
  const TemporaryDirectory directory;
  WriteModel(directory.path(), config, tensors);
  return ModelFingerprint(ModelWeights::Open(directory.path()));
}

class FingerprintTest : public testing::Test {
 protected:
  const Json config_ = TinyConfig();
  const Tensors tensors_ = RandomTensors(ParseConfig(config_, "config.json"), 7);
  const std::string fingerprint_ = Of(config_, tensors_);
};

TEST_F(FingerprintTest, FollowsWhatIsRead) {
  for (const auto& [key, value] : {std::pair<const char*, Json>{"rms_norm_eps", 1e-6},
                                   {"rope_theta", 10001.0},
                                   {"max_position_embeddings", 512},
                                   {"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}}}) {
    Json config = config_;
    config[key] = value;
    EXPECT_NE(Of(config, tensors_), fingerprint_) << key;
  }
  for (const char* name : {"model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight",
                           "lm_head.weight"}) {
    Tensors tensors = tensors_;
    tensors.at(name).second.back() += 1.0f;
    EXPECT_NE(Of(config_, tensors), fingerprint_) << name;
  }
}

TEST_F(FingerprintTest, IsTheSameWhateverIsNotRead) {
  EXPECT_EQ(Of(config_, tensors_), fingerprint_);
  Json config = Json::object();
  for (auto key = config_.rbegin(); key != config_.rend(); ++key) config[key.key()] = key.value();
  config["transformers_version"] = "4.99";
  config["use_cache"] = true;
  EXPECT_EQ(Of(config, tensors_), fingerprint_);
  Tensors tensors = tensors_;
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {{3}, {1.0f, 0.1f, 0.01f}};
  EXPECT_EQ(Of(config_, tensors), fingerprint_);
}

TEST_F(FingerprintTest, IsTheSameSharedByAnyNumberOfRanks) {
  const TemporaryDirectory directory;
  WriteModel(directory.path(), config_, tensors_);
  const ModelWeights weights = ModelWeights::Open(directory.path());
  for (const size_t ranks : {2, 3, 100}) {
    std::vector<std::string> all(TensorHashes(weights, 0, 1, {}).size());
    for (size_t rank = 0; rank < ranks; ++rank) {
      const std::vector<std::string> of_rank = TensorHashes(weights, rank, ranks, {});
      ASSERT_EQ(of_rank.size(), all.size());
      for (size_t i = 0; i < all.size(); ++i) {
        if (of_rank[i].empty()) continue;
        EXPECT_TRUE(all[i].empty()) << i;
        all[i] = of_rank[i];
      }
    }
    EXPECT_EQ(ModelFingerprint(weights, all), fingerprint_) << ranks;
  }
}

TEST_F(FingerprintTest, EndsWhenAskedTo) {
  const TemporaryDirectory directory;
  WriteModel(directory.path(), config_, tensors_);
  const ModelWeights weights = ModelWeights::Open(directory.path());
  std::stop_source stop;
  stop.request_stop();
  EXPECT_THROW(TensorHashes(weights, 0, 1, stop.get_token()), Error);
}

TEST_F(FingerprintTest, NamesWhatIsNotFinite) {
  Tensors tensors = tensors_;
  tensors["model.layers.5.mask"] = {{2}, {0.0f, -std::numeric_limits<float>::infinity()}};  // nobody reads it
  EXPECT_EQ(Of(config_, tensors), fingerprint_);
  tensors["model.embed_tokens.weight"].second[24 * 49 + 3] = std::numeric_limits<float>::quiet_NaN();
  ExpectError([&] { Of(config_, tensors); }, {"model.embed_tokens.weight holds NaN at [49, 3]"});
}

}  // namespace
}  // namespace mica
