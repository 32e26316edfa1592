// Conversions on a CUDA device against those of the processor, bit by bit.
#include <gtest/gtest.h>

#include "ops/convert/convert.h"
#include "tests/ops/devices.h"

namespace mica {
namespace {

TEST(ConvertOnCuda, IsThatOfTheProcessor) {
  MICA_NEEDS_CUDA();
  for (const auto& [rows, cols] : {std::pair<size_t, size_t>{1, 1}, {3, 7}, {65, 64}, {130, 300}}) {
    for (const DType from : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (const DType to : {DType::kF32, DType::kF16, DType::kBF16}) {
        const Array x = RandomTensor(rows, cols + 5, from, 1, 300.0f);
        const std::vector<float> factors = RandomValues(rows, 2);
        const Array x_there = OnCuda(x.view()), factors_there = OnCuda(factors);
        for (const bool scaled : {false, true}) {
          for (const size_t first : {size_t{0}, size_t{3}}) {  // rows that are aligned and rows that are not
            Array expected = Poisoned(rows, cols + 2, to), there = PoisonedOnCuda(rows, cols + 2, to);
            const ConstTensor in = x.view().Cols(first, cols), in_there = x_there.view().Cols(first, cols);
            if (scaled) {
              ConvertScaled(in, factors, expected.view().Cols(1, cols));
              ConvertScaled(in_there, factors_there.view(), there.view().Cols(1, cols));
            } else {
              Convert(in, expected.view().Cols(1, cols));
              Convert(in_there, there.view().Cols(1, cols));
            }
            const Array actual = CopyTo(Device::Cpu(), there.view());
            EXPECT_EQ(Floats(actual.view().Cols(1, cols)), Floats(expected.view().Cols(1, cols)))
                << DTypeName(from) << " to " << DTypeName(to) << ", " << rows << " x " << cols;
            EXPECT_TRUE(AllNan(actual.view().Cols(0, 1)) && AllNan(actual.view().Cols(cols + 1, 1)));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace mica
