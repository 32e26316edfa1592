// Texts that a running model continues, against the forward pass over all of their tokens.
#include "model/running_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "tests/error_message.h"
#include "tests/model/tiny_model.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

double Spread(const float* values, size_t count) {
  const auto [least, most] = std::minmax_element(values, values + count);
  return *most - *least;
}

class RunningModelTest : public testing::TestWithParam<ShapeCase> {
 protected:
  void SetUp() override {
    Json json = TinyConfig();
    json.update(GetParam().changes);
    const ModelConfig config = ParseConfig(json, "test");
    WriteModel(directory_.path(), json, RandomTensors(config, 3));
  }
  TemporaryDirectory directory_;
};

TEST_P(RunningModelTest, ContinuesAsTheWholePassDoes) {
  const ModelWeights weights = ModelWeights::Open(directory_.path());
  const RunningModel model(weights, Device::Cpu());
  const std::vector<int32_t> ids = RandomIds(23, weights.config().vocab, 5);
  const Matrix<float> expected = LogitsOf(weights, ids);
  KeyCache cache(weights.config(), ids.size(), 16, Device::Cpu());
  // Keys in 16 bits are off by 2^-11 of themselves.
  const auto near = [&](const float* got, size_t t) {
    const double allowed = 4e-3 * Spread(expected.row(t), expected.cols());
    for (size_t v = 0; v < expected.cols(); ++v) ASSERT_NEAR(got[v], expected(t, v), allowed) << t;
  };
  size_t read = 0;
  for (const size_t piece : {7, 1, 1, 9, 2, 3}) {
    const std::vector<float> logits = model.Continue(std::span(ids).subspan(read, piece), cache);
    read += piece;
    near(logits.data(), read - 1);
  }
  EXPECT_EQ(cache.tokens(), ids.size());
  cache.Truncate(4);
  const Matrix<float> again = model.ContinueAll(std::span(ids).subspan(4), cache);
  for (size_t t = 4; t < ids.size(); ++t) near(again.row(t - 4), t);
}

INSTANTIATE_TEST_SUITE_P(Architectures, RunningModelTest, testing::ValuesIn(ArchitectureCases()),
                         [](const auto& info) { return info.param.name; });

TEST(RunningModel, RefusesTokensOutsideTheVocabularyAndForgetsThem) {
  const TemporaryDirectory directory;
  const Json json = TinyConfig();
  WriteModel(directory.path(), json, RandomTensors(ParseConfig(json, "test"), 3));
  const ModelWeights weights = ModelWeights::Open(directory.path());
  const RunningModel model(weights, Device::Cpu());
  KeyCache cache(weights.config(), 8, 16, Device::Cpu());
  const int32_t beyond = static_cast<int32_t>(weights.config().vocab);
  model.Continue(std::vector<int32_t>{1, 2}, cache);
  EXPECT_THROW(model.Continue(std::vector<int32_t>{3, beyond}, cache), Error);
  EXPECT_EQ(cache.tokens(), 2u);
}

}  // namespace
}  // namespace mica
