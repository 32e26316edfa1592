// Coding `fixed` on a CUDA device against the processor.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "device/cuda.h"
#include "ops/codes/codes.h"
#include "tests/error_message.h"
#include "tests/ops/codes/on_device.h"
#include "tests/ops/codes/testing.h"

namespace mica {
namespace {

class DecodeFixedOnCuda : public testing::Test {
 protected:
  void SetUp() override {
    if (CudaDevices() == 0) GTEST_SKIP() << CudaAbsence();
  }
};

using Runs = std::vector<std::pair<int, size_t>>;

// Widths, masks, orders and exponents, on either side of a group, a word of the mask and a block of rows.
TEST_F(DecodeFixedOnCuda, GivesWhatTheProcessorGives) {
  unsigned seed = 0;
  for (const Runs& runs :
       {Runs{{3, 128}}, Runs{{2, 33}, {0, 5}, {4, 70}, {16, 40}}, Runs{{8, 1}, {6, 2}, {3, 31}, {2, 300}},
        Runs{{0, 9}}, Runs{{16, 65}}, Runs{{6, 64}}}) {
    for (const MaskKind& mask : kMaskKinds) {
      for (const size_t rows : {1, 64, 131}) {
        for (const size_t group_size : {7, 128}) {
          for (const bool identity : {false, true}) {
            SCOPED_TRACE(testing::Message() << rows << " rows, runs from " << runs[0].first << " bits x "
                                            << runs[0].second << ", mask " << mask.name << ", groups of "
                                            << group_size << ", identity " << identity);
            FixedMatrix matrix = RandomFixed(rows, runs, group_size, mask, ++seed, identity);
            if (seed % 3 == 0) matrix = WithExponents(std::move(matrix));
            const PackedMatrix packed = Pack(matrix);
            ExpectSameOnDevice(OpenedFixed(packed));
          }
        }
      }
    }
  }
}

TEST_F(DecodeFixedOnCuda, EveryWidthAlone) {
  for (const int bits : {2, 3, 4, 6, 8, 16}) {
    for (const MaskKind& mask : kMaskKinds) {
      const FixedMatrix matrix = RandomFixed(70, {{bits, 200}}, 128, mask, static_cast<unsigned>(bits));
      const PackedMatrix packed = Pack(matrix);
      ExpectSameOnDevice(OpenedFixed(packed));
    }
  }
}

TEST_F(DecodeFixedOnCuda, RangesOfRows) {
  for (const MaskKind& mask : kMaskKinds) {
    const FixedMatrix matrix = RandomFixed(200, {{3, 100}, {16, 8}}, 32, mask, 9);
    const PackedMatrix packed = Pack(matrix);
    const FixedParts parts = OpenedFixed(packed);
    for (const auto& [first, count] : std::vector<std::pair<size_t, size_t>>{
             {0, 1}, {199, 1}, {63, 2}, {64, 64}, {70, 101}, {200, 0}, {129, 3}})
      ExpectSameOnDevice(parts, first, count);
  }
}

// Rows too long to be put together in shared memory.
TEST_F(DecodeFixedOnCuda, LongRows) {
  const FixedMatrix matrix = RandomFixed(3, {{2, 70000}, {4, 1000}}, 4096, MaskKind::kBitmap, 9);
  const PackedMatrix packed = Pack(matrix);
  ExpectSameOnDevice(OpenedFixed(packed));
}

TEST_F(DecodeFixedOnCuda, CodesThatAreNotFiniteAreFound) {
  for (const uint16_t code : {0x7C00, 0xFC00, 0x7E01}) {
    FixedMatrix matrix = RandomFixed(130, {{16, 40}, {3, 20}}, 16, MaskKind::kNone, 4);
    matrix.codes(70, 11) = code;
    matrix.codes(70, 30) = 0x7C00;
    matrix.codes(129, 0) = 0x7E00;
    const PackedMatrix packed = Pack(matrix);
    FixedParts parts = OpenedFixed(packed);
    parts.codes_name = "model.safetensors: tensor L.codes";
    EXPECT_TRUE(ExpectSameOnDevice(parts, 0, 70));
    EXPECT_TRUE(ExpectSameOnDevice(parts, 71, 58));
    EXPECT_FALSE(ExpectSameOnDevice(parts, 60, 20));
    EXPECT_FALSE(ExpectSameOnDevice(parts, 129, 1));
  }
}

TEST_F(DecodeFixedOnCuda, ManyAtOnceWithOtherCodings) {
  std::vector<PackedMatrix> packed;
  std::vector<AnyParts> parts;
  for (const MaskKind& mask : kMaskKinds)
    packed.push_back(Pack(RandomFixed(100 + 50 * mask.row, {{4, 90}, {2, 50}}, 64, mask, 5, mask.row == 1)));
  for (const PackedMatrix& matrix : packed) parts.emplace_back(OpenedFixed(matrix));
  const PackedMatrix entropy = Pack(Sample(kEntropyCases[0], 2), 16);
  parts.emplace(parts.begin() + 2, OpenedEntropy(entropy));
  ExpectSameOnDevice(parts);
  ExpectSameOnDevice(parts, 20, 90);
}

}  // namespace
}  // namespace mica
