// Sums of differences against inputs, in double precision from the definition.
#include "ops/gram/drift_sum.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/threads.h"
#include "tests/ops/tensors.h"

namespace mica {
namespace {

class DriftSumTest : public OperandTypes {};
MICA_OVER_OPERAND_TYPES(DriftSumTest);

TEST_P(DriftSumTest, MatchesTheDefinition) {
  for (const auto& [tokens, rows, cols] :
       {std::tuple<size_t, size_t, size_t>{1, 1, 1}, {5, 7, 3}, {257, 129, 40}, {300, 128, 33}}) {
    // Columns of wider matrices.
    const Array a = RandomTensor(tokens, rows + 3, GetParam(), 1),
                      b = RandomTensor(tokens, rows + 1, GetParam(), 2),
                      inputs = RandomTensor(tokens, cols + 2, GetParam(), 3);
    const ConstTensor original = a.view().Cols(3, rows), moved = b.view().Cols(0, rows),
                      x = inputs.view().Cols(1, cols);
    Array sum = RandomTensor(rows, cols, DType::kF32, 4);
    const std::vector<float> before = Floats(sum.view());
    AddDriftSum(original, moved, x, sum.view());
    AddDriftSum(original.Rows(0, 0), moved.Rows(0, 0), x.Rows(0, 0), sum.view());  // nothing
    const std::vector<float> o = Floats(original), m = Floats(moved), in = Floats(x);
    std::vector<float> expected = before;
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < cols; ++c) {
        double total = before[r * cols + c];
        for (size_t t = 0; t < tokens; ++t) {
          float difference = o[t * rows + r] - m[t * rows + r];
          DispatchOperand(GetParam(),
                          [&](auto type) { difference = Widen(Narrow<decltype(type)>(difference)); });
          total += double{difference} * in[t * cols + c];
        }
        expected[r * cols + c] = static_cast<float>(total);
      }
    }
    EXPECT_LE(WorstError(Floats(sum.view()), expected), 4e-6 * std::sqrt(static_cast<double>(tokens)));
  }
}

TEST_P(DriftSumTest, ThreadsDoNotChangeBits) {
  const Array original = RandomTensor(300, 200, GetParam(), 5),
                    moved = RandomTensor(300, 200, GetParam(), 6), x = RandomTensor(300, 90, GetParam(), 7);
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2}) {
    SetThreads(threads);
    Matrix<float> sum(200, 90, 0.0f);
    AddDriftSum(original.view(), moved.view(), x.view(), sum);
    results.push_back(Floats(sum));
  }
  SetThreads(0);
  EXPECT_EQ(results[0], results[1]);
}

}  // namespace
}  // namespace mica
