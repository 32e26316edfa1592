// What the output head is given: moments and drift of the final norm's outputs against FP64 sums, and the
// weights of tokens against the probabilities of the logits.
#include "compress/calibrate/head_pass.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "compress/calibrate/moments.h"
#include "model/layer.h"
#include "tests/compress/loaded.h"
#include "tests/compress/tiny_calibration.h"

namespace mica {
namespace {

constexpr size_t kWindow = 600, kWindows = 16;  // runs of three windows, the last one of one

class HeadPass : public testing::Test {
 protected:
  // The norm's outputs of all tokens.
  Matrix<double> Normed(const ModelWeights& weights) const {
    const ResidualStream stream(weights, calibration_);
    const std::vector<float> norm = model_.weights().FinalNorm();
    Matrix<double> normed(calibration_.tokens(), norm.size());
    for (size_t portion = 0; portion < stream.portions().size(); ++portion) {
      const Matrix<float> x = Loaded(stream, portion);
      for (size_t t = 0; t < x.rows(); ++t) {
        double square = 0;
        for (size_t c = 0; c < x.cols(); ++c) square += double{x(t, c)} * x(t, c);
        const double scale =
            1 / std::sqrt(square / static_cast<double>(x.cols()) + model_.config().norm_epsilon);
        for (size_t c = 0; c < x.cols(); ++c)
          normed(stream.portions()[portion].first + t, c) = x(t, c) * scale * norm[c];
      }
    }
    return normed;
  }

  TinyModel model_{TinyConfig(), 1}, other_{TinyConfig(), 2};
  Calibration calibration_ = TinyCalibration(model_.config(), kWindows, kWindow);
};

TEST_F(HeadPass, MomentsAndDriftAreThoseOfTheNormsOutputs) {
  const ResidualStream stream(model_.weights(), calibration_);
  ResidualStream original(other_.weights(), calibration_, 1);
  std::vector<float> weights(calibration_.tokens());
  for (size_t t = 0; t < weights.size(); ++t) weights[t] = static_cast<float>(t % 7) / 4;
  const Matrix<double> moved = Normed(model_.weights()), from = Normed(other_.weights());
  for (const bool weighted : {false, true}) {
    for (const size_t windows : {size_t{5}, kWindows}) {
      const Original beside{nullptr, &original, windows};
      uint64_t tokens = 0;
      const HeadMoments found =
          MeasureHeadInputs(model_.weights(), stream, beside,
                            weighted ? std::span<const float>(weights) : std::span<const float>(),
                            Precision::kFp32, [&](uint64_t more) { tokens += more; });
      EXPECT_EQ(tokens, calibration_.tokens());
      const RunsTaken taken = RunsTaken::Of(beside, stream);
      const size_t hidden = model_.config().hidden;
      for (size_t i = 0; i < hidden; ++i) {
        for (size_t j = 0; j < hidden; ++j) {
          double h = 0, drift = 0, count = 0;
          for (size_t t = 0; t < weights.size(); ++t) {
            const double w = weighted ? weights[t] : 1;
            h += w * moved(t, i) * moved(t, j);
            if (!taken.Takes(t / stream.run_tokens())) continue;
            drift += w * (from(t, i) - moved(t, i)) * moved(t, j);
            ++count;
          }
          h /= static_cast<double>(weights.size());
          drift /= count;
          EXPECT_NEAR(found.h.view().host<float>()(i, j), h, 1e-5 * (1 + std::abs(h)));
          EXPECT_NEAR(found.drift.view().host<float>()(i, j), drift, 1e-5 * (1 + std::abs(drift)));
        }
      }
    }
  }
  EXPECT_TRUE(
      MeasureHeadInputs(model_.weights(), stream, {}, {}, Precision::kFp32, [](uint64_t) {}).drift.empty());
}

TEST_F(HeadPass, TokensWeighWhatTheirNextTokenIsUnexpected) {
  const ResidualStream stream(model_.weights(), calibration_);
  const std::vector<float> weights =
      HeadTokenWeights(model_.weights(), calibration_.ids, stream, Precision::kFp32);
  const OutputHead head(model_.weights(), Precision::kFp32);
  const size_t vocab = model_.config().vocab;
  for (size_t portion = 0; portion < stream.portions().size(); ++portion) {
    const Matrix<float> x = Loaded(stream, portion);
    Matrix<float> logits(x.rows(), vocab);
    head.Logits(x, logits);
    for (size_t r = 0; r < x.rows(); r += 37) {
      const size_t t = stream.portions()[portion].first + r;
      if ((t + 1) % kWindow == 0) {
        EXPECT_EQ(weights[t], 0);
        continue;
      }
      double sum = 0;
      for (size_t v = 0; v < vocab; ++v) sum += std::exp(double{logits(r, v)});
      const double p = std::exp(double{logits(r, static_cast<size_t>(calibration_.ids[t + 1]))}) / sum;
      EXPECT_NEAR(weights[t], 1 - p, 1e-5);
    }
  }
  EXPECT_EQ(weights[kWindow - 1], 0);
}

}  // namespace
}  // namespace mica
