// Coding `fixed` in a checkpoint: round trips against Decode of the matrix in memory, exact sizes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "base/threads.h"
#include "format/fixed/layout.h"
#include "format/stored_bits.h"
#include "io/packed/packed_checkpoint.h"
#include "tests/error_message.h"
#include "tests/format/fixed/testing.h"
#include "tests/io/packed/testing.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

struct Case {
  const char* name;
  size_t rows;
  std::vector<std::pair<int, size_t>> runs;
  size_t group_size;
  MaskKind mask;
  bool identity;
  bool exponents = false;
};

class FixedRoundTrip : public testing::TestWithParam<Case> {
 protected:
  FixedRoundTrip()
      : matrix_(RandomFixed(GetParam().rows, GetParam().runs, GetParam().group_size, GetParam().mask, 11,
                            GetParam().identity)) {
    if (GetParam().exponents) matrix_ = WithExponents(std::move(matrix_));
    PackedShard shard;
    shard.Add("model.layers.0.mlp.up_proj", Pack(matrix_));
    shard.Write(scratch_ / "model.safetensors");
    checkpoint_ = Checkpoint::Open(scratch_.path());
    weights_ = Matrix<float>(matrix_.rows, matrix_.cols, NAN);
    Decode(matrix_, weights_);
  }
  const std::string name_ = "model.layers.0.mlp.up_proj";
  TemporaryDirectory scratch_;
  FixedMatrix matrix_;
  Checkpoint checkpoint_;
  Matrix<float> weights_;
};

TEST_P(FixedRoundTrip, DecodesTheSameWeights) {
  EXPECT_TRUE(HasPacked(checkpoint_, name_));
  EXPECT_FALSE(HasPacked(checkpoint_, "model.layers.0.mlp.down_proj"));
  Matrix<float> out(matrix_.rows, matrix_.cols, NAN);
  DecodeStored(checkpoint_, name_, 0, out);
  EXPECT_EQ(std::memcmp(out.data(), weights_.data(), out.size() * sizeof(float)), 0);
}

TEST_P(FixedRoundTrip, DecodesAnyRowRange) {
  const StoredMatrix stored = OpenPacked(checkpoint_, name_);
  EXPECT_EQ(stored.rows(), matrix_.rows);
  EXPECT_EQ(stored.cols(), matrix_.cols);
  for (const size_t first : {size_t{0}, size_t{1}, matrix_.rows / 2, matrix_.rows - 1}) {
    if (first >= matrix_.rows) continue;
    for (const size_t count : {size_t{0}, size_t{1}, matrix_.rows - first}) {
      Matrix<float> out(count, matrix_.cols + 3, -7.0f);  // wider: the view's stride is not its width
      Decode(stored.parts, first, MatrixView<float>(out.data(), count, matrix_.cols, out.cols()));
      for (size_t r = 0; r < count; ++r) {
        EXPECT_EQ(std::memcmp(out.row(r), weights_.row(first + r), matrix_.cols * sizeof(float)), 0)
            << first << " " << r;
        EXPECT_EQ(out(r, matrix_.cols), -7.0f);
      }
    }
  }
}

TEST_P(FixedRoundTrip, UnpacksTheSameIntegers) {
  const StoredMatrix stored = OpenPacked(checkpoint_, name_);
  const FixedMatrix back = Unpack(std::get<FixedParts>(stored.parts));
  EXPECT_EQ(back.rows, matrix_.rows);
  EXPECT_EQ(back.order, matrix_.order);
  EXPECT_EQ(back.widths, matrix_.widths);
  EXPECT_EQ(back.group_size, matrix_.group_size);
  EXPECT_EQ(back.col_exponents, matrix_.col_exponents);
  EXPECT_EQ(std::memcmp(back.codes.data(), matrix_.codes.data(), 2 * matrix_.codes.size()), 0);
  ASSERT_EQ(back.scales.size(), matrix_.scales.size());
  EXPECT_EQ(std::memcmp(back.scales.data(), matrix_.scales.data(), matrix_.scales.size()), 0);
  EXPECT_EQ(std::memcmp(back.zeros.data(), matrix_.zeros.data(), matrix_.zeros.size()), 0);
  if (matrix_.mask != MaskKind::kNone && back.mask != MaskKind::kNone) {
    EXPECT_EQ(std::memcmp(back.keep.data(), matrix_.keep.data(), matrix_.keep.size()), 0);
  }
}

TEST_P(FixedRoundTrip, StoredBitsAreTheBytesOnDisk) {
  std::vector<uint64_t> kept;
  for (size_t p = 0; p < matrix_.cols && matrix_.mask != MaskKind::kNone; ++p) {
    kept.push_back(0);
    for (size_t r = 0; r < matrix_.rows; ++r) kept.back() += matrix_.keep(r, p);
  }
  const StoredBits predicted = FixedStoredBits(matrix_.rows, matrix_.widths, matrix_.group_size, matrix_.mask,
                                               kept, GetParam().identity, GetParam().exponents);
  const StoredBits stored = OpenPacked(checkpoint_, name_).bits();
  EXPECT_EQ(stored.codes, predicted.codes);
  EXPECT_EQ(stored.scales, predicted.scales);
  EXPECT_EQ(stored.zeros, predicted.zeros);
  EXPECT_EQ(stored.mask, predicted.mask);
  EXPECT_EQ(stored.order, predicted.order);
  EXPECT_EQ(stored.groups, predicted.groups);
  EXPECT_EQ(stored.padding, predicted.padding);
  uint64_t bytes = 0;
  for (const TensorView& tensor : checkpoint_.tensors()) bytes += tensor.data.size();
  EXPECT_EQ(predicted.total(), 8 * bytes);
  EXPECT_EQ(Pack(matrix_).bits(), 8 * bytes);
}

TEST_P(FixedRoundTrip, DoesNotDependOnTheNumberOfThreads) {
  const int threads = Threads();
  for (const int count : {1, 3}) {
    SetThreads(count);
    Matrix<float> out(matrix_.rows, matrix_.cols, NAN);
    DecodeStored(checkpoint_, name_, 0, out);
    EXPECT_EQ(std::memcmp(out.data(), weights_.data(), out.size() * sizeof(float)), 0) << count;
  }
  SetThreads(threads);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, FixedRoundTrip,
    testing::Values(
        Case{"OneWidth", 130, {{4, 256}}, 128, MaskKind::kNone, false},
        Case{"Identity", 64, {{8, 200}}, 128, MaskKind::kNone, true},
        Case{"OddWidths",
             67,
             {{8, 33}, {6, 130}, {4, 1}, {3, 257}, {2, 71}, {0, 5}},
             128,
             MaskKind::kNone,
             false},
        Case{"SmallGroups", 10, {{3, 70}, {2, 9}}, 7, MaskKind::kNone, false},
        Case{"OneWeight", 1, {{2, 1}}, 128, MaskKind::kNone, true},
        Case{"Half", 65, {{16, 100}}, 128, MaskKind::kNone, true},
        Case{"PrunedChannelsOnly", 9, {{0, 12}}, 128, MaskKind::kNone, false},
        Case{"Bitmap", 131, {{8, 61}, {4, 200}, {3, 64}, {2, 100}, {0, 9}}, 128, MaskKind::kBitmap, false},
        Case{"BitmapHalf", 66, {{16, 150}}, 64, MaskKind::kBitmap, false},
        Case{"BitmapPrunedFirst", 66, {{0, 13}, {4, 150}}, 64, MaskKind::kBitmap, false},
        Case{"TwoOfFour", 130, {{4, 128}, {3, 126}, {0, 4}}, 128, MaskKind::Cells(2, 4), false},
        Case{"TwoOfFourTail", 20, {{4, 67}}, 32, MaskKind::Cells(2, 4), true},
        Case{"Exponents", 66, {{4, 150}, {0, 9}, {3, 70}, {16, 8}}, 128, MaskKind::kNone, false, true},
        Case{"ExponentsInOrder", 66, {{3, 50}}, 64, MaskKind::kNone, true, true},
        Case{"ExponentsBitmap", 70, {{8, 61}, {16, 9}, {0, 9}}, 64, MaskKind::kBitmap, false, true},
        Case{"FourOfEight", 70, {{6, 100}, {2, 31}}, 128, MaskKind::Cells(4, 8), false}),
    [](const testing::TestParamInfo<Case>& info) { return info.param.name; });

// Files with right checksums whose codes of 16 bits are no numbers.
TEST(PackFixed, HalvesThatAreNoNumbersAreNamedByTensorAndPlace) {
  for (const auto& [half, word] : {std::pair<uint16_t, const char*>{0x7C00, "infinity"},
                                   {0xFC00, "infinity"},
                                   {0x7E00, "NaN"},
                                   {0xFC01, "NaN"}}) {
    FixedMatrix matrix = RandomFixed(130, {{16, 40}, {4, 30}}, 128, MaskKind::kNone, 5);
    matrix.codes(70, 7) = half;
    TemporaryDirectory scratch;
    PackedShard shard;
    shard.Add("L", Pack(matrix));
    shard.Write(scratch / "model.safetensors");
    const Checkpoint checkpoint = Checkpoint::Open(scratch.path());
    Matrix<float> out(20, matrix.cols);
    DecodeStored(checkpoint, "L", 0, out);  // rows that are sound
    ExpectError([&] { DecodeStored(checkpoint, "L", 60, out); },
                {"model.safetensors: tensor L.codes: holds ", word,
                 "row 70, column " + std::to_string(matrix.order[7])});
  }
}

// More than 65536 columns: the order needs 32 bits.
TEST(PackFixed, WideOrder) {
  const FixedMatrix matrix = RandomFixed(2, {{2, 70000}}, 128, MaskKind::kNone, 5);
  TemporaryDirectory scratch;
  PackedShard shard;
  shard.Add("L", Pack(matrix));
  shard.Write(scratch / "model.safetensors");
  const Checkpoint checkpoint = Checkpoint::Open(scratch.path());
  EXPECT_EQ(checkpoint.Get("L.order").dtype, DType::kU32);
  Matrix<float> expected(2, 70000), out(2, 70000, NAN);
  Decode(matrix, expected);
  DecodeStored(checkpoint, "L", 0, out);
  EXPECT_EQ(std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)), 0);
}

}  // namespace
}  // namespace mica
