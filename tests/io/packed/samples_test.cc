// Packed matrices and their weights as the C++ decoder sees them, for tests/packed_reader_test.py.
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/file.h"
#include "io/packed/packed_checkpoint.h"
#include "io/packed/stored_matrix.h"
#include "ops/codes/codes.h"
#include "ops/codes/entropy_model.h"
#include "tests/format/entropy/testing.h"
#include "tests/format/fixed/testing.h"

namespace mica {
namespace {

std::filesystem::path SamplesDirectory() {
  const char* directory = std::getenv("MICA_PACKED_SAMPLES");
  return directory == nullptr ? "" : directory;
}

// Writes DIRECTORY/model.safetensors with all matrices and NAME.f32 for each, decoded from that file.
void WriteSamples(const std::filesystem::path& directory, const PackedShard& shard) {
  shard.Write(directory / "model.safetensors");
  const Checkpoint checkpoint = Checkpoint::Open(directory);
  for (const std::string& name : PackedNames(checkpoint)) {
    const StoredMatrix stored = OpenPacked(checkpoint, name);
    Matrix<float> weights(stored.rows(), stored.cols());
    Decode(stored.parts, 0, weights);
    AtomicFile file(directory / (name + ".f32"));
    file.Write(weights.data(), weights.size() * sizeof(float));
    file.Commit();
  }
}

TEST(PackedSamples, Write) {
  const std::filesystem::path directory = SamplesDirectory();
  if (directory.empty())
    GTEST_SKIP() << "MICA_PACKED_SAMPLES is not set; tests/packed_reader_test.py sets it";
  PackedShard shard;
  shard.Add("one_width", Pack(RandomFixed(130, {{4, 256}}, 128, MaskKind::kNone, 1)));
  shard.Add("all_widths",
            Pack(RandomFixed(67, {{16, 20}, {8, 33}, {6, 130}, {4, 1}, {3, 257}, {2, 71}, {0, 5}}, 128,
                             MaskKind::kNone, 2)));
  shard.Add("bitmap", Pack(RandomFixed(131, {{8, 61}, {16, 9}, {4, 200}, {3, 64}, {2, 100}, {0, 9}}, 64,
                                       MaskKind::kBitmap, 3)));
  shard.Add("bitmap_widths_to_8", Pack(RandomFixed(70, {{8, 61}, {6, 3}, {4, 200}, {3, 64}, {2, 100}, {0, 9}},
                                                   128, MaskKind::kBitmap, 9)));
  shard.Add("two_of_four", Pack(RandomFixed(66, {{4, 130}, {0, 6}}, 128, MaskKind::Cells(2, 4), 4)));
  shard.Add("four_of_eight", Pack(RandomFixed(20, {{3, 61}, {2, 60}}, 32, MaskKind::Cells(4, 8), 5)));
  shard.Add("identity", Pack(RandomFixed(9, {{8, 40}}, 128, MaskKind::kNone, 6, true)));
  shard.Add("pruned", Pack(RandomFixed(3, {{0, 4}}, 128, MaskKind::kNone, 7)));
  shard.Add("wide", Pack(RandomFixed(1, {{2, 70000}}, 128, MaskKind::kNone, 8)));
  const auto add_entropy = [&](const char* name, EntropyMatrix matrix, bool keys, int row_resolution) {
    matrix.row_resolution = row_resolution;
    for (size_t r = 0; keys && r < matrix.rows; ++r)
      matrix.row_key.push_back(static_cast<int16_t>((r * 5) % 7) - 3);
    FitEntropyModel(matrix);
    shard.Add(name, Pack(matrix));
  };
  add_entropy("scalar", RandomEntropy(140, 61, 1, 0.5, 1), false, 8);
  add_entropy("scalar_fine_steps", RandomEntropy(40, 60, 1, 1.5, 2), true, 64);
  add_entropy("trellis_4", RandomEntropy(131, 50, 4, 0.0, 3), false, 8);
  add_entropy("trellis_8", RandomEntropy(290, 33, 8, 0.7, 4), true, 8);
  add_entropy("raw_bits", RandomEntropy(130, 40, 1, 5.5, 5), false, 8);
  add_entropy("escapes", RandomEntropy(20, 40, 8, 12.5, 6), false, 8);
  WriteSamples(directory, shard);
}

}  // namespace
}  // namespace mica
