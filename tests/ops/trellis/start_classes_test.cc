// Classes of weights on a device against those on the processor.
#include "ops/trellis/start_classes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "device/array.h"
#include "device/cuda.h"

namespace mica {
namespace {

TEST(StartClasses, AreTheSameOnACudaDevice) {
  if (CudaDevices() == 0) GTEST_SKIP() << CudaAbsence();
  constexpr std::pair<size_t, size_t> kShapes[] = {{1, 1},   {1, 300},   {300, 1},
                                                   {33, 65}, {1500, 40}, {2049, 129}};
  for (const auto& [rows, cols] : kShapes) {
    for (const int states : {1, 8}) {
      std::mt19937 random(static_cast<uint32_t>(rows + cols));
      std::normal_distribution<float> normal;
      EntropyMatrix expected;
      expected.rows = rows;
      expected.cols = cols;
      expected.states = states;
      for (size_t r = 0; r < rows; ++r)
        expected.row_step.push_back(static_cast<int16_t>(random() % 200) - 100);
      for (size_t c = 0; c < cols; ++c)
        expected.col_step.push_back(static_cast<int16_t>(random() % 200) - 100);
      Matrix<float> w(rows, cols);
      std::vector<float> size(cols);
      for (float& s : size) s = std::exp2(normal(random));
      for (size_t r = 0; r < rows; ++r) {
        const float row_size = std::exp2(normal(random));
        for (size_t c = 0; c < cols; ++c) {
          w(r, c) = r % 13 == 5 || c % 17 == 3  // nothing but zeros
                        ? 0.0f
                        : normal(random) * row_size * size[c] *
                              EntropyStep(expected.row_step[r], kStepResolution) *
                              EntropyStep(expected.col_step[c], kStepResolution);
        }
      }
      EntropyMatrix found;
      static_cast<EntropyFrame&>(found) = static_cast<const EntropyFrame&>(expected);
      StartClasses(w, expected);
      const Array on_device = CopyTo(Device::Cuda(), w);
      StartClasses(on_device.view(), found);
      ASSERT_EQ(found.row_class.size(), rows);
      ASSERT_EQ(found.col_class.size(), cols);
      // Means next to the border between two classes may fall to either.
      size_t different = 0;
      for (size_t r = 0; r < rows; ++r) {
        ASSERT_LE(std::abs(found.row_class[r] - expected.row_class[r]), 1) << r;
        different += found.row_class[r] != expected.row_class[r];
      }
      for (size_t c = 0; c < cols; ++c) {
        ASSERT_LE(std::abs(found.col_class[c] - expected.col_class[c]), 1) << c;
        different += found.col_class[c] != expected.col_class[c];
      }
      EXPECT_LE(different, (rows + cols) / 100) << rows << " x " << cols;
    }
  }
}

}  // namespace
}  // namespace mica
