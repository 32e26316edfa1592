// Decoders of coding `entropy`: the plain one against the encoder, every instruction set against the plain
// one.
#include "ops/codes/decode_tile.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "base/threads.h"
#include "format/entropy/lanes.h"
#include "ops/codes/codes.h"
#include "ops/codes/entropy_model.h"
#include "tests/ops/codes/testing.h"

namespace mica {
namespace {

// Bytes behind which nothing may be read: the next page is closed.
class Guarded {
 public:
  explicit Guarded(std::span<const std::byte> bytes) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t pages = (bytes.size() + page - 1) / page;
    size_ = (pages + 1) * page;
    map_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MICA_CHECK(map_ != MAP_FAILED);
    std::byte* closed = static_cast<std::byte*>(map_) + pages * page;
    MICA_CHECK(mprotect(closed, page, PROT_NONE) == 0);
    bytes_ = {closed - bytes.size(), bytes.size()};
    std::copy(bytes.begin(), bytes.end(), bytes_.begin());
  }
  ~Guarded() { munmap(map_, size_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  std::span<std::byte> bytes() const { return bytes_; }

 private:
  void* map_;
  size_t size_;
  std::span<std::byte> bytes_;
};

// What a decoder makes of all rows of a tile, NaN where it writes nothing; false when it found damage.
bool DecodeAll(const EntropyParts& parts, size_t tile, decltype(TileDecoder::decode) decode,
               Matrix<float>& out) {
  out = Matrix<float>(parts.rows, parts.cols, NAN);
  return decode(parts, TileRows(parts, tile, 0, out));
}

bool Same(const Matrix<float>& a, const Matrix<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(DecodeTile, GivesBackWhatWasEncodedOnEveryInstructionSet) {
  bool raw = false;
  for (const EntropyCase& c : kEntropyCases) {
    const EntropyMatrix matrix = Sample(c, static_cast<unsigned>(c.rows));
    Matrix<float> expected(c.rows, c.cols);
    Decode(matrix, expected);
    for (const size_t lanes : {1, 2, 4, 8, 16, 32}) {
      SCOPED_TRACE(testing::Message() << c.rows << " x " << c.cols << ", " << lanes << " lanes, tiles of "
                                      << c.tile_rows << ", " << c.states << " states");
      const PackedMatrix packed = Pack(matrix, lanes);
      EntropyParts parts = OpenedEntropy(packed);
      const Guarded codes(parts.codes);
      parts.codes = codes.bytes();
      raw |= parts.range.last() > kLastPlainClass;
      std::vector<TileDecoder> decoders = TileDecodersOfAllTargets();
      decoders.push_back({"plain", DecodeTile, DecodeTile});
      decoders.push_back({"chosen", DecodeTileCpu, DecodeTileCpu});
      for (const TileDecoder& decoder : decoders) {
        Matrix<float> out(c.rows, c.cols, NAN);
        for (size_t tile = 0; tile < parts.tiles(); ++tile)
          ASSERT_TRUE(decoder.decode(parts, TileRows(parts, tile, 0, out))) << decoder.name << " " << tile;
        EXPECT_TRUE(Same(out, expected)) << decoder.name;
        Matrix<int16_t> n(c.rows, c.cols, -32768);
        for (size_t tile = 0; tile < parts.tiles(); ++tile) {
          const TileRows rows(parts, tile);
          ASSERT_TRUE(
              decoder.decode_integers(parts, rows, [&](size_t first, size_t count, const int16_t* of_chunk) {
                for (size_t r = 0; r < rows.count(); ++r)
                  std::copy_n(of_chunk + r * lanes, count,
                              n.row(parts.order[tile * c.tile_rows + r]) + first);
              }));
        }
        EXPECT_EQ(std::memcmp(n.data(), matrix.n.data(), n.size() * sizeof(int16_t)), 0) << decoder.name;
      }
    }
  }
  EXPECT_TRUE(raw);
}

// Whatever stands in a stream, decoders end, read nothing beyond it and agree whether it is one.
TEST(DecodeTile, DamagedStreamsAreFoundOnEveryInstructionSet) {
  std::mt19937 random(5);
  for (const EntropyCase& c : {kEntropyCases[0], kEntropyCases[3], kEntropyCases[6]}) {
    const EntropyMatrix matrix = Sample(c, 3);
    for (const size_t lanes : {1, 4, 8, 16, 32}) {
      const PackedMatrix packed = Pack(matrix, lanes);
      EntropyParts parts = OpenedEntropy(packed);
      const std::vector<std::byte> whole(parts.codes.begin(),
                                         parts.codes.begin() + static_cast<ptrdiff_t>(parts.tile_begin[1]));
      std::vector<TileDecoder> decoders = TileDecodersOfAllTargets();
      for (int trial = 0; trial < 60; ++trial) {
        std::vector<std::byte> stream = whole;
        if (trial % 3 == 0) {  // shorter
          stream.resize(random() % stream.size());
        } else if (trial % 3 == 1) {  // other bytes
          for (int i = 0; i < 3; ++i)
            stream[random() % stream.size()] ^= static_cast<std::byte>(1 + random() % 255);
        } else {  // nonsense, of states as a stream may have them
          for (std::byte& byte : stream) byte = static_cast<std::byte>(random());
          for (size_t l = 0; l < lanes; ++l) stream[4 * l + 3] |= std::byte{1};
        }
        const Guarded guarded(stream);
        parts.codes = guarded.bytes();
        parts.tile_begin = {0, stream.size()};
        Matrix<float> expected, out;
        const bool valid = DecodeAll(parts, 0, DecodeTile, expected);
        // Another raw bit or escaped integer is a stream as good.
        EXPECT_TRUE(!valid || trial % 3 == 1) << trial;
        for (const TileDecoder& decoder : decoders) {
          EXPECT_EQ(DecodeAll(parts, 0, decoder.decode, out), valid) << decoder.name << " " << trial;
          EXPECT_TRUE(Same(out, expected)) << decoder.name << " " << trial;
        }
      }
    }
  }
}

// Overhead of the interleaving: what is stored beyond the code lengths.
TEST(ChooseLanes, CostsLittleOfWhatIsStored) {
  struct Shape {
    size_t rows, cols;
    double share;  // at most
  };
  // Two tiles are like all others of their matrix.
  for (const Shape& shape :
       {Shape{256, 5120, 0.001}, Shape{256, 13824, 0.001}, Shape{512, 512, 0.002}, Shape{128, 100, 0.006}}) {
    EntropyMatrix matrix = RandomEntropy(shape.rows, shape.cols, 8, 0.3, 7);
    FitEntropyModel(matrix);
    const double expected = ExpectedBits(matrix), ideal = EntropyCodeBits(matrix);
    EXPECT_NEAR(expected * static_cast<double>(matrix.n.size()), ideal, 0.1 * ideal);
    const PackedMatrix packed = Pack(matrix);
    const size_t lanes = std::get<EntropyFacts>(packed.facts).lanes;
    EXPECT_EQ(lanes, ChooseLanes(matrix));
    EXPECT_EQ(lanes == kMostLanes, shape.cols >= 5120);
    const double overhead = static_cast<double>(packed.code_bits()) - ideal;
    EXPECT_LT(overhead, shape.share * ideal) << shape.cols << " columns, " << lanes << " lanes";
    EXPECT_GT(overhead, 0.5 * kLaneBits * static_cast<double>(lanes * matrix.tiles()));
  }
  EntropyMatrix narrow = RandomEntropy(5, 1, 1, -9.0, 7);
  FitEntropyModel(narrow);
  EXPECT_EQ(ChooseLanes(narrow), 1u);
}

}  // namespace
}  // namespace mica
