// The residual stream of the calibration windows: embedded, in portions of whole windows, rounded when
// stored.
#include "compress/calibrate/residual_stream.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/threads.h"
#include "tests/compress/loaded.h"
#include "tests/compress/tiny_calibration.h"
#include "tests/ops/random_values.h"

namespace mica {
namespace {

struct Cut {
  size_t windows, window;
  size_t portion_windows;  // whole windows of at most 8192 tokens together, at least one
};
void PrintTo(const Cut& cut, std::ostream* out) { *out << cut.windows << " windows of " << cut.window; }

class ResidualStreamOf : public testing::TestWithParam<Cut> {
 protected:
  TinyModel model_{TinyConfig()};
  Calibration calibration_ = TinyCalibration(model_.config(), GetParam().windows, GetParam().window);
};
INSTANTIATE_TEST_SUITE_P(Windows, ResidualStreamOf,
                         testing::Values(Cut{1, 1, 8192}, Cut{3, 20, 408}, Cut{5, 2048, 4}, Cut{8, 2048, 4},
                                         Cut{30, 300, 24}, Cut{2, 4096, 2}, Cut{3, 4097, 1}, Cut{2, 8191, 1},
                                         Cut{2, 8192, 1}, Cut{3, 8193, 1}, Cut{2, 9000, 1}),
                         [](const auto& info) {
                           return std::to_string(info.param.windows) + "x" +
                                  std::to_string(info.param.window);
                         });

TEST_P(ResidualStreamOf, PortionsAreWholeRunsOfABlockAndCoverEveryTokenOnce) {
  const auto [windows, window, portion_windows] = GetParam();
  const ResidualStream stream(model_.weights(), calibration_);
  EXPECT_EQ(stream.tokens(), windows * window);
  EXPECT_EQ(stream.window(), window);
  size_t tokens = 0;
  for (size_t i = 0; i < stream.portions().size(); ++i) {
    const StreamPortion& portion = stream.portions()[i];
    EXPECT_EQ(portion.first, tokens);
    EXPECT_EQ(portion.place, tokens);
    EXPECT_LE(portion.tokens, portion_windows * window);
    EXPECT_EQ(tokens % stream.run_tokens(), 0u);
    const TokenRange block = stream.blocks().Block(portion.step);
    EXPECT_GE(portion.place, block.first);
    EXPECT_LE(portion.place + portion.tokens, block.first + block.count);
    // As few as there can be.
    if (portion.tokens < portion_windows * window) {
      EXPECT_EQ(portion.place + portion.tokens, block.first + block.count);
    }
    const Matrix<float> x = Loaded(stream, i);
    EXPECT_EQ(x.cols(), model_.config().hidden);
    EXPECT_EQ(x.rows(), portion.tokens);
    tokens += portion.tokens;
  }
  EXPECT_EQ(tokens, stream.tokens());
}

TEST_P(ResidualStreamOf, BeginsAsTheEmbeddingRoundedToBf16) {
  Matrix<float> embedding(model_.config().vocab, model_.config().hidden);
  std::vector<int32_t> all(model_.config().vocab);
  for (size_t id = 0; id < all.size(); ++id) all[id] = static_cast<int32_t>(id);
  model_.weights().Embed(all, embedding);
  const ResidualStream stream(model_.weights(), calibration_);
  size_t rounded = 0;
  for (size_t portion = 0; portion < stream.portions().size(); ++portion) {
    const Matrix<float> x = Loaded(stream, portion);
    for (size_t t = 0; t < x.rows(); ++t) {
      const auto id = static_cast<size_t>(calibration_.ids[stream.portions()[portion].first + t]);
      for (size_t c = 0; c < x.cols(); ++c) {
        ASSERT_EQ(x(t, c), ToFloat(ToBF16(embedding(id, c)))) << "portion " << portion << " token " << t;
        rounded += x(t, c) != embedding(id, c);
      }
    }
  }
  EXPECT_GT(rounded, 0u);  // the model's values are FP32: rounding is seen
}

TEST_P(ResidualStreamOf, BeginsAsAnEmbeddingOfItsOwn) {
  const size_t hidden = 5;
  const ResidualStream stream(
      [](std::span<const int32_t> ids, Tensor out) {
        for (size_t t = 0; t < ids.size(); ++t)
          std::fill_n(out.host<float>().row(t), 5, static_cast<float>(ids[t]));
      },
      hidden, calibration_, ResidualStream::kPortionTokens, Arithmetic(), Device::Cpu());
  for (size_t portion = 0; portion < stream.portions().size(); ++portion) {
    const Matrix<float> x = Loaded(stream, portion);
    ASSERT_EQ(x.cols(), hidden);
    for (size_t t = 0; t < x.rows(); ++t)
      ASSERT_EQ(x(t, 4), static_cast<float>(calibration_.ids[stream.portions()[portion].first + t]));
  }
}

TEST_P(ResidualStreamOf, StoreRoundsOnePortionAndLeavesTheOthers) {
  ResidualStream stream(model_.weights(), calibration_);
  const size_t changed = stream.portions().size() / 2, cols = model_.config().hidden;
  std::vector<Matrix<float>> before;
  for (size_t portion = 0; portion < stream.portions().size(); ++portion) before.push_back(Loaded(stream, portion));
  const size_t tokens = before[changed].rows();
  // Rows with gaps between them.
  const std::vector<float> values = RandomValues(tokens * (cols + 2), 9, 10.0f);
  stream.Store(stream.portions()[changed], MatrixView<const float>(values.data(), tokens, cols, cols + 2));
  for (size_t portion = 0; portion < stream.portions().size(); ++portion) {
    const Matrix<float> after = Loaded(stream, portion);
    ASSERT_EQ(after.rows(), before[portion].rows());
    if (portion != changed) {
      EXPECT_EQ(std::memcmp(after.data(), before[portion].data(), after.size() * sizeof(float)), 0);
      continue;
    }
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t c = 0; c < cols; ++c)
        ASSERT_EQ(after(t, c), ToFloat(ToBF16(values[t * (cols + 2) + c]))) << "token " << t;
    }
    // What has been rounded once stays as it is.
    stream.Store(stream.portions()[portion], after);
    const Matrix<float> again = Loaded(stream, portion);
    EXPECT_EQ(std::memcmp(after.data(), again.data(), after.size() * sizeof(float)), 0);
  }
}

TEST(ResidualStream, StoreRoundsToNearestTiesToEven) {
  const TinyModel model(TinyConfig());
  ResidualStream stream(model.weights(), TinyCalibration(model.config(), 1, 1));
  Matrix<float> x(1, 24, 0.0f);
  // 1 + 2^-7 is the neighbour of 1.
  const std::pair<float, float> cases[] = {
      {1.0f + 0x1p-8f, 1.0f},                  // a tie below an even neighbour
      {1.0f + 0x3p-8f, 1.0f + 0x2p-7f},        // a tie below an even neighbour above
      {1.0f + 0x1.01p-8f, 1.0f + 0x1p-7f},     // just above a tie
      {1.0f + 0x1.fep-9f, 1.0f},               // just below a tie
      {-(1.0f + 0x3p-8f), -(1.0f + 0x2p-7f)},  //
      {-0.0f, -0.0f},                          //
      {0x1.fffffep127f, std::numeric_limits<float>::infinity()}};
  for (size_t i = 0; i < std::size(cases); ++i) x(0, i) = cases[i].first;
  x(0, 23) = std::numeric_limits<float>::quiet_NaN();
  stream.Store(stream.portions()[0], x);
  const Matrix<float> after = Loaded(stream, 0);
  for (size_t i = 0; i < std::size(cases); ++i) {
    EXPECT_EQ(after(0, i), cases[i].second) << cases[i].first;
    EXPECT_EQ(std::signbit(after(0, i)), std::signbit(cases[i].second));
  }
  EXPECT_TRUE(std::isnan(after(0, 23)));
}

TEST(ResidualStream, ThreadsDoNotChangeBits) {
  const TinyModel model(TinyConfig());
  const Calibration calibration = TinyCalibration(model.config(), 3, 333);
  SetThreads(1);
  const Matrix<float> one = Loaded(ResidualStream(model.weights(), calibration), 0);
  SetThreads(3);
  const Matrix<float> three = Loaded(ResidualStream(model.weights(), calibration), 0);
  SetThreads(0);
  ASSERT_EQ(one.rows(), 999u);
  EXPECT_EQ(std::memcmp(one.data(), three.data(), one.size() * sizeof(float)), 0);
}

}  // namespace
}  // namespace mica
