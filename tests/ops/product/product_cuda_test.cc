// Products on a CUDA device, and what is done with their results, against those of the processor.
#include <gtest/gtest.h>

#include <memory>

#include "ops/product/gated.h"
#include "ops/product/product.h"
#include "ops/product/projection.h"
#include "ops/rope/rope.h"
#include "tests/ops/devices.h"

namespace mica {
namespace {

class ProductOnCuda : public OperandTypes {};
MICA_OVER_OPERAND_TYPES(ProductOnCuda);

// One matrix on both devices.
struct Both {
  Both(size_t outputs, size_t inputs, DType type, uint32_t seed, size_t block = kBlockOutputs) {
    const Array values = RandomTensor(outputs, inputs, DType::kF32, seed, 0.3f);
    here = std::make_unique<PreparedWeights>(values.view(), type, block);
    there = std::make_unique<PreparedWeights>(OnCuda(values.view()).view(), type);
    bias = RandomValues(outputs, seed + 1);
    bias_there = OnCuda(bias);
  }
  Linear Here() const { return {here.get(), bias}; }
  Linear There() const { return {there.get(), bias_there.view()}; }

  std::unique_ptr<PreparedWeights> here, there;
  std::vector<float> bias;
  Array bias_there;
};

TEST_P(ProductOnCuda, MultipliesAndAdds) {
  MICA_NEEDS_CUDA();
  for (const auto& [tokens, inputs, outputs] :
       {std::tuple<size_t, size_t, size_t>{1, 1, 1}, {3, 7, 5}, {65, 128, 300}, {130, 96, 64}}) {
    const Both w(outputs, inputs, GetParam(), 1);
    const Array x = RandomTensor(tokens, inputs, GetParam(), 3), x_there = OnCuda(x.view());
    for (const bool biased : {false, true}) {
      const ConstTensor bias = biased ? ConstTensor(w.bias) : ConstTensor();
      const ConstTensor bias_there = biased ? w.bias_there.view() : ConstTensor();
      Array expected = Poisoned(tokens, outputs + 3, DType::kF32),
            there = PoisonedOnCuda(tokens, outputs + 3, DType::kF32);
      Multiply(x.view(), *w.here, bias, expected.view().Cols(2, outputs));
      Multiply(x_there.view(), *w.there, bias_there, there.view().Cols(2, outputs));
      Array actual = CopyTo(Device::Cpu(), there.view());
      EXPECT_LE(WorstError(Floats(actual.view().Cols(2, outputs)), Floats(expected.view().Cols(2, outputs))),
                1e-5);
      EXPECT_TRUE(AllNan(actual.view().Cols(0, 2)) && AllNan(actual.view().Cols(outputs + 2, 1)));
      MultiplyAdd(x.view(), *w.here, bias, expected.view().Cols(2, outputs));
      MultiplyAdd(x_there.view(), *w.there, bias_there, there.view().Cols(2, outputs));
      actual = CopyTo(Device::Cpu(), there.view());
      EXPECT_LE(WorstError(Floats(actual.view().Cols(2, outputs)), Floats(expected.view().Cols(2, outputs))),
                1e-5);
    }
  }
}

TEST_P(ProductOnCuda, ProjectsAndJoinsHeads) {
  MICA_NEEDS_CUDA();
  for (const size_t head_dim : {2, 6, 64, 96}) {
    const size_t window = 7, tokens = 3 * window, heads = 4, kv_heads = 2, inputs = 40;
    // The wider heads turn in part.
    std::vector<double> frequencies(head_dim > 16 ? head_dim / 4 : head_dim / 2);
    for (size_t i = 0; i < frequencies.size(); ++i) frequencies[i] = 1.0 / static_cast<double>(i + 1);
    RopeTable rope(frequencies), rope_there(frequencies, Device::Cuda());
    rope.Extend(window + 2);
    rope_there.Extend(window + 2);
    const size_t block = HeadBlockOutputs(head_dim);
    const Both q(heads * head_dim, inputs, GetParam(), 1, block),
        k(kv_heads * head_dim, inputs, GetParam(), 3, block),
        v(kv_heads * head_dim, inputs, GetParam(), 5, block);
    const Array x = RandomTensor(tokens, inputs, GetParam(), 7), x_there = OnCuda(x.view());
    const size_t rows[] = {heads * tokens, kv_heads * tokens, kv_heads * tokens};
    std::vector<Array> expected, there;
    for (const size_t r : rows) {
      expected.push_back(Poisoned(r, head_dim, GetParam()));
      there.push_back(PoisonedOnCuda(r, head_dim, GetParam()));
    }
    ProjectHeads(x.view(), q.Here(), k.Here(), v.Here(), &rope, &rope, window, expected[0].view(), expected[1].view(),
                 expected[2].view());
    ProjectHeads(x_there.view(), q.There(), k.There(), v.There(), &rope_there, &rope_there, window, there[0].view(),
                 there[1].view(), there[2].view());
    for (size_t i = 0; i < 3; ++i)
      EXPECT_LE(WorstError(FloatsOf(there[i]), Floats(expected[i].view())), 1e-5 + 1.01 * Step(GetParam()));

    const Array by_head = RandomTensor(heads * tokens, head_dim, DType::kF32, 8);
    for (const bool turned : {false, true}) {
      Array joined = Poisoned(tokens, heads * head_dim, DType::kF32),
            joined_there = PoisonedOnCuda(tokens, heads * head_dim, DType::kF32);
      JoinHeads(by_head.view(), turned ? &rope : nullptr, window, joined.view());
      JoinHeads(OnCuda(by_head.view()).view(), turned ? &rope_there : nullptr, window, joined_there.view());
      EXPECT_LE(WorstError(FloatsOf(joined_there), Floats(joined.view())), 1e-6);
      Array split = Poisoned(heads * tokens, head_dim, GetParam()),
            split_there = PoisonedOnCuda(heads * tokens, head_dim, GetParam());
      SplitHeads(joined.view(), turned ? &rope : nullptr, window, split.view());
      SplitHeads(joined_there.view(), turned ? &rope_there : nullptr, window, split_there.view());
      EXPECT_LE(WorstError(FloatsOf(split_there), Floats(split.view())), 1e-5 + 1.01 * Step(GetParam()));
    }
  }
}

TEST_P(ProductOnCuda, Gates) {
  MICA_NEEDS_CUDA();
  const size_t tokens = 70, inputs = 48, outputs = 100;
  const Both gate(outputs, inputs, GetParam(), 1), up(outputs, inputs, GetParam(), 3);
  const Array x = RandomTensor(tokens, inputs, GetParam(), 5);
  Array expected = Poisoned(tokens, outputs, GetParam()), there = PoisonedOnCuda(tokens, outputs, GetParam());
  MultiplyGated(x.view(), gate.Here(), up.Here(), Activation::kGeluTanh, expected.view());
  MultiplyGated(OnCuda(x.view()).view(), gate.There(), up.There(), Activation::kGeluTanh, there.view());
  EXPECT_LE(WorstError(FloatsOf(there), Floats(expected.view())), 1e-5 + 1.01 * Step(GetParam()));
}

}  // namespace
}  // namespace mica
