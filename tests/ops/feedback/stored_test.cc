#include "ops/feedback/stored.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/half.h"
#include "device/cuda.h"
#include "tests/ops/random_values.h"

namespace mica {
namespace {

// Parameter: whether it is a CUDA device, without which the test is skipped.
class StoredOnDevices : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam() && CudaDevices() == 0) GTEST_SKIP() << CudaAbsence();
  }
  Device device() const { return GetParam() ? Device::Cuda() : Device::Cpu(); }
  Matrix<float> Here(ConstTensor x) const {
    Matrix<float> here(x.rows, x.cols);
    Copy(x, here);
    return here;
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, StoredOnDevices, testing::Bool(),
                         [](const auto& info) { return std::string(info.param ? "cuda" : "cpu"); });

Matrix<float> Random(size_t rows, size_t cols, uint32_t seed) {
  Matrix<float> m(rows, cols);
  const std::vector<float> values = RandomValues(rows * cols, seed);
  std::copy(values.begin(), values.end(), m.data());
  return m;
}

// Widths 4, 16, 3, 0 in groups of 5, columns in an order of their own, random integers.
SolverState RandomState(size_t rows, MaskKind mask, uint32_t seed, Device device) {
  SolverState state;
  state.rows = rows;
  for (const auto& [bits, count] : {std::pair{16, 9}, {4, 37}, {3, 12}, {0, 4}})
    state.plan.widths.insert(state.plan.widths.end(), static_cast<size_t>(count), static_cast<uint8_t>(bits));
  state.cols = state.plan.widths.size();
  state.plan.groups = ScaleGroups(state.plan.widths, 5);
  state.plan.coded = state.cols - 4;
  state.plan.mask = mask;
  state.exponent = -2;
  for (uint32_t j = 0; j < state.cols; ++j)
    state.plan.order.push_back((j * 25 + 3) % static_cast<uint32_t>(state.cols));
  state.Allocate(Device::Cpu());
  std::mt19937 generator(seed);
  for (size_t p = 0; p < state.cols; ++p) {
    const int bits = state.plan.widths[p];
    for (size_t r = 0; r < rows; ++r) {
      if (state.masked()) state.HostKeep()(p, r) = generator() % 3 != 0;
      state.HostCodes()(p, r) = bits == 16 ? ToF16(static_cast<float>(generator() % 9) - 4.0f).bits
                                           : static_cast<uint16_t>(generator() & ((1u << bits) - 1));
    }
  }
  for (size_t g = 0; g < state.scales.rows(); ++g) {
    for (size_t r = 0; r < rows; ++r) {
      state.HostScales()(g, r) = {static_cast<uint8_t>(1 + generator() % 255)};
      state.HostZeros()(g, r) = static_cast<uint8_t>(generator() % 8);
    }
  }
  for (Array* array : {&state.codes, &state.keep, &state.scales, &state.zeros})
    *array = CopyTo(device, array->view());
  return state;
}

// On either side of the blocks in which it is added, and of what tensor cores sum at once.
TEST_P(StoredOnDevices, FindsQuadraticLosses) {
  EXPECT_EQ(QuadraticLoss(CopyTo(device(), Matrix<float>(2, 2, 3.0f)).view(),
                          CopyTo(device(), Matrix<float>(2, 1, 2.0f)).view()),
            48.0);
  for (const size_t n : {1, 9, 257, 1100, 3300}) {
    for (const size_t rows : {1, 33}) {
      Matrix<float> h = Random(n, n, 81), d = Random(n, rows, 82);
      for (size_t i = 0; i < n; ++i) {
        h(i, i) += 2;
        for (size_t j = 0; j < i; ++j) h(j, i) = h(i, j);
      }
      double expected = 0, size = 0;
      for (size_t i = 0; i < n; ++i) {
        for (size_t j = 0; j < n; ++j) {
          for (size_t r = 0; r < rows; ++r) {
            const double part = double{d(i, r)} * h(i, j) * d(j, r);
            expected += part;
            size += std::abs(part);
          }
        }
      }
      const Array moments = CopyTo(device(), h), residual = CopyTo(device(), d);
      const double loss = QuadraticLoss(moments.view(), residual.view());
      EXPECT_NEAR(loss, expected, 1e-5 * size) << n << ' ' << rows;
      EXPECT_EQ(loss, QuadraticLoss(moments.view(), residual.view()));
    }
  }
}

TEST_P(StoredOnDevices, DecodesWhatTheStateSays) {
  for (const size_t rows : {1, 31, 65}) {
    for (const MaskKind& mask : {MaskKind::kNone, MaskKind::kBitmap}) {
      const SolverState here = RandomState(rows, mask, 5, Device::Cpu()),
                        state = RandomState(rows, mask, 5, device());
      ASSERT_TRUE(std::set<uint32_t>(here.plan.order.begin(), here.plan.order.end()).size() == here.cols);
      Matrix<float> expected(rows, here.cols, 0.0f);
      uint64_t zeros = 0;
      for (const ScaleGroup& group : here.plan.groups) {
        for (size_t p = group.start; p < group.start + group.count; ++p) {
          for (size_t r = 0; r < rows; ++r) {
            float value = 0;
            const bool kept = group.bits > 0 && (mask == MaskKind::kNone || here.HostKeep()(p, r) != 0);
            if (kept && group.bits == 16) {
              value = 0.25f * ToFloat(F16{here.HostCodes()(p, r)});
            } else if (kept) {
              const auto row = static_cast<size_t>(group.scale_row);
              value = 0.25f * GridValue(here.HostCodes()(p, r), ToFloat(here.HostScales()(row, r)),
                                        here.HostZeros()(row, r));
            }
            expected(r, here.plan.order[p]) = value;
            zeros += value == 0;
          }
        }
      }
      Array out = CopyTo(device(), Matrix<float>(rows, here.cols, NAN));
      StoredWeights(state, out.view());
      const Matrix<float> weights = Here(out.view());
      for (size_t i = 0; i < weights.size(); ++i) ASSERT_EQ(weights.data()[i], expected.data()[i]) << i;
      EXPECT_EQ(CountZeros(state), zeros);

      const Matrix<float> w = Random(rows, here.cols, 6);
      const Array there = CopyTo(device(), w);
      for (const bool whole : {false, true}) {
        Array residual = CopyTo(device(), Matrix<float>(here.cols, rows, NAN));
        Residual(state, there.view(), {2, 60}, whole, residual.view());
        const Matrix<float> got = Here(residual.view());
        for (size_t p = 0; p < here.cols; ++p) {
          const uint32_t c = here.plan.order[p];
          for (size_t r = 0; r < rows; ++r) {
            const float value = p == 2 || p == 60 ? 0.0f : 4 * w(r, c);
            ASSERT_EQ(got(p, r), value - (whole ? 0.0f : 4 * expected(r, c)));
          }
        }
      }

      Matrix<uint16_t> codes(rows, here.cols);
      IntegersByRow(state.codes.view(), {reinterpret_cast<std::byte*>(codes.data()), rows, here.cols,
                                         here.cols, DType::kU16, Device::Cpu()});
      Matrix<uint8_t> keep(rows, here.cols, uint8_t{1});
      if (state.masked()) {
        IntegersByRow(state.keep.view(), {reinterpret_cast<std::byte*>(keep.data()), rows, here.cols,
                                          here.cols, DType::kU8, Device::Cpu()});
      }
      for (size_t r = 0; r < rows; ++r) {
        for (size_t p = 0; p < here.cols; ++p) {
          ASSERT_EQ(codes(r, p), here.HostCodes()(p, r));
          if (state.masked()) {
            ASSERT_EQ(keep(r, p), here.HostKeep()(p, r));
          }
        }
      }
    }
  }
}

TEST_P(StoredOnDevices, MeasuresAndScales) {
  for (const auto& [rows, cols] : {std::pair<size_t, size_t>{1, 1}, {3, 300}, {70, 33}}) {
    Matrix<float> a = Random(rows, cols, 7);
    const Matrix<float> b = Random(rows, cols, 8);
    a(rows - 1, cols / 2) = -9.5f;
    const Array a_there = CopyTo(device(), a), b_there = CopyTo(device(), b);
    EXPECT_EQ(LargestMagnitude(a_there.view()), 9.5f);
    const std::vector<double> products = RowProducts(a_there.view(), b_there.view());
    std::vector<float> row, col;
    for (size_t r = 0; r < rows; ++r) row.push_back(std::ldexp(1.0f, static_cast<int>(r % 7) - 3));
    for (size_t c = 0; c < cols; ++c) col.push_back(std::ldexp(1.0f, static_cast<int>(c % 5) - 2));
    for (size_t r = 0; r < rows; ++r) {
      double sum = 0, size = 0;
      for (size_t c = 0; c < cols; ++c) {
        sum += double{a(r, c)} * b(r, c);
        size += std::abs(double{a(r, c)} * b(r, c));
      }
      EXPECT_NEAR(products[r], sum, 1e-12 * size);
    }
    Array scaled(rows, cols, DType::kF32, device());
    ScaleRowsAndColumns(a_there.view(), row, col, scaled.view());
    const Matrix<float> both = Here(scaled.view());
    ScaleRowsAndColumns(scaled.view(), {}, col, scaled.view());
    const Matrix<float> more = Here(scaled.view());
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < cols; ++c) {
        ASSERT_EQ(both(r, c), a(r, c) * col[c] * row[r]);
        ASSERT_EQ(more(r, c), a(r, c) * col[c] * row[r] * col[c]);
      }
    }
  }
  EXPECT_EQ(LargestMagnitude(Array(0, 5, DType::kF32, device()).view()), 0.0f);
}

}  // namespace
}  // namespace mica
