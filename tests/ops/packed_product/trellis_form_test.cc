// The resident form of coding `entropy` and its products: every instruction set against the plain loops, and
// those against the decoded weights.
#include "ops/packed_product/trellis_form.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "base/threads.h"
#include "ops/packed_product/resident_weights.h"
#include "tests/ops/codes/testing.h"
#include "tests/ops/random_values.h"

namespace mica {
namespace {

struct TrellisCase {
  size_t rows, cols, tile_rows;
  int states;
  double octaves;
};
constexpr TrellisCase kCases[] = {
    {1, 1, 1, 8, 1.0},         {150, 256, 128, 8, 0.5},  {70, 320, 16, 1, 1.0},   {33, 700, 128, 4, 1.5},
    {257, 1000, 128, 8, -0.5}, {40, 192, 7, 8, 3.0},     {300, 63, 4096, 8, 2.0}, {64, 511, 32, 8, 12.5},
    {17, 513, 1, 4, 0.0},      {128, 1024, 128, 8, 1.2},
};

std::vector<float> DecodedProduct(const EntropyParts& parts, MatrixView<const float> x,
                                  std::vector<double>& sizes) {
  Matrix<float> weights(parts.rows, parts.cols);
  Decode(parts, 0, weights);
  std::vector<float> y;
  sizes.clear();
  for (size_t t = 0; t < x.rows; ++t) {
    for (size_t r = 0; r < parts.rows; ++r) {
      double sum = 0, size = 0;
      for (size_t k = 0; k * kTrellisBlock < parts.cols; ++k) {
        double largest = 0, of_block = 0;
        for (size_t c = k * kTrellisBlock; c < std::min(parts.cols, (k + 1) * kTrellisBlock); ++c) {
          const double step = static_cast<double>(parts.col_scale[c]);
          largest = std::max(largest, std::abs(static_cast<double>(x(t, c)) * step));
          of_block += std::abs(static_cast<double>(weights(r, c)) / step);
          sum += static_cast<double>(weights(r, c)) * static_cast<double>(x(t, c));
        }
        size += of_block * largest;
      }
      y.push_back(static_cast<float>(sum));
      sizes.push_back(size);  // an activation is off by half of largest / 127
    }
  }
  return y;
}

Matrix<float> Inputs(size_t tokens, size_t cols, unsigned seed) {
  const std::vector<float> values = RandomValues(tokens * cols, seed);
  Matrix<float> x(tokens, cols);
  std::copy(values.begin(), values.end(), x.data());
  return x;
}

// [tokens, rows] in stored order, NaN first.
Matrix<float> Products(const TrellisWeights& w, MatrixView<const float> x, TrellisKernel kernel) {
  TrellisInputs inputs;
  RoundInputs(w, x, inputs);
  Matrix<float> y(x.rows, w.layout.rows, NAN);
  for (size_t tile = 0; tile < w.layout.tiles(); ++tile) {
    const size_t rows = w.layout.RowsOf(tile);
    kernel(w, tile, inputs, 0, y.view().Cols(tile * w.layout.tile_rows, rows));
  }
  return y;
}

bool Same(const Matrix<float>& a, const Matrix<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(TrellisForm, EveryInstructionSetGivesTheSameBits) {
  for (const TrellisCase& c : kCases) {
    EntropyMatrix matrix = RandomEntropy(c.rows, c.cols, c.states, c.octaves, static_cast<unsigned>(c.rows));
    matrix.tile_rows = c.tile_rows;
    for (size_t r = 0; c.rows % 2 == 0 && r < c.rows; ++r)
      matrix.row_key.push_back(static_cast<int16_t>(r * 7 % 5));
    // A few integers and a column that no width holds.
    std::mt19937 random(3);
    for (size_t i = 0; i < matrix.n.size() / 100; ++i)
      matrix.n.data()[random() % matrix.n.size()] = static_cast<int16_t>(random() % 65535 - 32767);
    for (size_t r = 0; c.cols > 100 && r < c.rows; ++r)
      matrix.n(r, 77) = static_cast<int16_t>(random() % 1000 - 500);
    FitEntropyModel(matrix);
    const PackedMatrix packed = Pack(matrix);
    const EntropyParts parts = OpenedEntropy(packed);
    for (const int width : kTrellisWidths) {
      const TrellisChoice choice = TrellisOfWidth(parts, width);
      const std::unique_ptr<const TrellisWeights> made = MakeTrellisWeights(parts, choice);
      ASSERT_NE(made, nullptr);
      const TrellisWeights& w = *made;
      for (const size_t tokens : {1, 2, 3, 17, 130}) {
        if (tokens == 130 && c.rows * c.cols > 100000) continue;
        const Matrix<float> x = Inputs(tokens, c.cols, 5);
        const Matrix<float> expected = Products(w, x, MultiplyTrellisRef);
        for (const NamedTrellisKernel& kernel : TrellisKernelsOfAllTargets()) {
          EXPECT_TRUE(Same(Products(w, x, kernel.multiply), expected))
              << kernel.name << ": " << c.rows << " x " << c.cols << ", width " << width << ", " << c.states
              << " states, " << tokens << " tokens";
        }
        if (tokens > 3) continue;
        std::vector<double> sizes;
        const std::vector<float> decoded = DecodedProduct(parts, x, sizes);
        for (size_t t = 0; t < tokens; ++t) {
          for (size_t p = 0; p < c.rows; ++p) {
            const size_t i = t * c.rows + w.RowAt(p);
            ASSERT_NEAR(expected(t, p), decoded[i], sizes[i] * (0.501 / 127) + 1e-6) << "width " << width;
          }
        }
      }
    }
  }
}

TEST(TrellisForm, RowsAndProductsAreThoseOfTheDecodedWeights) {
  for (const TrellisCase& c : kCases) {
    EntropyMatrix matrix = RandomEntropy(c.rows, c.cols, c.states, c.octaves, 9);
    matrix.tile_rows = c.tile_rows;
    for (size_t r = 0; r < c.rows; ++r) matrix.row_key.push_back(static_cast<int16_t>(r * 7 % 5));
    FitEntropyModel(matrix);
    const PackedMatrix packed = Pack(matrix);
    const EntropyParts parts = OpenedEntropy(packed);
    const ResidentWeights weights = ResidentWeights::OfParts(parts, Device::Cpu());
    EXPECT_STREQ(weights.form().name(), "trellis");
    Matrix<float> decoded(c.rows, c.cols), rows(c.rows, c.cols, NAN);
    Decode(parts, 0, decoded);
    std::vector<int32_t> ids;
    for (size_t r = 0; r < c.rows; ++r) ids.push_back(static_cast<int32_t>(c.rows - 1 - r));
    weights.Rows(ids, rows);
    for (size_t r = 0; r < c.rows; ++r) {
      EXPECT_EQ(std::memcmp(rows.row(r), decoded.row(c.rows - 1 - r), c.cols * sizeof(float)), 0) << r;
    }
    // A row of y does not depend on the tokens beside it, nor on threads.
    const Matrix<float> x = Inputs(300, c.cols, 1);
    const std::vector<float> bias = RandomValues(c.rows, 2);
    Matrix<float> all(300, c.rows, NAN), again(300, c.rows, NAN);
    SetThreads(2);
    weights.form().Multiply(x, bias, all);
    SetThreads(1);
    for (size_t t = 0; t < 300; ++t)
      weights.form().Multiply(x.view().Rows(t, 1), bias, again.view().Rows(t, 1));
    SetThreads(0);
    EXPECT_TRUE(Same(all, again)) << c.rows << " x " << c.cols;
  }
}

TEST(TrellisForm, TakesTheBytesThatWerePlanned) {
  for (const double octaves : {-0.6, 0.3, 1.3, 2.3, 3.2}) {
    for (const bool in_order : {true, false}) {
      EntropyMatrix matrix = RandomEntropy(700, 1100, 8, octaves, 2);
      for (size_t r = 0; !in_order && r < matrix.rows; ++r)
        matrix.row_key.push_back(static_cast<int16_t>(r * 7 % 5));
      FitEntropyModel(matrix);
      const PackedMatrix packed = Pack(matrix);
      const EntropyParts parts = OpenedEntropy(packed);
      const auto planned = static_cast<double>(PlannedTrellisBytes(parts));
      const double ratio = planned / static_cast<double>(TrellisForm(parts)->bytes());
      EXPECT_LT(ratio, 1.05) << octaves;
      EXPECT_GT(ratio, 0.98) << octaves;
    }
  }
}

TEST(TrellisForm, RowsOfManyHugeIntegersAreKeptAsValues) {
  EntropyMatrix matrix = RandomEntropy(3, 3000, 8, 0.5, 9);
  for (size_t c = 0; c < 3000; ++c) matrix.n(1, c) = static_cast<int16_t>(c % 2 == 0 ? 30000 : -30000);
  FitEntropyModel(matrix);
  const PackedMatrix packed = Pack(matrix);
  const EntropyParts parts = OpenedEntropy(packed);
  EXPECT_EQ(MakeTrellisWeights(parts, TrellisOfWidth(parts, 4)), nullptr);
  TrellisChoice none;
  none.width = 3;
  EXPECT_EQ(MakeTrellisWeights(parts, none), nullptr);
}

TEST(TrellisForm, DamagedStreamsAreRefused) {
  EntropyMatrix matrix = RandomEntropy(300, 200, 8, 0.5, 9);
  FitEntropyModel(matrix);
  const PackedMatrix packed = Pack(matrix);
  EntropyParts parts = OpenedEntropy(packed);
  std::vector<std::byte> codes(parts.codes.begin(), parts.codes.end());
  codes[codes.size() / 2] ^= std::byte{0x55};
  parts.codes = codes;
  EXPECT_THROW(ResidentWeights::OfParts(parts, Device::Cpu()), Error);
}

}  // namespace
}  // namespace mica
