// The gated activation on a CUDA device against that of the processor.
#include <gtest/gtest.h>

#include "ops/activation/activation.h"
#include "tests/ops/devices.h"

namespace mica {
namespace {

class ActivationOnCuda : public testing::TestWithParam<Activation> {};
INSTANTIATE_TEST_SUITE_P(All, ActivationOnCuda, testing::Values(Activation::kSilu, Activation::kGeluTanh));

TEST_P(ActivationOnCuda, IsThatOfTheProcessor) {
  MICA_NEEDS_CUDA();
  for (const auto& [rows, cols] : {std::pair<size_t, size_t>{1, 1}, {3, 7}, {65, 300}}) {
    const Array gate = RandomTensor(rows, cols, DType::kF32, 1, 8.0f),
                up = RandomTensor(rows, cols, DType::kF32, 2),
                felt = RandomTensor(rows, cols, DType::kF32, 3);
    Array gate_there = OnCuda(gate.view()), up_there = OnCuda(up.view());
    for (const DType type : {DType::kF32, DType::kBF16}) {
      Array expected = Poisoned(rows, cols, type), there = PoisonedOnCuda(rows, cols, type);
      Gated(GetParam(), gate.view(), up.view(), expected.view());
      Gated(GetParam(), gate_there.view(), up_there.view(), there.view());
      EXPECT_LE(WorstError(FloatsOf(there), Floats(expected.view())), 2e-6 + 1.01 * Step(type));
    }
    Array of_gate = Poisoned(rows, cols, DType::kF32), of_up = Poisoned(rows, cols, DType::kF32);
    GatedGradient(GetParam(), gate.view(), up.view(), felt.view(), of_gate.view(), of_up.view());
    // In place, as the backward pass has it.
    GatedGradient(GetParam(), gate_there.view(), up_there.view(), OnCuda(felt.view()).view(), gate_there.view(),
                  up_there.view());
    EXPECT_LE(WorstError(FloatsOf(gate_there), Floats(of_gate.view())), 1e-5);
    EXPECT_LE(WorstError(FloatsOf(up_there), Floats(of_up.view())), 1e-5);
  }
}

}  // namespace
}  // namespace mica
