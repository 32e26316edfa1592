// Encoding integers where they are: every device writes what the processor writes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "format/entropy/lanes.h"
#include "ops/codes/codes.h"
#include "ops/codes/integers.h"
#include "ops/codes/put_table.h"
#include "tests/ops/codes/testing.h"
#include "tests/ops/devices.h"

namespace mica {
namespace {

// What a symbol of a GPU makes of a state.
uint32_t After(const PutSymbol& symbol, uint32_t state) {
  const uint64_t product = uint64_t{state} * symbol.reciprocal +
                           ((symbol.fields & put_symbol::kAdd) != 0 ? symbol.reciprocal : uint32_t{0});
  const uint32_t quotient =
      static_cast<uint32_t>(product >> 32) >> (symbol.fields >> put_symbol::kShift & put_symbol::kShiftMask);
  return state + (symbol.fields >> put_symbol::kStart) +
         quotient * (kFrequencySum - (symbol.fields & put_symbol::kFrequencyMask));
}
// States above this give a word.
uint32_t Most(const PutSymbol& symbol) { return (symbol.fields << (32 - kFrequencyBits)) - 1; }

TEST(PutTable, DividesExactly) {
  std::mt19937_64 random(1);
  for (uint32_t frequency = 1; frequency < kFrequencySum; ++frequency) {
    const uint32_t start = static_cast<uint32_t>(random() % (kFrequencySum - frequency + 1));
    const PutSymbol symbol = put_symbol::Make(frequency, start, 0);
    const uint64_t states = uint64_t{frequency} << (32 - kFrequencyBits);
    ASSERT_EQ(Most(symbol), states - 1);
    const auto expect = [&](uint64_t state) {
      if (state >= states) return;
      const uint32_t x = static_cast<uint32_t>(state);
      ASSERT_EQ(After(symbol, x), ((x / frequency) << kFrequencyBits) + x % frequency + start)
          << frequency << ", " << state;
    };
    // On either side of multiples, and at both ends.
    for (int i = 0; i < 200; ++i) {
      const uint64_t multiple = random() % (states / frequency + 1) * frequency;
      for (uint64_t state = multiple == 0 ? 0 : multiple - 1; state <= multiple + 1; ++state) expect(state);
      expect(states - 1 - static_cast<uint64_t>(i));
    }
  }
}

TEST(PutTable, HasTheSymbolsOfATable) {
  std::mt19937 random(2);
  for (int i = 0; i < 100; ++i) {
    const EntropyKnot knot = {static_cast<uint16_t>(1 + random() % kMaxZero),
                              static_cast<uint8_t>(random() % 64), static_cast<uint8_t>(random() % 256),
                              static_cast<uint8_t>(random() % 256)};
    const FrequencyTable table = MakeFrequencyTable(knot);
    std::vector<uint32_t> slots(kFrequencySum);
    FillSlots(table, slots.data());
    for (const int raw_bits : {0, 3}) {
      std::vector<PutSymbol> symbols(Symbols(table) + 5);
      FillPutSymbols(table, raw_bits, symbols.data(), symbols.size());
      for (const uint32_t slot : slots) {
        const uint32_t fields = symbols[rans_slot::Symbol(slot)].fields;
        ASSERT_EQ(fields >> put_symbol::kStart, rans_slot::Start(slot));
        ASSERT_EQ(fields & put_symbol::kFrequencyMask, rans_slot::Frequency(slot));
        ASSERT_EQ((fields & put_symbol::kEscape) != 0, (slot & rans_slot::kEscape) != 0);
        ASSERT_EQ((fields & put_symbol::kRaw) != 0, raw_bits > 0 && HasRawBits(slot));
      }
      for (size_t s = Symbols(table); s < symbols.size(); ++s)
        ASSERT_EQ(symbols[s].fields, symbols[Symbols(table) - 1].fields);
    }
  }
}

TEST(PutTable, NothingLeavesAStateAsItIs) {
  const PutSymbol nothing = {0, put_symbol::kNothing};
  EXPECT_EQ(Most(nothing), 0xFFFFFFFFu);
  for (const uint32_t state : {kRansLow, 12345678u, 0xFFFFFFFFu}) EXPECT_EQ(After(nothing, state), state);
}

class EncodeEntropyOn : public OnDevices {
 protected:
  // The integers of the matrix inside a wider array; what is beside them is no integer of it.
  Array Place(const EntropyMatrix& matrix) const {
    Array host(matrix.rows, matrix.cols + kBeside, DType::kI16);
    std::memset(host.view().data, 0x55, host.rows() * host.cols() * sizeof(int16_t));
    Copy(IntegersOf(matrix), host.view().Cols(1, matrix.cols));
    return CopyTo(device(), host.view());
  }
  static ConstTensor IntegersIn(const Array& placed) {
    return placed.view().Cols(1, placed.cols() - kBeside);
  }

  // The plain coder of a tile on the host.
  static EntropyStreams Expected(const EntropyMatrix& matrix, size_t lanes) {
    return EncodeEntropy(matrix, IntegersOf(matrix), lanes);
  }
  void ExpectSame(const EntropyMatrix& matrix, size_t lanes) const {
    SCOPED_TRACE(testing::Message() << matrix.rows << " x " << matrix.cols << ", " << lanes
                                    << " lanes, tiles of " << matrix.tile_rows << ", " << matrix.states
                                    << " states");
    const Array placed = Place(matrix);
    const EntropyStreams found = EncodeEntropy(matrix, IntegersIn(placed), lanes),
                         expected = Expected(matrix, lanes);
    ASSERT_EQ(found.lengths, expected.lengths);
    ASSERT_EQ(found.codes.size(), expected.codes.size());
    for (size_t i = 0; i < expected.codes.size(); ++i) ASSERT_EQ(found.codes[i], expected.codes[i]) << i;
  }

 private:
  static constexpr size_t kBeside = 3;
};
MICA_OVER_DEVICES(EncodeEntropyOn);

// Integers, raw bits and escapes in all lanes; keys put rows of a tile far from one another.
TEST_P(EncodeEntropyOn, WritesWhatTheProcessorWrites) {
  for (const EntropyCase& c : kEntropyCases) {
    for (const unsigned seed : {1u, 2u}) {
      const EntropyMatrix matrix = Sample(c, seed);
      for (const size_t lanes : {1, 2, 4, 8, 16, 32}) ExpectSame(matrix, lanes);
    }
  }
}

TEST_P(EncodeEntropyOn, WideMatrices) {
  for (const double octaves : {-3.0, -1.0, 2.0, 9.0}) {
    EntropyMatrix matrix = RandomEntropy(300, 700, 8, octaves, 11);
    FitEntropyModel(matrix);
    ExpectSame(matrix, kMostLanes);
  }
}

// Nothing but zeros, and columns of zeros alone in some lanes.
TEST_P(EncodeEntropyOn, Zeros) {
  EntropyMatrix matrix = RandomEntropy(260, 100, 8, 1.0, 3);
  std::fill_n(matrix.n.data(), matrix.n.size(), int16_t{0});
  FitEntropyModel(matrix);
  ExpectSame(matrix, 16);
  for (size_t r = 0; r < matrix.rows; ++r) matrix.n(r, 37) = static_cast<int16_t>(r % 5 - 2);
  ExpectSame(matrix, 32);
}

// Every integer that there is, in classes for all widths of raw bits.
TEST_P(EncodeEntropyOn, AllIntegers) {
  EntropyMatrix matrix = RandomEntropy(256, 256, 4, 3.0, 3);
  for (size_t i = 0; i < matrix.n.size(); ++i)
    matrix.n.data()[i] = static_cast<int16_t>(std::max<int>(static_cast<int>(i) - 32768, -kMaxInteger));
  matrix.tables = DefaultEntropyTables(matrix.states);
  matrix.row_class.assign(matrix.rows, 0);
  matrix.col_class.resize(matrix.cols);
  for (size_t c = 0; c < matrix.cols; ++c) matrix.col_class[c] = static_cast<int16_t>(c % 80) - 5;
  ExpectSame(matrix, 32);
}

// A tile that takes many times what its classes promise.
TEST_P(EncodeEntropyOn, MoreThanExpected) {
  EntropyMatrix matrix = RandomEntropy(400, 200, 8, 4.0, 9);
  FitEntropyModel(matrix);
  for (size_t r = 128; r < 256; ++r) matrix.row_class[r] = -100;
  ExpectSame(matrix, 32);
}

TEST_P(EncodeEntropyOn, PacksTheSameMatrix) {
  EntropyMatrix matrix = Sample({300, 170, 128, 8, 0.5}, 6);
  const Array placed = Place(matrix);
  const PackedMatrix found = Pack(matrix, IntegersIn(placed)), expected = Pack(matrix);
  ASSERT_EQ(found.parts.size(), expected.parts.size());
  for (size_t i = 0; i < found.parts.size(); ++i) EXPECT_EQ(found.parts[i].bytes, expected.parts[i].bytes);
  // And it is read back.
  Matrix<float> weights(matrix.rows, matrix.cols), read(matrix.rows, matrix.cols);
  Decode(matrix, weights);
  const EntropyParts parts = OpenedEntropy(found);
  Array decoded(matrix.rows, matrix.cols, DType::kF32, device());
  Decode(parts, 0, decoded.view());
  Copy(decoded.view(), read);
  EXPECT_TRUE(SameBytes(read, weights));
}

// A model fitted without classes to start from is of the same integers.
TEST_P(EncodeEntropyOn, FitsWithoutClasses) {
  EntropyMatrix matrix = Sample({200, 90, 128, 1, 0.5}, 5);
  const Array placed = Place(matrix);
  matrix.row_class.clear();
  matrix.col_class.clear();
  EntropyFrame frame = matrix;
  FitEntropyModel(frame, IntegersIn(placed));
  FitEntropyModel(matrix);
  const double bits = static_cast<double>(Pack(matrix).bits());
  EXPECT_NEAR(static_cast<double>(Pack(frame, IntegersIn(placed)).bits()), bits, 1e-4 * bits);
}

}  // namespace
}  // namespace mica
