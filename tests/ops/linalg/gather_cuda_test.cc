#include <gtest/gtest.h>

#include <limits>

#include "ops/linalg/arrange.h"
#include "tests/ops/devices.h"

namespace mica {
namespace {

TEST(GatherOnCuda, CopiesRows) {
  MICA_NEEDS_CUDA();
  const Array table = RandomTensor(50, 300, DType::kF32, 1);
  const std::vector<int32_t> ids = {49, 0, 7, 7};
  Array out = PoisonedOnCuda(ids.size(), 300, DType::kF32);
  GatherRows(OnCuda(table.view()).view(), ids, out.view());
  const Array rows = CopyTo(Device::Cpu(), out.view());
  for (size_t t = 0; t < ids.size(); ++t)
    EXPECT_EQ(Floats(rows.view().Rows(t, 1)), Floats(table.view().Rows(static_cast<size_t>(ids[t]), 1)));
}

TEST(FirstNotFiniteOnCuda, FindsOneBadValueOfAnyType) {
  MICA_NEEDS_CUDA();
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    const std::vector<float> values = RandomValues(37 * 211, 1);
    EXPECT_EQ(FirstNotFiniteOn(OnCuda(FromFloats(values, 37, 211, type).view()).view()), values.size());
    for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::quiet_NaN()}) {
      for (const size_t place : {size_t{0}, values.size() / 2, values.size() - 1}) {
        std::vector<float> with = values;
        with[place] = bad;
        EXPECT_EQ(FirstNotFiniteOn(OnCuda(FromFloats(with, 37, 211, type).view()).view()), place);
      }
    }
  }
}

}  // namespace
}  // namespace mica
