#include <gtest/gtest.h>

#include <cmath>

#include "ops/packed_product/device_forms.h"
#include "tests/ops/codes/testing.h"
#include "tests/ops/packed_product/cuda_oracle.h"

namespace mica {
namespace {

struct Sampled {
  FixedMatrix matrix;
  PackedMatrix packed;
  FixedParts parts;
  Matrix<float> decoded;
  explicit Sampled(FixedMatrix of)
      : matrix(std::move(of)),
        packed(Pack(matrix)),
        parts(OpenedFixed(packed)),
        decoded(matrix.rows, matrix.cols) {
    Decode(matrix, decoded);
  }
  ResidentWeights OnCuda() const { return ResidentWeights(FixedOnCuda(parts, Device::Cuda())); }
};

// y [tokens, rows] as the kernels add.
Matrix<float> Oracle(const Sampled& sampled, const Matrix<float>& x, const std::vector<float>& bias) {
  const FixedMatrix& matrix = sampled.matrix;
  const bool masked = matrix.mask != MaskKind::kNone;
  std::vector<uint32_t> begin, order;
  std::vector<float> factors;
  std::vector<ScaleGroup> groups;
  for (const ScaleGroup& group : ScaleGroups(matrix.widths, matrix.group_size)) {
    if (group.bits == 0) continue;
    groups.push_back(group);
    begin.push_back(static_cast<uint32_t>(order.size()));
    for (size_t p = group.start; p < group.start + group.count; ++p) {
      order.push_back(matrix.order[p]);
      factors.push_back(
          std::ldexp(1.0f, matrix.exponent + (matrix.col_exponents.empty() ? 0 : matrix.col_exponents[p])));
    }
  }
  begin.push_back(static_cast<uint32_t>(order.size()));
  Matrix<float> y(x.rows(), matrix.rows);
  std::array<Int8Inputs, 2> digits;
  if (!order.empty()) digits = TwoDigits(x.view(), factors, order, begin);
  for (size_t t = 0; t < x.rows(); ++t) {
    for (size_t r = 0; r < matrix.rows; ++r) {
      float of_digit[2];
      for (size_t d = 0; d < 2; ++d) {
        const Int8Inputs& in = digits[d];
        LaneSums sums{};
        size_t chunk = 0;
        for (size_t g = 0; g < groups.size(); ++g) {
          const ScaleGroup& group = groups[g];
          for (size_t first = 0; first < group.count; first += 32, ++chunk) {
            float& sum = sums[chunk % 32];
            int dot = 0;
            for (size_t j = first; j < std::min<size_t>(group.count, first + 32); ++j) {
              const size_t p = group.start + j, i = begin[g] + j;
              const bool kept = !masked || matrix.keep(r, p) != 0;
              if (group.bits == 16) {
                sum = std::fmaf(kept ? ToFloat(F16{matrix.codes(r, p)}) : 0.0f,
                                d == 0 ? x(t, order[i]) * factors[i] : 0.0f, sum);
              } else if (kept) {
                dot += (matrix.codes(r, p) - matrix.zeros(static_cast<size_t>(group.scale_row), r)) *
                       in.values[t * in.stride + i];
              }
            }
            if (group.bits == 16) continue;
            const float scale = ToFloat(matrix.scales(static_cast<size_t>(group.scale_row), r)) *
                                in.scales[t * groups.size() + g];
            sum = std::fmaf(scale, static_cast<float>(dot), sum);
          }
        }
        of_digit[d] = SumOfLanes(sums);
      }
      const float sum = of_digit[0] + of_digit[1];
      y(t, r) = bias.empty() ? sum : sum + bias[r];
    }
  }
  return y;
}

// Widths and columns of the runs, and columns of a group.
struct Case {
  size_t rows;
  std::vector<std::pair<int, size_t>> runs;
  size_t group_size;
};
std::vector<Case> Cases() {
  return {{1, {{4, 1}}, 128},
          {3, {{2, 31}}, 128},
          {70, {{3, 33}, {0, 9}}, 128},
          {65, {{4, 128}}, 128},
          {130, {{6, 257}}, 128},
          {40, {{8, 300}}, 64},
          {33, {{16, 70}}, 128},
          {129, {{2, 150}, {3, 200}, {4, 513}, {6, 96}, {8, 40}, {16, 33}, {0, 20}}, 128},
          {50, {{8, 10}, {4, 1100}, {2, 900}, {16, 40}}, 128},
          {20, {{4, 333}, {3, 100}}, 100},
          {9, {{4, 5120}}, 128},
          {300, {{3, 640}, {4, 640}}, 128},
          {8, {{0, 40}}, 128},
          {129, {{2, 384}, {3, 640}, {4, 256}, {6, 640}, {8, 128}}, 128},
          {21, {{3, 64}, {6, 96}, {4, 40}, {8, 8}, {2, 16}}, 64}};
}

void ForAll(const std::function<void(const Sampled&)>& visit) {
  unsigned seed = 0;
  for (const MaskKind& mask : kMaskKinds) {
    for (const Case& c : Cases()) {
      ++seed;
      SCOPED_TRACE(fmt::format("mask {}, case {}: {} rows, first width {}", mask.name, seed % Cases().size(),
                               c.rows, c.runs[0].first));
      FixedMatrix matrix = RandomFixed(c.rows, c.runs, c.group_size, mask, seed, seed % 3 == 0);
      visit(Sampled(seed % 2 == 0 ? WithExponents(std::move(matrix)) : std::move(matrix)));
    }
  }
}

TEST(CudaFixed, EqualsTheOracleForFewTokens) {
  MICA_NEEDS_CUDA();
  ForAll([](const Sampled& sampled) {
    const ResidentWeights weights = sampled.OnCuda();
    EXPECT_STREQ(weights.form().name(), "fixed");
    const Matrix<float> x = RandomInputs(4, sampled.matrix.cols, 5);
    const std::vector<float> bias = RandomValues(sampled.matrix.rows, 6);
    const Matrix<float> expected = Oracle(sampled, x, bias);
    ExpectFewTokens(weights, x, bias, expected);
    EXPECT_TRUE(SameBytes(Product(weights, x, {}), Oracle(sampled, x, {})));
  });
}

TEST(CudaFixed, IsNearTheDecodedWeights) {
  MICA_NEEDS_CUDA();
  for (const MaskKind& mask : kMaskKinds) {
    const Sampled sampled(RandomFixed(200, {{3, 500}, {4, 900}, {8, 100}}, 128, mask, 3));
    const Matrix<float> x = RandomInputs(2, 1500, 4), y = Product(sampled.OnCuda(), x, {});
    double error = 0, size = 0;
    for (size_t t = 0; t < 2; ++t) {
      for (size_t r = 0; r < 200; ++r) {
        double sum = 0;
        for (size_t c = 0; c < 1500; ++c) sum += double{x(t, c)} * sampled.decoded(r, c);
        error += (y(t, r) - sum) * (y(t, r) - sum);
        size += sum * sum;
      }
    }
    // An outlier of 60 deviations costs its group some precision.
    EXPECT_LE(std::sqrt(error / size), 0.03) << mask.name;
    EXPECT_GT(error, 0) << mask.name;
  }
}

TEST(CudaFixed, ManyTokensGoThroughSixteenBits) {
  MICA_NEEDS_CUDA();
  for (const MaskKind& mask : kMaskKinds) {
    const Sampled sampled(RandomFixed(300, {{3, 200}, {4, 333}, {16, 40}, {0, 10}}, 128, mask, 3));
    ExpectNarrowProduct(sampled.OnCuda(), sampled.decoded, 9, 0x1p-7);
    ExpectNarrowProduct(sampled.OnCuda(), sampled.decoded, 70, 0x1p-7);
  }
}

TEST(CudaFixed, RowsAreTheDecodedWeights) {
  MICA_NEEDS_CUDA();
  ForAll([](const Sampled& sampled) { ExpectRows(sampled.OnCuda(), sampled.decoded); });
}

TEST(CudaFixed, ProductsOfOneInputAreThoseTakenAlone) {
  MICA_NEEDS_CUDA();
  for (const MaskKind& mask : kMaskKinds) {
    const Sampled q(RandomFixed(300, {{3, 300}, {4, 400}}, 128, mask, 11)),
        k(RandomFixed(90, {{4, 700}}, 128, mask, 12)), v(RandomFixed(90, {{8, 30}, {2, 670}}, 128, mask, 13));
    const Matrix<float> x = RandomInputs(3, 700, 2);
    const Array x_there = OnCuda(x);
    const ResidentWeights weights[] = {q.OnCuda(), k.OnCuda(), v.OnCuda()};
    std::vector<Array> y;
    std::vector<ResidentProduct> products;
    for (const ResidentWeights& of : weights) y.push_back(PoisonedOnCuda(3, of.outputs(), DType::kF32));
    for (size_t i = 0; i < 3; ++i) products.push_back({&weights[i], {}, y[i].view()});
    MultiplyResident(x_there.view(), products);
    const uint64_t used = MemoryOf(Device::Cuda()).used_bytes;
    MultiplyResident(x_there.view(), products);
    EXPECT_EQ(MemoryOf(Device::Cuda()).used_bytes, used);
    for (size_t i = 0; i < 3; ++i)
      EXPECT_TRUE(SameBytes(OnHost(y[i].view()), Product(weights[i], x, {}))) << mask.name << " " << i;
  }
}

TEST(CudaFixed, MemoryIsThatOfTheFileAndALittleMore) {
  MICA_NEEDS_CUDA();
  for (const MaskKind& mask : kMaskKinds) {
    const Sampled sampled(RandomFixed(2048, {{3, 1024}, {4, 1024}, {6, 512}}, 128, mask, 3));
    EXPECT_LE(static_cast<double>(sampled.OnCuda().bytes()),
              1.05 * static_cast<double>(sampled.packed.bits()) / 8)
        << mask.name;
  }
}

}  // namespace
}  // namespace mica
