// Packed matrices of every kind in one file, decoded from it; tests/packed_reader_test.py reads the same
// files.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "io/packed/packed_checkpoint.h"
#include "io/packed/stored_matrix.h"
#include "ops/codes/codes.h"
#include "ops/codes/entropy_model.h"
#include "tests/format/entropy/testing.h"
#include "tests/format/fixed/testing.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

// Writes DIRECTORY/model.safetensors with all matrices, decodes each from that file, bit by bit as `expected`
// has it, and leaves what was decoded in NAME.f32.
void ExpectDecodedAs(const std::map<std::string, Matrix<float>>& expected, const PackedShard& shard,
                     const std::filesystem::path& directory) {
  shard.Write(directory / "model.safetensors");
  const Checkpoint checkpoint = Checkpoint::Open(directory);
  std::vector<std::string> names;
  for (const auto& [name, weights] : expected) names.push_back(name);
  ASSERT_EQ(PackedNames(checkpoint), names);
  for (const auto& [name, weights] : expected) {
    const StoredMatrix stored = OpenPacked(checkpoint, name);
    ASSERT_EQ(stored.rows(), weights.rows()) << name;
    ASSERT_EQ(stored.cols(), weights.cols()) << name;
    Matrix<float> decoded(stored.rows(), stored.cols(), std::numeric_limits<float>::quiet_NaN());
    Decode(stored.parts, 0, decoded);
    EXPECT_EQ(std::memcmp(decoded.data(), weights.data(), weights.size() * sizeof(float)), 0) << name;
    AtomicFile file(directory / (name + ".f32"));
    file.Write(decoded.data(), decoded.size() * sizeof(float));
    file.Commit();
  }
}

// MICA_PACKED_SAMPLES: where tests/packed_reader_test.py wants the files; else they are not kept.
TEST(PackedSamples, DecodeFromTheirFileToTheWeightsInMemory) {
  PackedShard shard;
  std::map<std::string, Matrix<float>> expected;
  const auto add = [&](const char* name, const auto& matrix) {
    shard.Add(name, Pack(matrix));
    Matrix<float> weights(matrix.rows, matrix.cols);
    Decode(matrix, weights);
    expected.emplace(name, std::move(weights));
  };
  add("one_width", RandomFixed(130, {{4, 256}}, 128, MaskKind::kNone, 1));
  add("all_widths", RandomFixed(67, {{16, 20}, {8, 33}, {6, 130}, {4, 1}, {3, 257}, {2, 71}, {0, 5}}, 128,
                                MaskKind::kNone, 2));
  add("bitmap",
      RandomFixed(131, {{8, 61}, {16, 9}, {4, 200}, {3, 64}, {2, 100}, {0, 9}}, 64, MaskKind::kBitmap, 3));
  add("bitmap_widths_to_8",
      RandomFixed(70, {{8, 61}, {6, 3}, {4, 200}, {3, 64}, {2, 100}, {0, 9}}, 128, MaskKind::kBitmap, 9));
  add("two_of_four", RandomFixed(66, {{4, 130}, {0, 6}}, 128, MaskKind::Cells(2, 4), 4));
  add("four_of_eight", RandomFixed(20, {{3, 61}, {2, 60}}, 32, MaskKind::Cells(4, 8), 5));
  add("identity", RandomFixed(9, {{8, 40}}, 128, MaskKind::kNone, 6, true));
  add("pruned", RandomFixed(3, {{0, 4}}, 128, MaskKind::kNone, 7));
  add("wide", RandomFixed(1, {{2, 70000}}, 128, MaskKind::kNone, 8));
  add("exponents",
      WithExponents(RandomFixed(40, {{8, 9}, {4, 70}, {3, 40}, {16, 5}, {0, 4}}, 32, MaskKind::kBitmap, 10)));
  const auto add_entropy = [&](const char* name, EntropyMatrix matrix, bool keys, int row_resolution) {
    matrix.row_resolution = row_resolution;
    for (size_t r = 0; keys && r < matrix.rows; ++r)
      matrix.row_key.push_back(static_cast<int16_t>((r * 5) % 7) - 3);
    FitEntropyModel(matrix);
    add(name, matrix);
  };
  add_entropy("scalar", RandomEntropy(140, 61, 1, 0.5, 1), false, 8);
  add_entropy("scalar_fine_steps", RandomEntropy(40, 60, 1, 1.5, 2), true, 64);
  add_entropy("trellis_4", RandomEntropy(131, 50, 4, 0.0, 3), false, 8);
  add_entropy("trellis_8", RandomEntropy(290, 33, 8, 0.7, 4), true, 8);
  add_entropy("raw_bits", RandomEntropy(130, 40, 1, 5.5, 5), false, 8);
  add_entropy("escapes", RandomEntropy(20, 40, 8, 12.5, 6), false, 8);
  for (const size_t lanes : {2, 8, 16, 32}) {
    // Raw bits and escapes, columns that are no multiple of the lanes, tiles of other heights.
    EntropyMatrix matrix = RandomEntropy(70, 41, 8, 5.5, 7);
    for (size_t i = 0; i < matrix.n.size(); i += 23) matrix.n.data()[i] = static_cast<int16_t>(i * 37);
    matrix.tile_rows = 16 * lanes;
    FitEntropyModel(matrix);
    const std::string name = fmt::format("lanes_{}", lanes);
    shard.Add(name, Pack(matrix, lanes));
    Matrix<float> weights(matrix.rows, matrix.cols);
    Decode(matrix, weights);
    expected.emplace(name, std::move(weights));
  }
  const TemporaryDirectory scratch;
  const char* wanted = std::getenv("MICA_PACKED_SAMPLES");
  ExpectDecodedAs(expected, shard, wanted == nullptr ? scratch.path() : std::filesystem::path(wanted));
}

}  // namespace
}  // namespace mica
