#include <gtest/gtest.h>

#include "device/recorded_work.h"
#include "ops/codes/entropy_model.h"
#include "ops/packed_product/device_forms.h"
#include "tests/ops/codes/testing.h"
#include "tests/ops/packed_product/cuda_oracle.h"

namespace mica {
namespace {

// Levels [rows, cols] that the states give.
Matrix<int32_t> LevelsOf(const EntropyMatrix& matrix) {
  const Trellis& trellis = TrellisOf(matrix.states);
  const std::vector<uint32_t> order = StoredRowOrder(matrix);
  Matrix<int32_t> levels(matrix.rows, matrix.cols);
  for (size_t c = 0; c < matrix.cols; ++c) {
    size_t state = 0;
    for (size_t p = 0; p < matrix.rows; ++p) {
      if (p % matrix.tile_rows == 0) state = 0;
      const int n = matrix.n(order[p], c);
      levels(order[p], c) = trellis.Level(n, trellis.quantiser[state]);
      state = trellis.next[state][static_cast<size_t>(n & 1)];
    }
  }
  return levels;
}

struct Form {
  int width = 0;
  std::vector<bool> apart;  // [cols]
};
// The cheapest width, and the columns that are mostly beyond it.
Form Choose(const Matrix<int32_t>& levels) {
  Form best;
  size_t least = SIZE_MAX;
  const size_t chunks = (levels.cols() + 31) / 32;
  for (int width = 4; width <= 8; ++width) {
    Form form{width, std::vector<bool>(levels.cols())};
    size_t cost = levels.rows() * chunks * 4 * static_cast<size_t>(width);
    for (size_t c = 0; c < levels.cols(); ++c) {
      size_t beyond = 0;
      for (size_t r = 0; r < levels.rows(); ++r)
        beyond += levels(r, c) < -(1 << (width - 1)) || levels(r, c) >= 1 << (width - 1);
      form.apart[c] = 4 * beyond > 2 * levels.rows();
      cost += form.apart[c] ? 2 * levels.rows() : 32 * beyond;
    }
    if (cost >= least) continue;
    least = cost;
    best = form;
  }
  return best;
}

struct Sampled {
  EntropyMatrix matrix;
  PackedMatrix packed;
  EntropyParts parts;
  Matrix<int32_t> levels;
  Matrix<float> decoded;
  explicit Sampled(EntropyMatrix of) : matrix(std::move(of)) {
    FitEntropyModel(matrix);
    packed = Pack(matrix);
    parts = OpenedEntropy(packed);
    levels = LevelsOf(matrix);
    decoded = Matrix<float>(matrix.rows, matrix.cols);
    Decode(matrix, decoded);
  }
  ResidentWeights OnCuda() const { return ResidentWeights(LevelsOnCuda(parts, Device::Cuda())); }
};

EntropyMatrix Random(size_t rows, size_t cols, int states, double octaves, unsigned seed) {
  EntropyMatrix matrix = RandomEntropy(rows, cols, states, octaves, seed);
  // A few integers far beyond the others, one column of them.
  std::mt19937 random(seed);
  for (size_t i = 0; i < matrix.n.size() / 100; ++i)
    matrix.n.data()[random() % matrix.n.size()] = static_cast<int16_t>(random() % 20001 - 10000);
  for (size_t r = 0; r < rows && cols > 40; ++r)
    matrix.n(r, 37) = static_cast<int16_t>(random() % 3001 - 1500);
  for (size_t r = 0; seed % 2 == 0 && r < rows; ++r)
    matrix.row_key.push_back(static_cast<int16_t>((r * 7) % 5));
  return matrix;
}

// y [tokens, rows] as the kernels add.
Matrix<float> Oracle(const Sampled& sampled, const Matrix<float>& x, const std::vector<float>& bias) {
  const size_t rows = sampled.matrix.rows, cols = sampled.matrix.cols, chunks = (cols + 31) / 32;
  const Form form = Choose(sampled.levels);
  const int least = -(1 << (form.width - 1)), most = (1 << (form.width - 1)) - 1;
  std::vector<float> factors = sampled.parts.col_scale;
  for (size_t c = 0; c < cols; ++c) {
    if (form.apart[c]) factors[c] = 0;
  }
  std::vector<uint32_t> begin;
  for (size_t c = 0; c < cols; c += 256) begin.push_back(static_cast<uint32_t>(c));
  begin.push_back(static_cast<uint32_t>(cols));
  const std::array<Int8Inputs, 2> digits = TwoDigits(x.view(), factors, {}, begin);
  const size_t blocks = begin.size() - 1;
  Matrix<float> y(x.rows(), rows);
  for (size_t t = 0; t < x.rows(); ++t) {
    for (size_t r = 0; r < rows; ++r) {
      float of_digit[2];
      for (size_t d = 0; d < 2; ++d) {
        const Int8Inputs& in = digits[d];
        const auto scale_of = [&](size_t c) { return in.scales[t * blocks + c / 256]; };
        const auto value_of = [&](size_t c) { return int{in.values[t * in.stride + c]}; };
        LaneSums sums{};
        for (size_t k = 0; k < chunks; ++k) {
          int dot = 0;
          for (size_t c = 32 * k; c < std::min(cols, 32 * k + 32); ++c) {
            if (!form.apart[c]) dot += std::clamp(sampled.levels(r, c), least, most) * value_of(c);
          }
          sums[k % 32] = std::fmaf(scale_of(32 * k), static_cast<float>(dot), sums[k % 32]);
        }
        size_t listed = 0, apart = 0;
        for (size_t c = 0; c < cols; ++c) {
          const int rest = sampled.levels(r, c) - std::clamp(sampled.levels(r, c), least, most);
          if (form.apart[c] || rest == 0) continue;
          float& sum = sums[listed++ % 32];
          sum = std::fmaf(scale_of(c), static_cast<float>(rest * value_of(c)), sum);
        }
        for (size_t c = 0; c < cols; ++c) {
          if (!form.apart[c]) continue;
          float& sum = sums[apart++ % 32];
          sum = std::fmaf(d == 0 ? x(t, c) * sampled.parts.col_scale[c] : 0.0f,
                          static_cast<float>(sampled.levels(r, c)), sum);
        }
        of_digit[d] = SumOfLanes(sums);
      }
      const float scaled =
          (of_digit[0] + of_digit[1]) * EntropyStep(sampled.parts.row_step[r], sampled.parts.row_resolution);
      y(t, r) = bias.empty() ? scaled : scaled + bias[r];
    }
  }
  return y;
}

struct Case {
  size_t rows, cols;
  int states;
  double octaves;  // 0: 4 bits, 5: 8 bits
};
constexpr Case kCases[] = {{1, 1, 1, 1.0},      {3, 31, 8, 0.0},    {5, 32, 4, 1.0},    {7, 33, 8, 2.0},
                           {150, 255, 8, -1.0}, {129, 256, 8, 0.5}, {66, 257, 8, 1.2},  {130, 1023, 8, 2.0},
                           {33, 1024, 1, 3.0},  {40, 1025, 8, 3.5}, {17, 2080, 8, 4.5}, {260, 480, 8, 5.5},
                           {9, 5120, 8, 1.5},   {257, 3300, 8, 2.6}};

TEST(CudaLevels, EqualTheOracleForFewTokens) {
  MICA_NEEDS_CUDA();
  std::vector<int> widths;
  bool any_apart = false;
  for (const Case& c : kCases) {
    SCOPED_TRACE(fmt::format("{} x {}, {} states, {} octaves", c.rows, c.cols, c.states, c.octaves));
    const Sampled sampled(Random(c.rows, c.cols, c.states, c.octaves, static_cast<unsigned>(c.rows)));
    const Form form = Choose(sampled.levels);
    widths.push_back(form.width);
    any_apart = any_apart || std::count(form.apart.begin(), form.apart.end(), true) > 0;
    const ResidentWeights weights = sampled.OnCuda();
    ASSERT_FALSE(weights.empty());
    EXPECT_STREQ(weights.form().name(), "levels");
    const Matrix<float> x = RandomInputs(4, c.cols, 5);
    const std::vector<float> bias = RandomValues(c.rows, 6);
    const Matrix<float> expected = Oracle(sampled, x, bias);
    ExpectFewTokens(weights, x, bias, expected);
    EXPECT_TRUE(SameBytes(Product(weights, x, {}), Oracle(sampled, x, {})));
  }
  for (int width = 4; width <= 8; ++width)
    EXPECT_TRUE(std::count(widths.begin(), widths.end(), width) > 0) << "no case of " << width << " bits";
  EXPECT_TRUE(any_apart);
}

TEST(CudaLevels, AreWithinTheRoundingOfInputs) {
  MICA_NEEDS_CUDA();
  const Sampled sampled(Random(200, 1500, 8, 1.5, 3));
  const ResidentWeights weights = sampled.OnCuda();
  const Matrix<float> x = RandomInputs(4, 1500, 9), y = Product(weights, x, {});
  for (size_t t = 0; t < x.rows(); ++t) {
    for (size_t r = 0; r < sampled.matrix.rows; ++r) {
      double sum = 0, allowed = 1e-6;
      for (size_t first = 0; first < 1500; first += 256) {
        const size_t end = std::min<size_t>(1500, first + 256);
        double largest = 0, levels = 0;
        for (size_t c = first; c < end; ++c) {
          largest = std::max(largest, std::abs(double{x(t, c)} * sampled.parts.col_scale[c]));
          levels += std::abs(double{sampled.decoded(r, c)} / sampled.parts.col_scale[c]);
          sum += double{x(t, c)} * sampled.decoded(r, c);
        }
        allowed += 0.5 * largest / 127 * levels * (1 + 1e-5);
      }
      ASSERT_LE(std::abs(y(t, r) - sum), allowed) << "token " << t << ", row " << r;
    }
  }
}

TEST(CudaLevels, ManyTokensGoThroughSixteenBits) {
  MICA_NEEDS_CUDA();
  for (const size_t cols : {31, 320, 1001}) {
    const Sampled sampled(Random(300, cols, 8, 1.5, 4));
    ExpectNarrowProduct(sampled.OnCuda(), sampled.decoded, 9, 0x1p-7);
    ExpectNarrowProduct(sampled.OnCuda(), sampled.decoded, 70, 0x1p-7);
  }
}

TEST(CudaLevels, RowsAreTheDecodedWeights) {
  MICA_NEEDS_CUDA();
  for (const Case& c : kCases) {
    SCOPED_TRACE(fmt::format("{} x {}", c.rows, c.cols));
    const Sampled sampled(Random(c.rows, c.cols, c.states, c.octaves, static_cast<unsigned>(c.rows)));
    ExpectRows(sampled.OnCuda(), sampled.decoded);
  }
}

TEST(CudaLevels, ProductsOfOneInputAreThoseTakenAlone) {
  MICA_NEEDS_CUDA();
  const Sampled q(Random(300, 700, 8, 1.0, 11)), k(Random(90, 700, 8, 3.0, 12)),
      v(Random(90, 700, 8, 2.0, 13));
  const Matrix<float> x = RandomInputs(3, 700, 2);
  const std::vector<float> bias = RandomValues(90, 8);
  const Array x_there = OnCuda(x), bias_there = OnCuda(bias);
  const ResidentWeights weights[] = {q.OnCuda(), k.OnCuda(), v.OnCuda()};
  std::vector<Array> y;
  std::vector<ResidentProduct> products;
  for (const ResidentWeights& of : weights) y.push_back(PoisonedOnCuda(3, of.outputs(), DType::kF32));
  for (size_t i = 0; i < 3; ++i)
    products.push_back({&weights[i], i == 1 ? ConstTensor(bias_there.view()) : ConstTensor(), y[i].view()});
  MultiplyResident(x_there.view(), products);
  const uint64_t used = MemoryOf(Device::Cuda()).used_bytes;
  MultiplyResident(x_there.view(), products);
  EXPECT_EQ(MemoryOf(Device::Cuda()).used_bytes, used);
  for (size_t i = 0; i < 3; ++i) {
    const Matrix<float> alone = Product(weights[i], x, i == 1 ? ConstTensor(bias) : ConstTensor());
    EXPECT_TRUE(SameBytes(OnHost(y[i].view()), alone)) << i;
  }
}

TEST(CudaLevels, WorkCanBeRecorded) {
  MICA_NEEDS_CUDA();
  const Sampled sampled(Random(200, 700, 8, 1.0, 11));
  const ResidentWeights weights = sampled.OnCuda();
  for (const size_t tokens : {1, 3, 20}) {
    const Matrix<float> x = RandomInputs(tokens, 700, 2);
    Array x_there = OnCuda(x), y = PoisonedOnCuda(tokens, 200, DType::kF32);
    const ResidentProduct one{&weights, {}, y.view()};
    MultiplyResident(x_there.view(), {&one, 1});
    const RecordedWork recorded(Device::Cuda(), [&] { MultiplyResident(x_there.view(), {&one, 1}); });
    const Matrix<float> other = RandomInputs(tokens, 700, 3), expected = Product(weights, other, {});
    Copy(other, x_there.view());
    recorded.Replay();
    Synchronize(Device::Cuda());
    EXPECT_TRUE(SameBytes(OnHost(y.view()), expected)) << tokens;
  }
}

TEST(CudaLevels, NaNReachesTheProduct) {
  MICA_NEEDS_CUDA();
  const Sampled sampled(Random(40, 300, 8, 1.0, 3));
  Matrix<float> x = RandomInputs(2, 300, 1);
  x(1, 270) = NAN;
  const Matrix<float> y = Product(sampled.OnCuda(), x, {});
  for (size_t r = 0; r < 40; ++r) {
    EXPECT_TRUE(std::isfinite(y(0, r)));
    EXPECT_TRUE(std::isnan(y(1, r)));
  }
}

TEST(CudaLevels, LevelsBeyondSixteenBitsAreKeptAsValues) {
  MICA_NEEDS_CUDA();
  EntropyMatrix matrix = Random(40, 64, 8, 1.0, 3);
  matrix.n(17, 3) = 30000;
  const Sampled sampled(std::move(matrix));
  EXPECT_EQ(LevelsOnCuda(sampled.parts, Device::Cuda()), nullptr);
  const ResidentWeights weights = ResidentWeights::OfParts(sampled.parts, Device::Cuda());
  EXPECT_STREQ(weights.form().name(), "plain");
}

TEST(CudaLevels, MemoryIsThatOfTheWidthAndItsExceptions) {
  MICA_NEEDS_CUDA();
  const Sampled sampled(Random(512, 1024, 8, 1.0, 3));
  const Form form = Choose(sampled.levels);
  size_t listed = 0, apart = 0;
  for (size_t c = 0; c < 1024; ++c) {
    apart += form.apart[c] ? 1 : 0;
    for (size_t r = 0; r < 512 && !form.apart[c]; ++r)
      listed +=
          sampled.levels(r, c) < -(1 << (form.width - 1)) || sampled.levels(r, c) >= 1 << (form.width - 1)
              ? 1
              : 0;
  }
  const size_t weights = 512 * 1024 * static_cast<size_t>(form.width) / 8 + 4 * listed + 2 * 512 * apart;
  const size_t bytes = sampled.OnCuda().bytes();
  EXPECT_GE(bytes, weights);
  EXPECT_LE(bytes, weights + 8 * 513 + 4 * 1024 + 8 * apart + 64);
}

}  // namespace
}  // namespace mica
