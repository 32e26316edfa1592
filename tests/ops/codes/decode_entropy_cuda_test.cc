// Coding `entropy` on a CUDA device against the processor.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "device/cuda.h"
#include "format/entropy/rans.h"
#include "ops/codes/codes.h"
#include "ops/codes/rank_table.h"
#include "tests/error_message.h"
#include "tests/ops/codes/on_device.h"
#include "tests/ops/codes/testing.h"

namespace mica {
namespace {

// Every slot leads to the symbol that the slots of rans.h have there.
TEST(RankTable, SaysWhatTheSlotsSay) {
  std::mt19937 random(3);
  for (int i = 0; i < 200; ++i) {
    const EntropyKnot knot = {static_cast<uint16_t>(1 + random() % kMaxZero),
                              static_cast<uint8_t>(random() % 64), static_cast<uint8_t>(random() % 256),
                              static_cast<uint8_t>(random() % 256)};
    const FrequencyTable table = MakeFrequencyTable(knot);
    std::vector<uint32_t> slots(kFrequencySum), words(kRankBuckets + Symbols(table));
    FillSlots(table, slots.data());
    FillRanks(table, words.data());
    for (uint32_t slot = 0; slot < kFrequencySum; ++slot) {
      const uint32_t bucket = words[slot >> kBucketBits];
      const uint32_t begun =
          (bucket >> 16) + static_cast<uint32_t>(std::popcount(bucket & ((2u << (slot % 16)) - 1)));
      const uint32_t range = words[kRankBuckets + begun - 1];
      ASSERT_EQ(begun - 1, rans_slot::Symbol(slots[slot])) << slot;
      ASSERT_EQ(range & 0xFFFF, rans_slot::Start(slots[slot])) << slot;
      ASSERT_EQ(range >> 16, rans_slot::Frequency(slots[slot])) << slot;
      ASSERT_EQ(slot >= kFrequencySum - kEscapeFrequency, (slots[slot] & rans_slot::kEscape) != 0) << slot;
    }
  }
}

class DecodeEntropyOnCuda : public testing::Test {
 protected:
  void SetUp() override {
    if (CudaDevices() == 0) GTEST_SKIP() << CudaAbsence();
  }
};

TEST_F(DecodeEntropyOnCuda, GivesWhatTheProcessorGives) {
  for (const EntropyCase& c : kEntropyCases) {
    const EntropyMatrix matrix = Sample(c, static_cast<unsigned>(c.rows));
    for (const size_t lanes : {1, 2, 4, 8, 16, 32}) {
      SCOPED_TRACE(testing::Message() << c.rows << " x " << c.cols << ", " << lanes << " lanes, tiles of "
                                      << c.tile_rows << ", " << c.states << " states");
      const PackedMatrix packed = Pack(matrix, lanes);
      ExpectSameOnDevice(OpenedEntropy(packed));
    }
  }
}

// More columns than a chunk, words of all lanes in one row, every lane in every phase.
TEST_F(DecodeEntropyOnCuda, WideMatrices) {
  for (const double octaves : {-3.0, 2.0, 9.0}) {
    EntropyMatrix matrix = RandomEntropy(129, 700, 8, octaves, 11);
    FitEntropyModel(matrix);
    const PackedMatrix packed = Pack(matrix, kMostLanes);
    ExpectSameOnDevice(OpenedEntropy(packed));
  }
}

TEST_F(DecodeEntropyOnCuda, FineSteps) {
  EntropyMatrix matrix = RandomEntropy(70, 65, 8, 1.0, 12);
  matrix.row_resolution = kFineStepResolution;
  for (size_t r = 0; r < matrix.rows; ++r) matrix.row_step[r] = static_cast<int16_t>(r * 13) - 400;
  FitEntropyModel(matrix);
  const PackedMatrix packed = Pack(matrix, 8);
  ExpectSameOnDevice(OpenedEntropy(packed));
}

TEST_F(DecodeEntropyOnCuda, RangesOfRows) {
  for (const EntropyCase& c : {kEntropyCases[0], kEntropyCases[2], kEntropyCases[3]}) {
    const EntropyMatrix matrix = Sample(c, static_cast<unsigned>(c.rows));
    const PackedMatrix packed = Pack(matrix, 8);
    const EntropyParts parts = OpenedEntropy(packed);
    for (const auto& [first, count] : std::vector<std::pair<size_t, size_t>>{
             {0, 1}, {c.rows - 1, 1}, {c.rows / 3, c.rows / 2}, {c.rows, 0}, {5, 13}})
      ExpectSameOnDevice(parts, first, count);
  }
}

// Of a damaged stream a device says what the processor says, and survives it.
TEST_F(DecodeEntropyOnCuda, DamagedStreamsAreFound) {
  std::mt19937 random(5);
  for (const EntropyCase& c : {kEntropyCases[0], kEntropyCases[2], kEntropyCases[3], kEntropyCases[6]}) {
    const EntropyMatrix matrix = Sample(c, 3);
    for (const size_t lanes : {1, 4, 32}) {
      const PackedMatrix packed = Pack(matrix, lanes);
      EntropyParts parts = OpenedEntropy(packed);
      parts.codes_name = "model.safetensors: tensor L.codes";
      const std::vector<uint64_t> begin = parts.tile_begin;
      const std::vector<std::byte> whole(parts.codes.begin(), parts.codes.end());
      int found = 0;
      for (int trial = 0; trial < 40; ++trial) {
        const size_t tile = random() % parts.tiles();
        std::vector<std::byte> stream(whole.begin() + static_cast<ptrdiff_t>(begin[tile]),
                                      whole.begin() + static_cast<ptrdiff_t>(begin[tile + 1]));
        switch (trial % 5) {
          case 0:  // shorter, by any number of bytes
            stream.resize(random() % stream.size());
            break;
          case 1:  // longer
            stream.resize(stream.size() + 1 + random() % 4);
            break;
          case 2:  // other bytes
            for (int i = 0; i < 3; ++i)
              stream[random() % stream.size()] ^= static_cast<std::byte>(1 + random() % 255);
            break;
          case 3:  // nonsense, of states as a stream may have them
            for (std::byte& byte : stream) byte = static_cast<std::byte>(random());
            for (size_t l = 0; l < lanes; ++l) stream[4 * l + 3] |= std::byte{1};
            break;
          case 4:  // a state that no stream begins with
            for (size_t i = 2; i < 4; ++i) stream[4 * (random() % lanes) + i] = std::byte{0};
            for (size_t i = 2; i < 4; ++i) stream[i] = std::byte{0};
            break;
        }
        std::vector<std::byte> codes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(begin[tile]));
        codes.insert(codes.end(), stream.begin(), stream.end());
        codes.insert(codes.end(), whole.begin() + static_cast<ptrdiff_t>(begin[tile + 1]), whole.end());
        parts.codes = codes;
        for (size_t t = tile + 1; t < begin.size(); ++t)
          parts.tile_begin[t] = begin[t] + stream.size() - (begin[tile + 1] - begin[tile]);
        found += ExpectSameOnDevice(parts) ? 0 : 1;
        // Behind the damage all is well, wherever the streams begin.
        const size_t next_row = (tile + 1) * c.tile_rows;
        if (next_row < c.rows && parts.in_order) {
          EXPECT_TRUE(ExpectSameOnDevice(parts, next_row, c.rows - next_row));
        }
        parts.tile_begin = begin;
      }
      EXPECT_GE(found, 30);
    }
  }
}

// Matrices of all kinds side by side, each where it belongs; damage is that of its matrix.
TEST_F(DecodeEntropyOnCuda, ManyAtOnce) {
  std::vector<PackedMatrix> packed;
  for (const EntropyCase& c : kEntropyCases)
    packed.push_back(Pack(Sample(c, static_cast<unsigned>(c.rows)), 8));
  std::vector<AnyParts> parts;
  for (const PackedMatrix& matrix : packed) parts.emplace_back(OpenedEntropy(matrix));
  ExpectSameOnDevice(parts);

  EntropyParts& damaged = std::get<EntropyParts>(parts[3]);
  damaged.codes_name = "the fourth";
  std::vector<std::byte> codes(damaged.codes.begin(), damaged.codes.end());
  codes[damaged.tile_begin[2] + 3] = codes[damaged.tile_begin[2] + 2] = std::byte{0};
  damaged.codes = codes;
  std::vector<Array> arrays;
  std::vector<RowsOf<AnyParts>> all;
  for (size_t i = 0; i < parts.size(); ++i) {
    arrays.emplace_back(kEntropyCases[i].rows, kEntropyCases[i].cols, DType::kF32, Device::Cuda());
    all.push_back({&parts[i], 0, arrays[i].view()});
  }
  ExpectError([&] { DecodeMany(all); }, {"the fourth: tile 2 does not end where it should"});
}

}  // namespace
}  // namespace mica
