// Texts that a running model continues, against the forward pass over all of their tokens.
#include "model/running_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <thread>
#include <utility>

#include "base/error.h"
#include "device/cuda.h"
#include "model/token_pass.h"
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

// Passes of one token, which are recorded, against the same token by token, which are not: the same bits,
// with prompts, caches that are cut, and other caches between them.
TEST_P(RunningModelTest, RecordedTokensAreAsOthers) {
  if (CudaDevices() == 0) GTEST_SKIP() << CudaAbsence();
  const Device gpu = Device::Cuda();
  const ModelWeights weights = ModelWeights::Open(directory_.path());
  const RunningModel model(weights, gpu);
  const std::vector<int32_t> ids = RandomIds(90, weights.config().vocab, 5);
  for (const int bits : {16, 8}) {
    KeyCache recorded(weights.config(), ids.size(), bits, gpu), plain(weights.config(), ids.size(), bits, gpu),
        shorter(weights.config(), 20, bits, gpu);
    const auto next = [&](size_t t) {
      ASSERT_EQ(recorded.tokens(), t);
      const std::vector<float> got = model.Continue(std::span(ids).subspan(t, 1), recorded);
      const Matrix<float> expected = model.ContinueAll(std::span(ids).subspan(t, 1), plain);
      ASSERT_TRUE(std::equal(got.begin(), got.end(), expected.row(0))) << "token " << t;
    };
    const auto both = [&](const auto& change) {
      change(recorded);
      change(plain);
    };
    for (size_t t = 0; t < 70; ++t) next(t);
    EXPECT_FALSE(recorded.token_pass().work.empty());
    both([](KeyCache& cache) { cache.Truncate(3); });
    // A prompt takes more memory than a token.
    both([&](KeyCache& cache) { model.ContinueAll(std::span(ids).subspan(3, 30), cache); });
    for (size_t t = 33; t < 40; ++t) next(t);
    // Angles may depend on the room of the cache.
    for (size_t t = 0; t < 5; ++t) model.Continue(std::span(ids).subspan(t, 1), shorter);
    for (size_t t = 40; t < 50; ++t) next(t);
    both([](KeyCache& cache) { cache.Truncate(0); });
    for (size_t t = 0; t < 4; ++t) next(t);
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, RunningModelTest, testing::ValuesIn(ArchitectureCases()),
                         [](const auto& info) { return info.param.name; });

TEST(RunningModel, OtherThreadsModelsAndMovedCachesRecordAnew) {
  if (CudaDevices() == 0) GTEST_SKIP() << CudaAbsence();
  const Device gpu = Device::Cuda();
  const TinyModel a(TinyConfig(), 1), b(TinyConfig(), 2);
  const RunningModel of_a(a.weights(), gpu), of_b(b.weights(), gpu);
  const std::vector<int32_t> ids = RandomIds(40, a.config().vocab, 5);
  KeyCache first(a.config(), ids.size(), 16, gpu), plain(a.config(), ids.size(), 16, gpu);
  const auto pass = [&](const RunningModel& model, KeyCache& cache, size_t first_token, size_t end) {
    for (size_t t = first_token; t < end; ++t) {
      const std::vector<float> got = model.Continue(std::span(ids).subspan(t, 1), cache);
      const Matrix<float> expected = model.ContinueAll(std::span(ids).subspan(t, 1), plain);
      ASSERT_TRUE(std::equal(got.begin(), got.end(), expected.row(0))) << "token " << t;
    }
  };
  pass(of_a, first, 0, 10);
  std::thread([&] {
    pass(of_a, first, 10, 20);
    Synchronize(gpu);
  }).join();
  pass(of_b, first, 20, 30);
  KeyCache moved = std::move(first);
  pass(of_b, moved, 30, 33);
  pass(of_a, moved, 33, 40);
}

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
