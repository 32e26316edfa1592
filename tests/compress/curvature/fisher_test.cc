// Fisher information against the gradients that the backward pass hands out, summed in FP64, and the pass of
// a layer with its reference and weights.
#include "compress/curvature/fisher.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/threads.h"
#include "compress/calibrate/layer_pass.h"
#include "compress/curvature/output_information.h"
#include "device/precision.h"
#include "model/backward.h"
#include "tests/compress/tiny_calibration.h"

namespace mica {
namespace {

class FisherTest : public testing::Test {
 protected:
  TinyModel model_{TinyConfig()};
  Calibration calibration_ = TinyCalibration(model_.config(), 3, 20);
  Progress progress_{false};
};

TEST_F(FisherTest, MomentsAreMeansOfProductsOfGradients) {
  const FisherInformation fisher = MeasureFisher(
      model_.weights(), calibration_,
      {.windows = 3, .output_moments = true, .token_weights = true, .precision = Precision::kFp32},
      progress_);
  const FisherInformation squares =
      MeasureFisher(model_.weights(), calibration_, {.windows = 3, .precision = Precision::kFp32}, progress_);
  ASSERT_EQ(fisher.outputs.size(), model_.config().layers);
  EXPECT_TRUE(squares.token_weights.empty());
  std::vector<std::array<std::vector<double>, kInputKinds.size()>> relative(model_.config().layers);
  const double tokens = static_cast<double>(calibration_.tokens());
  RunBackward(model_.weights(), calibration_.ids, calibration_.seqlen, {}, [&](const LinearGradient& g) {
    const MatrixView<const float> gradient = g.gradient.host<float>();
    // The tiny model fits into one run of tokens a layer.
    ASSERT_EQ(g.gradient.rows, calibration_.tokens());
    const OutputInformation& outputs = fisher.outputs[g.layer][static_cast<size_t>(g.kind)];
    const OutputInformation& diagonal = squares.outputs[g.layer][static_cast<size_t>(g.kind)];
    EXPECT_TRUE(diagonal.moments.empty());
    ASSERT_EQ(outputs.moments.rows(), g.gradient.cols);
    ASSERT_EQ(outputs.moments.cols(), OutputBlock(model_.config(), g.gradient.cols));
    double all = 0;
    for (size_t r = 0; r < g.gradient.cols; ++r) {
      for (size_t s = 0; s < g.gradient.cols; ++s) {
        double sum = 0;
        for (size_t t = 0; t < g.gradient.rows; ++t)
          sum += static_cast<double>(gradient(t, r)) * gradient(t, s);
        EXPECT_NEAR(outputs.moments(r, s), sum / tokens, 1e-5 * (1 + std::fabs(sum / tokens)));
        if (r != s) continue;
        all += sum;
        EXPECT_NEAR(outputs.fisher[r], sum / tokens, 1e-5 * sum / tokens);
        EXPECT_NEAR(diagonal.fisher[r], sum / tokens, 1e-5 * sum / tokens);
      }
    }
    std::vector<double>& of_input = relative[g.layer][static_cast<size_t>(InputOf(g.kind))];
    of_input.resize(calibration_.tokens(), 0.0);
    for (size_t t = 0; t < g.gradient.rows; ++t) {
      double norm = 0;
      for (size_t r = 0; r < g.gradient.cols; ++r)
        norm += static_cast<double>(gradient(t, r)) * gradient(t, r);
      of_input[t] += norm * tokens / all;
    }
  });
  for (size_t l = 0; l < relative.size(); ++l) {
    for (size_t k = 0; k < kInputKinds.size(); ++k) {
      const std::vector<float>& weights = fisher.token_weights[l][k];
      ASSERT_EQ(weights.size(), calibration_.tokens());
      double sum = 0;
      for (const float weight : weights) sum += weight;
      EXPECT_NEAR(sum / tokens, 1.0, 1e-5);
      // Weights go with the square root of the squared norms.
      const double norms = static_cast<double>(relative[l][k][1]) / relative[l][k][2];
      EXPECT_NEAR(weights[1] / weights[2], std::sqrt(norms), 0.05 * std::sqrt(norms));
    }
  }
}

TEST_F(FisherTest, TokenWeightsNeedEveryWindow) {
  EXPECT_THROW(
      MeasureFisher(model_.weights(), calibration_, {.windows = 2, .token_weights = true}, progress_), Error);
  EXPECT_TRUE(MeasureFisher(model_.weights(), calibration_, {.windows = 0}, progress_).outputs.empty());
}

TEST_F(FisherTest, BlocksKeepLargeModelsSmall) {
  ModelConfig config = model_.config();
  EXPECT_EQ(OutputBlock(config, 24), 24u);
  config.layers = 40;
  config.hidden = 5120;
  config.heads = config.kv_heads = 40;
  config.head_dim = 128;
  config.ffn = 13824;
  EXPECT_EQ(OutputBlock(config, 13824), 128u);
  EXPECT_EQ(OutputBlock(config, 100), 100u);
}

// The second moment that one layer's pass hands to the solver of its last matrix, with nothing compressed.
Matrix<float> DownMoments(const ModelWeights& weights, const Calibration& calibration,
                          const TokenWeights& token_weights) {
  DecoderLayer layer(weights, 0, Precision::kFp32), original(weights, 0, Precision::kFp32);
  ResidualStream stream(weights, calibration), reference(weights, calibration);
  Matrix<float> h;
  PassLayer(
      layer, weights.config(), stream, Precision::kFp32,
      [&](LinearKind kind, const InputMoments& moments) {
        if (kind == LinearKind::kDown) {
          h = Matrix<float>(moments.h.rows, moments.h.cols);
          for (size_t i = 0; i < h.rows(); ++i) std::copy_n(moments.h.row(i), h.cols(), h.row(i));
          for (size_t i = 0; i < h.size(); ++i) EXPECT_EQ(moments.drift.data[i], 0.0f);  // nothing has moved
        }
        return weights.Linear(0, kind);
      },
      {&original, &reference, 1}, token_weights, [](uint64_t) {});
  return h;
}

TEST_F(FisherTest, TokenWeightsScaleTheMoments) {
  const Matrix<float> plain = DownMoments(model_.weights(), calibration_, {});
  const std::vector<float> twice(calibration_.tokens(), 2.0f);
  TokenWeights weights;
  weights.fill(twice);
  const Matrix<float> doubled = DownMoments(model_.weights(), calibration_, weights);
  for (size_t i = 0; i < plain.size(); ++i)
    EXPECT_NEAR(doubled.data()[i], 2 * plain.data()[i], 1e-5 * (1 + std::fabs(plain.data()[i])));
}

}  // namespace
}  // namespace mica
