// Scores, gradient and divergence over an output head in slices, against double precision from the
// definitions.
#include "ops/head/head.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "base/threads.h"
#include "ops/tile/kernels.h"
#include "ops/transpose/transpose.h"
#include "tests/ops/tensors.h"

namespace mica {
namespace {

// A head of two slices, the last one short, and tokens on either side of a tile; some tokens have no target.
class HeadTest : public OperandTypes {
 protected:
  static constexpr size_t kTokens = 300, kHidden = 24, kVocab = 700, kSlice = 600;

  void SetUp() override {
    x_ = RandomTensor(kTokens, kHidden, DType::kF32, 1, 2.0f);
    norm_ = RandomValues(kHidden, 2);
    const std::vector<float> values = RandomValues(kVocab * kHidden, 3, 0.5f);
    rows_ = Matrix<float>(kVocab, kHidden);
    std::copy(values.begin(), values.end(), rows_.data());
    for (size_t first = 0; first < kVocab; first += kSlice) {
      const auto part = rows_.view().Rows(first, std::min(kSlice, kVocab - first));
      slices_.emplace_back(part, GetParam());
      transposed_.emplace_back(Transposed(part).view(), GetParam());
    }
    for (size_t t = 0; t < kTokens; ++t) {
      const bool labelled = t % 7 != 3 && (t < 128 || t >= 256);  // a whole tile has none
      targets_.push_back(labelled ? static_cast<int32_t>(t * 37 % kVocab) : -1);
    }
    targets_[0] = 599, targets_[1] = 600, targets_[2] = 699, targets_[4] = 0;
  }

  HeadInputs inputs() const { return {x_.view(), norm_, 1e-5f}; }

  HeadScores Scores() const {
    HeadScores scores(kTokens);
    for (size_t s = 0; s < slices_.size(); ++s) {
      AddScores(inputs(), {slices_[s], s * kSlice}, targets_, scores);
    }
    return scores;
  }

  // Logits of one token from operands rounded as the op rounds them.
  std::vector<double> Logits(size_t t) const {
    std::vector<double> logits(kVocab, 0.0);
    DispatchOperand(GetParam(), [&](auto type) {
      using T = decltype(type);
      std::vector<T> normed(kHidden);
      Kernels(Backend::kRef)
          .of<T>()
          .rms_norm(x_.view().host<float>().row(t), norm_.data(), kHidden, 1e-5f, normed.data());
      for (size_t v = 0; v < kVocab; ++v) {
        for (size_t i = 0; i < kHidden; ++i) {
          logits[v] += double{Widen(normed[i])} * Widen(Narrow<T>(rows_(v, i)));
        }
      }
    });
    return logits;
  }
  static double LogSum(const std::vector<double>& logits) {
    double sum = 0.0;
    for (const double logit : logits) sum += std::exp(logit);
    return std::log(sum);
  }
  // A BF16 input may round to its neighbour.
  double tolerance() const { return GetParam() == DType::kF32 ? 1e-5 : 0.02; }

  Array x_;
  std::vector<float> norm_;
  Matrix<float> rows_;
  std::vector<PreparedWeights> slices_, transposed_;
  std::vector<int32_t> targets_;
};
MICA_OVER_OPERAND_TYPES(HeadTest);

TEST_P(HeadTest, ScoresAreThoseOfTheWholeDistribution) {
  const HeadScores scores = Scores();
  for (size_t t = 0; t < kTokens; ++t) {
    if (targets_[t] < 0) continue;
    const std::vector<double> logits = Logits(t);
    const double expected = LogSum(logits) - logits[static_cast<size_t>(targets_[t])];
    EXPECT_NEAR(scores.LogSum(t), LogSum(logits), tolerance()) << t;
    EXPECT_NEAR(scores.NegativeLogLikelihood(t), expected, tolerance()) << t;
  }
}

TEST_P(HeadTest, GradientIsProbabilitiesLessTheLabelThroughTheRows) {
  const HeadScores scores = Scores();
  Matrix<float> gradient(kTokens, kHidden, 0.25f);  // it is added to
  HeadLabels labels(targets_, false, {});
  for (size_t s = 0; s < slices_.size(); ++s) {
    AddHeadGradient(inputs(), {slices_[s], s * kSlice}, transposed_[s], s + 1 == slices_.size(), scores,
                    labels, gradient);
  }
  for (size_t t = 0; t < kTokens; t += 5) {
    std::vector<double> errors = Logits(t);
    const double log_sum = LogSum(errors);
    for (double& error : errors) error = targets_[t] < 0 ? 0.0 : std::exp(error - log_sum);
    if (targets_[t] >= 0) errors[static_cast<size_t>(targets_[t])] -= 1.0;
    for (size_t i = 0; i < kHidden; ++i) {
      double expected = 0.25;
      for (size_t v = 0; v < kVocab; ++v) expected += errors[v] * rows_(v, i);
      EXPECT_NEAR(gradient(t, i), expected, tolerance()) << t << ", " << i;
    }
  }
}

TEST_P(HeadTest, LabelsAreDrawnFromTheCumulativeDistribution) {
  const HeadScores scores = Scores();
  std::vector<double> uniforms(kTokens);
  for (size_t t = 0; t < kTokens; ++t) uniforms[t] = static_cast<double>(t * 29 % kTokens) / kTokens;
  uniforms[5] = 1.0 - 1e-16;  // beyond the sum of probabilities rounded to FP32, or the last id
  Matrix<float> own(kTokens, kHidden, 0.0f), drawn(kTokens, kHidden, 0.0f);
  HeadLabels of_text(targets_, false, {}), of_model(targets_, true, uniforms);
  for (size_t s = 0; s < slices_.size(); ++s) {
    const bool last = s + 1 == slices_.size();
    AddHeadGradient(inputs(), {slices_[s], s * kSlice}, transposed_[s], last, scores, of_text, own);
    AddHeadGradient(inputs(), {slices_[s], s * kSlice}, transposed_[s], last, scores, of_model, drawn);
  }
  // The two gradients differ by the difference of the labels' rows.
  for (size_t t = 0; t < kTokens; ++t) {
    if (targets_[t] < 0) continue;
    EXPECT_EQ(of_model.drawn[t], 1) << t;
    const std::vector<double> logits = Logits(t);
    const double log_sum = LogSum(logits);
    double cumulative = 0.0;
    size_t id = 0;
    while (id + 1 < kVocab && (cumulative += std::exp(logits[id] - log_sum)) <= uniforms[t]) ++id;
    if (std::fabs(cumulative - uniforms[t]) < tolerance()) continue;  // a neighbour may be right
    const size_t target = static_cast<size_t>(targets_[t]);
    for (size_t i = 0; i < kHidden; i += 7) {
      if (GetParam() == DType::kF32) {
        EXPECT_NEAR(drawn(t, i) - own(t, i), rows_(target, i) - rows_(id, i), 1e-4) << t << ", " << i;
      }
    }
  }
}

TEST_P(HeadTest, ThreadsDoNotChangeBits) {
  std::vector<std::vector<float>> logits;
  for (const int threads : {1, 2}) {
    SetThreads(threads);
    const HeadScores scores = Scores();
    std::vector<float> all;
    for (size_t t = 0; t < kTokens; ++t) {
      if (targets_[t] >= 0) all.push_back(scores.NegativeLogLikelihood(t));
    }
    logits.push_back(all);
  }
  SetThreads(0);
  EXPECT_EQ(logits[0], logits[1]);
}

TEST(Divergence, IsThatOfTheDefinition) {
  for (const size_t vocab : {size_t{2}, size_t{17}, size_t{1000}}) {
    const Array p = RandomTensor(5, vocab, DType::kF32, 1, 3.0f);
    Array q = RandomTensor(5, vocab, DType::kF32, 2, 3.0f);
    std::copy_n(p.view().host<float>().row(4), vocab, q.view().host<float>().row(4));  // a model like itself
    const std::vector<float> of_p = Floats(p.view()), of_q = Floats(q.view());
    std::vector<float> kl = NanFloats(5);
    std::vector<uint8_t> same_top(5, 9);
    Divergence(p.view(), q.view(), kl, same_top);
    for (size_t t = 0; t < 5; ++t) {
      const float *a = of_p.data() + t * vocab, *b = of_q.data() + t * vocab;
      double p_sum = 0, q_sum = 0, expected = 0;
      for (size_t v = 0; v < vocab; ++v) p_sum += std::exp(double{a[v]}), q_sum += std::exp(double{b[v]});
      for (size_t v = 0; v < vocab; ++v) {
        const double log_p = a[v] - std::log(p_sum), log_q = b[v] - std::log(q_sum);
        expected += std::exp(log_p) * (log_p - log_q);
      }
      EXPECT_NEAR(kl[t], expected, 1e-5 * (1 + expected)) << vocab << ", " << t;
      EXPECT_EQ(same_top[t],
                std::max_element(a, a + vocab) - a == std::max_element(b, b + vocab) - b ? 1 : 0);
    }
    EXPECT_EQ(kl[4], 0.0f);
  }
}

}  // namespace
}  // namespace mica
