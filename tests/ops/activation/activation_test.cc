// The gated activation over rows against the scalar reference, row by row.
#include "ops/activation/activation.h"

#include <gtest/gtest.h>

#include "ops/tile/kernels.h"
#include "tests/ops/tensors.h"

namespace mica {
namespace {

const KernelTable& Ref() { return Kernels(Backend::kRef); }
constexpr Activation kActivations[] = {Activation::kSilu, Activation::kGeluTanh};
constexpr std::pair<size_t, size_t> kShapes[] = {{1, 1}, {3, 7}, {64, 16}, {65, 33}, {130, 200}};

class ActivationTest : public OperandTypes {};
MICA_OVER_OPERAND_TYPES(ActivationTest);

TEST_P(ActivationTest, MatchesTheReference) {
  for (const auto& [rows, cols] : kShapes) {
    const Array gate = RandomTensor(rows, cols, DType::kF32, 1, 5.0f),
                      up = RandomTensor(rows, cols, DType::kF32, 2);
    Array actual = Poisoned(rows, cols, GetParam()), expected = Poisoned(rows, cols, GetParam());
    for (const Activation activation : kActivations) {
      Gated(activation, gate.view(), up.view(), actual.view());
      DispatchOperand(GetParam(), [&](auto type) {
        using T = decltype(type);
        for (size_t t = 0; t < rows; ++t) {
          Ref().of<T>().gated(activation, gate.view().host<float>().row(t), up.view().host<float>().row(t), cols,
                              expected.view().host<T>().row(t));
        }
      });
      EXPECT_LE(WorstError(Floats(actual.view()), Floats(expected.view())), 1e-6 + 1.01 * Step(GetParam()));
    }
  }
}

TEST(ActivationGradient, MatchesTheReferenceAlsoInPlace) {
  for (const Activation activation : kActivations) {
    for (const auto& [rows, cols] : kShapes) {
      Array gate = RandomTensor(rows, cols, DType::kF32, 3, 3.0f),
            up = RandomTensor(rows, cols, DType::kF32, 4);
      const Array felt = RandomTensor(rows, cols, DType::kF32, 5);
      Array of_gate = Poisoned(rows, cols, DType::kF32), of_up = Poisoned(rows, cols, DType::kF32);
      Array expected_gate = Poisoned(rows, cols, DType::kF32), expected_up = Poisoned(rows, cols, DType::kF32);
      for (size_t t = 0; t < rows; ++t) {
        Ref().gated_gradient(activation, gate.view().host<float>().row(t), up.view().host<float>().row(t),
                             felt.view().host<float>().row(t), cols,
                             expected_gate.view().host<float>().row(t),
                             expected_up.view().host<float>().row(t));
      }
      GatedGradient(activation, gate.view(), up.view(), felt.view(), of_gate.view(), of_up.view());
      EXPECT_LE(WorstError(Floats(of_gate.view()), Floats(expected_gate.view())), 2e-6);
      EXPECT_LE(WorstError(Floats(of_up.view()), Floats(expected_up.view())), 1e-6);
      GatedGradient(activation, gate.view(), up.view(), felt.view(), gate.view(), up.view());
      EXPECT_EQ(Floats(gate.view()), Floats(of_gate.view()));
      EXPECT_EQ(Floats(up.view()), Floats(of_up.view()));
    }
  }
}

TEST(Activation, HasTheNamesOfConfigurations) {
  EXPECT_EQ(FindActivation("silu"), Activation::kSilu);
  EXPECT_EQ(FindActivation("gelu_pytorch_tanh"), Activation::kGeluTanh);
  EXPECT_EQ(FindActivation("relu"), std::nullopt);
}

}  // namespace
}  // namespace mica
