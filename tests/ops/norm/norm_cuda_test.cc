// Normalisation on a CUDA device against that of the processor.
#include <gtest/gtest.h>

#include "ops/norm/norm.h"
#include "tests/ops/devices.h"

namespace mica {
namespace {

constexpr std::pair<size_t, size_t> kShapes[] = {{1, 1}, {3, 7}, {64, 16}, {65, 33}, {13, 5120}};

TEST(NormOnCuda, IsThatOfTheProcessor) {
  MICA_NEEDS_CUDA();
  for (const auto& [rows, cols] : kShapes) {
    const Array x = RandomTensor(rows, cols + 5, DType::kF32, 1, 3.0f),
                felt = RandomTensor(rows, cols, DType::kF32, 4);
    const std::vector<float> weight = RandomValues(cols, 2);
    const Array x_there = OnCuda(x.view()), weight_there = OnCuda(weight);
    for (const DType type : {DType::kF32, DType::kBF16}) {
      Array expected = Poisoned(rows, cols + 2, type), there = PoisonedOnCuda(rows, cols + 2, type);
      RmsNorm(x.view().Cols(3, cols), weight, 1e-5f, expected.view().Cols(1, cols));
      RmsNorm(x_there.view().Cols(3, cols), weight_there.view(), 1e-5f, there.view().Cols(1, cols));
      const Array actual = CopyTo(Device::Cpu(), there.view());
      EXPECT_LE(WorstError(Floats(actual.view().Cols(1, cols)), Floats(expected.view().Cols(1, cols))),
                2e-6 + 1.01 * Step(type));
      EXPECT_TRUE(AllNan(actual.view().Cols(0, 1)) && AllNan(actual.view().Cols(cols + 1, 1)));
    }
    Array expected = RandomTensor(rows, cols, DType::kF32, 6), there = OnCuda(expected.view());
    AddRmsNormGradient(x.view().Cols(3, cols), weight, felt.view(), 0.1f, expected.view());
    AddRmsNormGradient(x_there.view().Cols(3, cols), weight_there.view(), OnCuda(felt.view()).view(), 0.1f,
                       there.view());
    EXPECT_LE(WorstError(FloatsOf(there), Floats(expected.view())), 1e-5);
  }
}

}  // namespace
}  // namespace mica
