// Packing integers of coding `fixed` where they are: every device writes what the processor writes by row.
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "ops/codes/codes.h"
#include "tests/ops/codes/testing.h"
#include "tests/ops/devices.h"

namespace mica {
namespace {

using Runs = std::vector<std::pair<int, size_t>>;

// Integers of a matrix on a device, by column inside wider arrays.
class Placed {
 public:
  Placed(const FixedMatrix& matrix, Device device)
      : codes_(ByColumn(matrix.codes, DType::kU16, device)),
        keep_(ByColumn(matrix.keep, DType::kU8, device)),
        scales_(Rows(matrix.scales, device)),
        zeros_(Rows(matrix.zeros, device)) {}
  FixedIntegers view() const { return {View(codes_), View(keep_), View(scales_), View(zeros_)}; }

 private:
  static constexpr size_t kBeside = 3;

  template <typename T, typename ValueAt>
  static Array Wider(size_t rows, size_t cols, DType dtype, Device device, const ValueAt& value_at) {
    if (rows * cols == 0) return Array(0, kBeside, dtype, device);
    Array host(rows, cols + kBeside, dtype);
    T* const values = reinterpret_cast<T*>(host.view().data);
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < cols + kBeside; ++c)
        values[r * (cols + kBeside) + c] =
            c == 0 || c > cols ? static_cast<T>(-1) : static_cast<T>(value_at(r, c - 1));
    }
    return CopyTo(device, host.view());
  }
  template <typename T>
  static Array ByColumn(const Matrix<T>& m, DType dtype, Device device) {
    return Wider<T>(m.cols(), m.rows(), dtype, device, [&](size_t r, size_t c) { return m(c, r); });
  }
  static Array Rows(const Matrix<uint8_t>& m, Device device) {
    return Wider<uint8_t>(m.rows(), m.cols(), DType::kU8, device,
                          [&](size_t r, size_t c) { return m(r, c); });
  }
  static Array Rows(const Matrix<ScaleCode>& m, Device device) {
    return Wider<uint8_t>(m.rows(), m.cols(), DType::kU8, device,
                          [&](size_t r, size_t c) { return m(r, c).bits; });
  }
  static ConstTensor View(const Array& array) { return array.view().Cols(1, array.cols() - kBeside); }

  Array codes_, keep_, scales_, zeros_;
};

class EncodeFixedOn : public OnDevices {
 protected:
  PackedMatrix Found(const FixedMatrix& matrix) const {
    const Placed placed(matrix, device());
    return Pack(matrix, placed.view());
  }
  void ExpectSame(const FixedMatrix& matrix) const {
    SCOPED_TRACE(testing::Message() << matrix.rows << " x " << matrix.cols << ", mask " << matrix.mask.name
                                    << ", groups of " << matrix.group_size << ", first width "
                                    << int{matrix.widths[0]});
    const PackedMatrix found = Found(matrix), expected = Pack(matrix);
    ASSERT_EQ(found.parts.size(), expected.parts.size());
    for (size_t i = 0; i < found.parts.size(); ++i) {
      const PackedPart &part = found.parts[i], &other = expected.parts[i];
      EXPECT_EQ(part.kind, other.kind);
      EXPECT_EQ(part.dtype, other.dtype);
      EXPECT_EQ(part.shape, other.shape);
      ASSERT_EQ(part.bytes.size(), other.bytes.size()) << "part " << static_cast<int>(part.kind);
      for (size_t b = 0; b < part.bytes.size(); ++b)
        ASSERT_EQ(part.bytes[b], other.bytes[b]) << "part " << static_cast<int>(part.kind) << ", byte " << b;
    }
    const auto &facts = std::get<FixedFacts>(found.facts), &others = std::get<FixedFacts>(expected.facts);
    EXPECT_EQ(facts.rows, others.rows);
    EXPECT_EQ(facts.cols, others.cols);
    EXPECT_EQ(facts.group_size, others.group_size);
    EXPECT_EQ(facts.exponent, others.exponent);
    EXPECT_EQ(facts.mask, others.mask);
  }
};
MICA_OVER_DEVICES(EncodeFixedOn);

// On either side of a segment, a group, a chunk and a word of the mask; widths with and without codes.
TEST_P(EncodeFixedOn, WritesWhatTheProcessorWrites) {
  unsigned seed = 0;
  for (const Runs& runs :
       {Runs{{3, 128}}, Runs{{2, 33}, {0, 5}, {4, 70}, {16, 40}}, Runs{{8, 1}, {6, 2}, {3, 31}, {2, 300}},
        Runs{{0, 9}}, Runs{{0, 7}, {3, 65}}, Runs{{16, 65}}, Runs{{6, 64}, {0, 3}}}) {
    for (const MaskKind& mask : kMaskKinds) {
      for (const size_t rows : {1, 31, 64, 131, 300}) {
        for (const size_t group_size : {1, 7, 128}) {
          ++seed;
          FixedMatrix matrix = RandomFixed(rows, runs, group_size, mask, seed, seed % 2 == 0);
          if (seed % 3 == 0) matrix = WithExponents(std::move(matrix));
          ExpectSame(matrix);
        }
      }
    }
  }
}

TEST_P(EncodeFixedOn, EveryWidthAlone) {
  for (const int bits : {2, 3, 4, 6, 8, 16}) {
    for (const MaskKind& mask : kMaskKinds)
      ExpectSame(RandomFixed(270, {{bits, 200}}, 128, mask, static_cast<unsigned>(bits)));
  }
}

// Groups of which a block of threads takes few rows, one row, and parts of a row.
TEST_P(EncodeFixedOn, LargeGroups) {
  for (const MaskKind& mask : kMaskKinds) {
    ExpectSame(RandomFixed(70, {{3, 1000}, {16, 530}}, 512, mask, 1));
    ExpectSame(RandomFixed(33, {{6, 5000}, {2, 90}}, 4999, mask, 2));
    ExpectSame(RandomFixed(5, {{3, 20000}, {4, 8193}, {16, 8192}}, 100000, mask, 3));
  }
}

// Chunks of which nothing is kept, at either end of a stream and between others.
TEST_P(EncodeFixedOn, MasksThatKeepLittle) {
  FixedMatrix matrix = RandomFixed(900, {{3, 130}, {16, 20}, {4, 128}}, 128, MaskKind::kBitmap, 8);
  std::fill_n(matrix.keep.data(), matrix.keep.size(), uint8_t{0});
  ExpectSame(matrix);
  matrix.keep(300, 2) = matrix.keep(300, 129) = matrix.keep(899, 277) = 1;
  ExpectSame(matrix);
  for (size_t r = 100; r < 110; ++r) std::fill_n(matrix.keep.row(r), matrix.cols, uint8_t{200});
  ExpectSame(matrix);
  std::fill_n(matrix.keep.data(), matrix.keep.size(), uint8_t{1});
  ExpectSame(matrix);
}

TEST_P(EncodeFixedOn, IsReadBack) {
  for (const MaskKind& mask : kMaskKinds) {
    const FixedMatrix matrix = WithExponents(RandomFixed(140, {{4, 90}, {0, 6}, {16, 50}}, 64, mask, 5));
    const PackedMatrix packed = Found(matrix);
    const FixedParts parts = OpenedFixed(packed);
    Matrix<float> weights(matrix.rows, matrix.cols), read(matrix.rows, matrix.cols);
    Decode(matrix, weights);
    Array decoded(matrix.rows, matrix.cols, DType::kF32, device());
    Decode(parts, 0, decoded.view());
    Copy(decoded.view(), read);
    EXPECT_TRUE(SameBytes(read, weights));
  }
}

}  // namespace
}  // namespace mica
