// The resident form of coding `fixed` on the processor: every instruction set against the plain loops, and
// those against the decoded weights.
#include "ops/packed_product/fixed_form.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "base/threads.h"
#include "ops/packed_product/resident_weights.h"
#include "tests/ops/codes/testing.h"
#include "tests/ops/random_values.h"

namespace mica {
namespace {

struct Sampled {
  PackedMatrix packed;
  FixedParts parts;
  Matrix<float> decoded;
  explicit Sampled(const FixedMatrix& matrix)
      : packed(Pack(matrix)), parts(OpenedFixed(packed)), decoded(matrix.rows, matrix.cols) {
    Decode(parts, 0, decoded.view());
  }
};

// Widths and columns of the runs, and columns of a group.
struct Case {
  size_t rows;
  std::vector<std::pair<int, size_t>> runs;
  size_t group_size;
};
const Case kCases[] = {
    {1, {{4, 1}}, 128},
    {3, {{2, 31}}, 128},
    {70, {{3, 33}, {0, 9}}, 128},
    {64, {{2, 256}, {3, 128}}, 128},
    {65, {{4, 128}}, 128},
    {130, {{6, 257}}, 128},
    {40, {{8, 300}}, 64},
    {129, {{2, 150}, {3, 200}, {4, 513}, {6, 96}, {8, 40}, {0, 20}}, 128},
    {50, {{8, 256}, {4, 1100}, {2, 900}}, 128},
    {20, {{4, 333}, {3, 100}}, 100},
    {33, {{6, 700}, {8, 520}}, 500},
    {9, {{4, 5120}}, 128},
    {300, {{3, 640}, {4, 640}}, 128},
    {8, {{0, 40}}, 128},
};

void ForAll(const std::function<void(const Sampled&)>& visit) {
  unsigned seed = 0;
  for (const MaskKind& mask : kMaskKinds) {
    for (const Case& c : kCases) {
      ++seed;
      SCOPED_TRACE(fmt::format("mask {}, {} rows, first width {}", mask.name, c.rows, c.runs[0].first));
      FixedMatrix matrix = RandomFixed(c.rows, c.runs, c.group_size, mask, seed, seed % 3 == 0);
      if (seed % 2 == 0) matrix = WithExponents(std::move(matrix));
      visit(Sampled(matrix));
    }
  }
}

Matrix<float> Inputs(size_t tokens, size_t cols, unsigned seed) {
  const std::vector<float> values = RandomValues(tokens * cols, seed);
  Matrix<float> x(tokens, cols);
  std::copy(values.begin(), values.end(), x.data());
  for (size_t t = 0; t < tokens; ++t) {
    x(t, (7 * t + 3) % cols) *= 60;
    for (size_t c = 128; c < std::min<size_t>(cols, 640) && t % 3 == 2; ++c) x(t, c) = 0;
  }
  return x;
}

// NaN first.
Matrix<float> Products(const FixedWeights& w, MatrixView<const float> x, FixedKernel kernel) {
  DigitInputs inputs;
  RoundInputs(w, x, inputs);
  Matrix<float> y(x.rows, w.layout.rows, NAN), of_tile(x.rows, kFixedTile, NAN);
  for (size_t tile = 0; tile < w.layout.tiles(); ++tile) {
    kernel(w, tile, inputs, of_tile);
    for (size_t t = 0; t < x.rows; ++t)
      std::copy_n(of_tile.row(t), w.layout.RowsOf(tile), y.row(t) + tile * kFixedTile);
  }
  return y;
}

bool Same(const Matrix<float>& a, const Matrix<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(FixedForm, EveryInstructionSetGivesTheSameBits) {
  ForAll([](const Sampled& sampled) {
    const FixedWeights w = MakeFixedWeights(sampled.parts);
    for (const size_t tokens : {1, 2, 3, 17}) {
      const Matrix<float> x = Inputs(tokens, w.layout.cols, 5);
      const Matrix<float> expected = Products(w, x, MultiplyFixedRef);
      for (const NamedFixedKernel& kernel : FixedKernelsOfAllTargets())
        EXPECT_TRUE(Same(Products(w, x, kernel.multiply), expected)) << kernel.name << ", " << tokens;
    }
  });
}

TEST(FixedForm, IsNearTheDecodedWeights) {
  ForAll([](const Sampled& sampled) {
    const FixedWeights w = MakeFixedWeights(sampled.parts);
    const Matrix<float> x = Inputs(3, w.layout.cols, 7);
    const Matrix<float> y = Products(w, x, MultiplyFixedRef);
    const auto column = [&](size_t p) { return w.order.empty() ? p : w.order[p]; };
    for (size_t t = 0; t < x.rows(); ++t) {
      for (size_t r = 0; r < w.layout.rows; ++r) {
        // A value is off by half of the block's scale, which is 1 / (127 * 254) of its largest.
        double sum = 0, off = 0, size = 0;
        for (const FixedBlock& block : w.layout.blocks) {
          double largest = 0, of_units = 0;
          for (size_t p = block.start; p < block.start + size_t{block.count}; ++p) {
            const double unit = std::ldexp(1.0, w.exponents.empty() ? w.exponent : w.exponents[p]);
            const double weight = double{sampled.decoded(r, column(p))}, value = double{x(t, column(p))};
            sum += weight * value;
            size += std::abs(weight * value);
            largest = std::max(largest, std::abs(value) * unit);
            of_units += std::abs(weight / unit);
          }
          off += largest * of_units * (0.501 / 127 / 254);
        }
        ASSERT_NEAR(y(t, r), sum, off + 1e-5 * size) << "row " << r;
      }
    }
  });
}

TEST(FixedForm, RowsAreTheDecodedWeights) {
  ForAll([](const Sampled& sampled) {
    const size_t rows = sampled.parts.rows, cols = sampled.parts.cols;
    const ResidentWeights weights = ResidentWeights::OfParts(sampled.parts, Device::Cpu());
    EXPECT_STREQ(weights.form().name(), "fixed");
    std::vector<int32_t> ids;
    for (size_t r = 0; r < rows; ++r) ids.push_back(static_cast<int32_t>(rows - 1 - r));
    Matrix<float> out(rows, cols, NAN);
    weights.Rows(ids, out);
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < cols; ++c)
        ASSERT_EQ(out(r, c), sampled.decoded(rows - 1 - r, c)) << r << " " << c;
    }
  });
}

TEST(FixedForm, ProductsDependOnNeitherTokensBesideNorThreads) {
  for (const MaskKind& mask : kMaskKinds) {
    const Sampled sampled(RandomFixed(200, {{3, 140}, {4, 256}, {8, 30}}, 128, mask, 4));
    const ResidentWeights weights = ResidentWeights::OfParts(sampled.parts, Device::Cpu());
    const Matrix<float> x = Inputs(300, 426, 1);
    const std::vector<float> bias = RandomValues(200, 2);
    Matrix<float> all(300, 200, NAN), again(300, 200, NAN);
    SetThreads(2);
    weights.form().Multiply(x, bias, all);
    SetThreads(1);
    for (size_t t = 0; t < 300; ++t)
      weights.form().Multiply(x.view().Rows(t, 1), bias, again.view().Rows(t, 1));
    SetThreads(0);
    EXPECT_TRUE(Same(all, again)) << mask.name;
  }
}

TEST(FixedForm, MemoryIsThatOfTheFileAndALittleMore) {
  for (const MaskKind& mask : kMaskKinds) {
    const Sampled sampled(RandomFixed(2048, {{2, 512}, {3, 1000}, {4, 1048}, {6, 512}}, 128, mask, 3));
    EXPECT_LE(static_cast<double>(FixedForm(sampled.parts)->bytes()),
              1.05 * static_cast<double>(sampled.packed.bits()) / 8)
        << mask.name;
  }
}

TEST(FixedForm, HalvesAreDecodedForEveryProduct) {
  const Sampled sampled(RandomFixed(70, {{4, 100}, {16, 50}}, 128, MaskKind::kBitmap, 3));
  const ResidentWeights weights = ResidentWeights::OfParts(sampled.parts, Device::Cpu());
  EXPECT_STREQ(weights.form().name(), "rows");
  const Matrix<float> x = Inputs(2, 150, 9);
  Matrix<float> y(2, 70, NAN);
  weights.form().Multiply(x, {}, y);
  for (size_t t = 0; t < 2; ++t) {
    for (size_t r = 0; r < 70; ++r) {
      double sum = 0, size = 0;
      for (size_t c = 0; c < 150; ++c) {
        sum += double{x(t, c)} * double{sampled.decoded(r, c)};
        size += std::abs(double{x(t, c)} * double{sampled.decoded(r, c)});
      }
      ASSERT_NEAR(y(t, r), sum, 1e-5 * size);
    }
  }
}

}  // namespace
}  // namespace mica
