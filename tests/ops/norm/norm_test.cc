// Normalisation over rows against the scalar reference, row by row.
#include "ops/norm/norm.h"

#include <gtest/gtest.h>

#include "ops/tile/kernels.h"
#include "tests/ops/tensors.h"

namespace mica {
namespace {

const KernelTable& Ref() { return Kernels(Backend::kRef); }
constexpr std::pair<size_t, size_t> kShapes[] = {{1, 1}, {3, 7}, {64, 16}, {65, 33}, {130, 200}};

class NormTest : public OperandTypes {};
MICA_OVER_OPERAND_TYPES(NormTest);

TEST_P(NormTest, MatchesTheReference) {
  for (const auto& [rows, cols] : kShapes) {
    // Columns of a wider matrix on both sides.
    const Array x = RandomTensor(rows, cols + 5, DType::kF32, 1, 3.0f);
    const std::vector<float> weight = RandomValues(cols, 2);
    Array actual = Poisoned(rows, cols + 2, GetParam()),
                expected = Poisoned(rows, cols + 2, GetParam());
    const ConstTensor in = x.view().Cols(3, cols);
    RmsNorm(in, weight, 1e-5f, actual.view().Cols(1, cols));
    DispatchOperand(GetParam(), [&](auto type) {
      using T = decltype(type);
      for (size_t t = 0; t < rows; ++t) {
        Ref().of<T>().rms_norm(in.host<float>().row(t), weight.data(), cols, 1e-5f,
                               expected.view().host<T>().row(t) + 1);
      }
    });
    EXPECT_LE(WorstError(Floats(actual.view().Cols(1, cols)), Floats(expected.view().Cols(1, cols))),
              1e-6 + 1.01 * Step(GetParam()));
    EXPECT_TRUE(AllNan(actual.view().Cols(0, 1)) && AllNan(actual.view().Cols(cols + 1, 1)));
  }
}

TEST(NormGradient, MatchesTheReference) {
  for (const auto& [rows, cols] : kShapes) {
    const Array x = RandomTensor(rows, cols, DType::kF32, 3),
                      felt = RandomTensor(rows, cols, DType::kF32, 4);
    const std::vector<float> weight = RandomValues(cols, 5);
    Array actual = RandomTensor(rows, cols, DType::kF32, 6),
                expected = RandomTensor(rows, cols, DType::kF32, 6);
    AddRmsNormGradient(x.view(), weight, felt.view(), 0.1f, actual.view());
    for (size_t t = 0; t < rows; ++t) {
      Ref().add_rms_norm_gradient(x.view().host<float>().row(t), weight.data(),
                                  felt.view().host<float>().row(t), cols, 0.1f,
                                  expected.view().host<float>().row(t));
    }
    EXPECT_LE(WorstError(Floats(actual.view()), Floats(expected.view())), 1e-5);
  }
}

}  // namespace
}  // namespace mica
