// Scores, gradient and divergence over an output head on a CUDA device against those of the processor.
#include <gtest/gtest.h>

#include <algorithm>

#include "ops/head/head.h"
#include "ops/transpose/transpose.h"
#include "tests/ops/devices.h"

namespace mica {
namespace {

class HeadOnCuda : public OperandTypes {
 protected:
  static constexpr size_t kTokens = 2100, kHidden = 24, kVocab = 700, kSlice = 600;

  struct Result {
    std::vector<float> nll;
    std::vector<float> gradient;
    std::vector<uint8_t> drawn;
  };

  // The whole head on one device; labels drawn with `sample`.
  Result Run(Device device, bool sample) const {
    const Array x = CopyTo(device, RandomTensor(kTokens, kHidden, DType::kF32, 1, 2.0f).view());
    const Array norm = CopyTo(device, RandomValues(kHidden, 2));
    const Array rows = CopyTo(device, RandomTensor(kVocab, kHidden, DType::kF32, 3, 0.5f).view());
    std::vector<int32_t> targets;
    for (size_t t = 0; t < kTokens; ++t)
      targets.push_back(t % 7 == 3 ? -1 : static_cast<int32_t>(t * 37 % kVocab));
    targets[0] = 599, targets[1] = 600, targets[2] = 699, targets[4] = 0;
    std::vector<double> uniforms;
    for (size_t t = 0; t < kTokens; ++t)
      uniforms.push_back(static_cast<double>(t * 7919 % 1000) / 1000 + 1e-4);
    const HeadInputs inputs{x.view(), norm.view(), 1e-5f};
    HeadScores scores(kTokens);
    const auto for_slices = [&](const auto& use) {
      for (size_t first = 0; first < kVocab; first += kSlice)
        use(first, rows.view().Rows(first, std::min(kSlice, kVocab - first)));
    };
    for_slices([&](size_t first, ConstTensor part) {
      AddScores(inputs, {PreparedWeights(part, GetParam()), first}, targets, scores);
    });
    Array gradient(kTokens, kHidden, DType::kF32, device);
    FillZero(gradient.view());
    HeadLabels labels(targets, sample,
                      sample ? std::span<const double>(uniforms) : std::span<const double>());
    for_slices([&](size_t first, ConstTensor part) {
      AddHeadGradient(inputs, {PreparedWeights(part, GetParam()), first},
                      PreparedWeights(Transposed(part).view(), GetParam()), first + part.rows == kVocab,
                      scores, labels, gradient.view());
    });
    Result result{{}, FloatsOf(gradient), labels.drawn};
    for (size_t t = 0; t < kTokens; ++t)
      result.nll.push_back(targets[t] < 0 ? 0.0f : scores.NegativeLogLikelihood(t));
    return result;
  }
};
MICA_OVER_OPERAND_TYPES(HeadOnCuda);

TEST_P(HeadOnCuda, IsThatOfTheProcessor) {
  MICA_NEEDS_CUDA();
  for (const bool sample : {false, true}) {
    const Result expected = Run(Device::Cpu(), sample), actual = Run(Device::Cuda(), sample);
    EXPECT_LE(WorstError(actual.nll, expected.nll), GetParam() == DType::kF32 ? 1e-5 : 1e-2);
    EXPECT_LE(WorstError(actual.gradient, expected.gradient), GetParam() == DType::kF32 ? 1e-4 : 2e-2);
    EXPECT_EQ(actual.drawn, expected.drawn);
    const Result again = Run(Device::Cuda(), sample);
    EXPECT_EQ(again.gradient, actual.gradient);
  }
}

TEST(DivergenceOnCuda, IsThatOfTheProcessor) {
  MICA_NEEDS_CUDA();
  for (const size_t vocab : {1, 5, 700, 5000}) {
    const size_t tokens = 33;
    Array p = RandomTensor(tokens, vocab, DType::kF32, 1, 5.0f), q = CopyTo(Device::Cpu(), p.view());
    const std::vector<float> noise = RandomValues(tokens * vocab, 2, 0.3f);
    for (size_t i = 0; i < noise.size(); ++i) q.view().host<float>().data[i] += noise[i];
    if (vocab > 3) {  // equal largest logits: the first counts
      p.view().host<float>()(0, 1) = p.view().host<float>()(0, 3) = 50;
      q.view().host<float>()(0, 1) = 50;
    }
    const Array p_there = OnCuda(p.view());
    Array q_there = OnCuda(q.view());
    std::vector<float> expected(tokens), actual(tokens);
    std::vector<uint8_t> expected_top(tokens), actual_top(tokens);
    Divergence(p.view(), q.view(), expected, expected_top);
    Divergence(p_there.view(), q_there.view(), actual, actual_top);
    EXPECT_LE(WorstError(actual, expected), 4e-6) << vocab;
    EXPECT_EQ(actual_top, expected_top);
  }
}

}  // namespace
}  // namespace mica
