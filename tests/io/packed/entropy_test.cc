// Coding `entropy` in a checkpoint: round trips against Decode of the matrix in memory, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "format/entropy/lanes.h"
#include "io/packed/facts.h"
#include "io/packed/packed_checkpoint.h"
#include "ops/codes/entropy_model.h"
#include "tests/error_message.h"
#include "tests/format/entropy/testing.h"
#include "tests/io/packed/testing.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

using testing::AllOf;
using testing::HasSubstr;

struct Case {
  const char* name;
  size_t rows, cols;
  int states;
  double octaves;
  bool keys;
  int row_resolution;
};

// Rows of a tile are a fact: what is stored with others comes back as well.
TEST(EntropyTiles, OfAnyHeight) {
  for (const size_t tile_rows : {1, 7, 64, 4096}) {
    EntropyMatrix matrix = RandomEntropy(150, 40, 8, 0.5, 3);
    matrix.tile_rows = tile_rows;
    FitEntropyModel(matrix);
    TemporaryDirectory scratch;
    PackedShard shard;
    shard.Add("L", Pack(matrix, 4));
    shard.Write(scratch / "model.safetensors");
    const Checkpoint checkpoint = Checkpoint::Open(scratch.path());
    EXPECT_EQ(checkpoint.Get("L.tiles").shape[0], (150 + tile_rows - 1) / tile_rows);
    Matrix<float> expected(150, 40), out(150, 40, NAN), part(13, 40, NAN);
    Decode(matrix, expected);
    DecodeStored(checkpoint, "L", 0, out);
    EXPECT_EQ(std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)), 0) << tile_rows;
    DecodeStored(checkpoint, "L", 60, part);
    EXPECT_EQ(std::memcmp(part.data(), expected.row(60), part.size() * sizeof(float)), 0) << tile_rows;
  }
}

class EntropyRoundTrip : public testing::TestWithParam<Case> {
 protected:
  EntropyRoundTrip() {
    const Case& c = GetParam();
    matrix_ = RandomEntropy(c.rows, c.cols, c.states, c.octaves, 31);
    matrix_.row_resolution = c.row_resolution;
    for (size_t r = 0; c.keys && r < c.rows; ++r)
      matrix_.row_key.push_back(static_cast<int16_t>((r * 7) % 5) - 2);
    FitEntropyModel(matrix_);
    PackedShard shard;
    shard.Add("L", Pack(matrix_));
    shard.Write(scratch_ / "model.safetensors");
    checkpoint_ = Checkpoint::Open(scratch_.path());
    weights_ = Matrix<float>(c.rows, c.cols, NAN);
    Decode(matrix_, weights_);
  }
  TemporaryDirectory scratch_;
  EntropyMatrix matrix_;
  Checkpoint checkpoint_;
  Matrix<float> weights_;
};

TEST_P(EntropyRoundTrip, DecodesTheSameWeights) {
  Matrix<float> out(matrix_.rows, matrix_.cols, NAN);
  DecodeStored(checkpoint_, "L", 0, out);
  EXPECT_EQ(std::memcmp(out.data(), weights_.data(), out.size() * sizeof(float)), 0);
}

TEST_P(EntropyRoundTrip, DecodesAnyRowRange) {
  const StoredMatrix stored = OpenPacked(checkpoint_, "L");
  EXPECT_TRUE(std::holds_alternative<EntropyParts>(stored.parts));
  for (const size_t first : {size_t{0}, size_t{1}, matrix_.rows / 2, matrix_.rows - 1}) {
    if (first >= matrix_.rows) continue;
    for (const size_t count : {size_t{0}, size_t{1}, matrix_.rows - first}) {
      Matrix<float> out(count, matrix_.cols, NAN);
      Decode(stored.parts, first, out);
      EXPECT_EQ(std::memcmp(out.data(), weights_.row(first), out.size() * sizeof(float)), 0)
          << first << " " << count;
    }
  }
}

TEST_P(EntropyRoundTrip, StoredBitsAreTheBytesOnDisk) {
  uint64_t bytes = 0;
  for (const TensorView& tensor : checkpoint_.tensors()) bytes += tensor.data.size();
  const StoredBits stored = OpenPacked(checkpoint_, "L").bits();
  EXPECT_EQ(stored.total(), 8 * bytes);
  EXPECT_EQ(Pack(matrix_).bits(), 8 * bytes);
  EXPECT_EQ(Pack(matrix_).code_bits(), stored.codes);
  // Code lengths and what each lane leaves in its first state, 16 to 32 bits.
  const double lanes = static_cast<double>(matrix_.tiles() * ChooseLanes(matrix_));
  EXPECT_NEAR(EntropyCodeBits(matrix_) + kLaneBits * lanes, static_cast<double>(stored.codes),
              0.001 * static_cast<double>(stored.total()) + 8 * lanes);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, EntropyRoundTrip,
    testing::Values(Case{"Scalar", 300, 130, 1, 0.3, false, 8}, Case{"Fine", 130, 67, 1, 0.3, false, 64},
                    Case{"Trellis8", 300, 131, 8, 0.3, false, 8}, Case{"Trellis4", 129, 65, 4, 1.3, false, 8},
                    Case{"Trellis8Keys", 390, 62, 8, -0.5, true, 8},
                    Case{"ScalarKeys", 140, 33, 1, 2.0, true, 8}, Case{"OneWeight", 1, 1, 1, 1.0, false, 8},
                    Case{"OneColumn", 257, 1, 8, 1.0, true, 8}, Case{"OneRow", 1, 300, 4, 1.0, false, 8},
                    Case{"Zeros", 40, 40, 1, -9.0, false, 8}, Case{"ZerosTrellis", 140, 9, 8, -9.0, false, 8},
                    Case{"ManyBits", 140, 60, 1, 6.0, false, 8},
                    Case{"ManyBitsTrellis", 140, 60, 8, 9.5, false, 8},
                    Case{"Full", 30, 60, 1, 13.5, false, 8}),
    [](const testing::TestParamInfo<Case>& info) { return info.param.name; });

// A checkpoint of one matrix, to be damaged in one way and read again.
class EntropyDamage : public testing::Test {
 protected:
  EntropyDamage() {
    matrix_ = RandomEntropy(200, 50, 8, 0.5, 3);
    FitEntropyModel(matrix_);
    PackedMatrix packed = Pack(matrix_);
    facts_ = FactsJson(packed.facts);
    tensors_ = NamedTensors("L", std::move(packed));
  }
  std::vector<std::byte>& Bytes(const std::string& part) {
    for (PackedTensor& tensor : tensors_) {
      if (tensor.spec.name == "L." + part) return tensor.bytes;
    }
    MICA_CHECK(false);
  }
  void Resize(const std::string& part, size_t bytes) {
    for (PackedTensor& tensor : tensors_) {
      if (tensor.spec.name != "L." + part) continue;
      tensor.bytes.resize(bytes);
      tensor.spec.shape = {bytes / DTypeBytes(tensor.spec.dtype)};
    }
  }
  // Writes with checksums that fit what is there, as a faulty writer would, and reads.
  std::string ReadError(size_t flip_after_signing = 0) {
    std::map<std::string, uint32_t> crc32;
    for (const PackedTensor& tensor : tensors_) crc32[tensor.spec.name.substr(2)] = Crc32(tensor.bytes);
    if (flip_after_signing != 0) tensors_[flip_after_signing - 1].bytes[1] ^= std::byte{16};
    std::vector<TensorSpec> specs;
    for (const PackedTensor& tensor : tensors_) specs.push_back(tensor.spec);
    SafetensorsWriter writer(scratch_ / "model.safetensors", specs,
                             {{MatrixKey("L"), FactsText(facts_, crc32)}});
    for (const PackedTensor& tensor : tensors_) writer.Write(tensor.bytes);
    writer.Commit();
    const Checkpoint checkpoint = Checkpoint::Open(scratch_.path());
    Matrix<float> out(200, 50);
    return MessageOf([&] { DecodeStored(checkpoint, "L", 0, out); });
  }
  TemporaryDirectory scratch_;
  EntropyMatrix matrix_;
  std::vector<PackedTensor> tensors_;
  Json facts_;
};

TEST_F(EntropyDamage, NoneIsRead) { EXPECT_EQ(ReadError(), ""); }

TEST_F(EntropyDamage, EveryFlippedTensorIsNamed) {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    EXPECT_THAT(ReadError(i + 1), AllOf(HasSubstr("tensor " + tensors_[i].spec.name), HasSubstr("checksum")));
    tensors_[i].bytes[1] ^= std::byte{16};
  }
}

TEST_F(EntropyDamage, CodesThatAreNoStream) {
  Bytes("codes")[0] ^= std::byte{1};
  EXPECT_THAT(ReadError(), AllOf(HasSubstr("L.codes: tile 0"), HasSubstr("damaged")));
}

TEST_F(EntropyDamage, LengthsThatDoNotAddUp) {
  Bytes("tiles")[0] ^= std::byte{2};
  EXPECT_THAT(ReadError(), HasSubstr("L.codes has shape"));
}

TEST_F(EntropyDamage, LengthsThatAddUpWrongly) {
  Bytes("tiles")[0] ^= std::byte{2};
  uint32_t first, second;
  std::memcpy(&first, Bytes("tiles").data(), 4);
  second = static_cast<uint32_t>(Bytes("codes").size()) - first;
  std::memcpy(Bytes("tiles").data() + 4, &second, 4);
  EXPECT_THAT(ReadError(), HasSubstr("L.codes: tile"));
}

TEST_F(EntropyDamage, NoCodes) {
  std::memset(Bytes("tiles").data(), 0, Bytes("tiles").size());
  EXPECT_THAT(ReadError(), HasSubstr("L.tiles holds no bytes for 2 tiles"));
}

TEST_F(EntropyDamage, TableWithoutZeros) {
  std::memset(Bytes("tables").data() + 4, 0, 4);
  EXPECT_THAT(ReadError(), HasSubstr("L.tables: entry 1 has frequency 0"));
}

TEST_F(EntropyDamage, SideThatIsNoStream) {
  Bytes("side")[34] ^= std::byte{1};
  EXPECT_THAT(ReadError(),
              HasSubstr("L.side does not hold the steps and classes of 200 rows and 50 columns"));
  Resize("side", 20);
  EXPECT_THAT(ReadError(), HasSubstr("L.side does not hold"));
}

TEST_F(EntropyDamage, StepsBeyondFloats) {
  const int16_t base = 30000;
  std::memcpy(Bytes("side").data(), &base, 2);
  EXPECT_THAT(ReadError(), HasSubstr("L.side does not hold"));
}

TEST_F(EntropyDamage, FactsOutOfRange) {
  const Json before = facts_;
  const auto error_with = [&](const char* key, const Json& value) {
    facts_ = before;
    facts_[key] = value;
    return ReadError();
  };
  EXPECT_THAT(error_with("states", 2), HasSubstr("states is 2"));
  EXPECT_THAT(error_with("states", 1), HasSubstr("L.tables has shape"));
  EXPECT_THAT(error_with("row_resolution", 9), HasSubstr("row_resolution is 9"));
  EXPECT_THAT(error_with("first_knot", 10), HasSubstr("first_knot is 10"));
  EXPECT_THAT(error_with("lanes", 0), HasSubstr("lanes is 0, expected a number from 1 to 32"));
  EXPECT_THAT(error_with("lanes", 3), HasSubstr("lanes is 3, expected 1, 2, 4, 8, 16 or 32"));
  EXPECT_THAT(error_with("lanes", 64), HasSubstr("lanes is 64"));
  EXPECT_THAT(error_with("lanes", nullptr), HasSubstr("lanes is null"));
  EXPECT_THAT(error_with("lanes", 2), HasSubstr("L.codes: tile"));
  EXPECT_THAT(error_with("tile_rows", 0), HasSubstr("tile_rows is 0, expected a number from 1 to 4096"));
  EXPECT_THAT(error_with("tile_rows", 4097), HasSubstr("tile_rows is 4097"));
  EXPECT_THAT(error_with("tile_rows", 64), HasSubstr("L.tiles has shape"));
  EXPECT_THAT(error_with("tile_rows", 127), HasSubstr("L.codes: tile"));
  EXPECT_THAT(error_with("rows", 300), HasSubstr("L.tiles has shape"));
  EXPECT_THAT(error_with("rows", 256), HasSubstr("L.side does not hold"));
}

}  // namespace
}  // namespace mica
