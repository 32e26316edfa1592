// GGUF files as checkpoints: types of blocks, orders of rows, split files.
#include <cmath>

#include "base/file.h"
#include "format/gguf/decode.h"
#include "io/container/checkpoint.h"
#include "tests/error_message.h"
#include "tests/io/container/test_files.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

namespace fs = std::filesystem;
using test::WriteBytes;

// Bytes that are finite FP16, BF16 and FP32 numbers wherever one is looked for.
std::vector<std::byte> FiniteBytes(uint64_t count, uint32_t seed) {
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes)
    byte = static_cast<std::byte>((seed = seed * 1664525 + 1013904223) >> 24 & 0x3B);
  return bytes;
}

void WriteGguf(const fs::path& path, const std::vector<GgufTensorSpec>& specs,
               std::vector<GgufKey> keys = {}) {
  GgufWriter writer(path, specs, keys);
  uint32_t seed = 1;
  for (const GgufTensorSpec& spec : specs) writer.Write(FiniteBytes(SpecBytes(spec), ++seed));
  writer.Commit();
}

TEST(GgufCheckpoint, EveryTypeOfBlocksIsRead) {
  const TemporaryDirectory directory;
  std::vector<GgufTensorSpec> specs;
  for (const GgmlTypeFacts& facts : GgmlTypes())
    specs.push_back({facts.name, facts.type, {6, 3 * facts.block_cols}});
  WriteGguf(directory / "m.gguf", specs, {{"some.key", uint32_t{7}}});
  for (const fs::path& path : {directory / "m.gguf", directory.path()}) {
    const Checkpoint checkpoint = Checkpoint::Open(path);
    EXPECT_EQ(checkpoint.directory(), directory.path());
    ASSERT_NE(checkpoint.gguf(), nullptr);
    EXPECT_EQ(std::get<uint32_t>(*FindKey(*checkpoint.gguf(), "some.key")), 7u);
    EXPECT_EQ(checkpoint.file_bytes(), fs::file_size(directory / "m.gguf"));
    for (const GgmlTypeFacts& facts : GgmlTypes()) {
      TensorView tensor = checkpoint.Get(facts.name);
      EXPECT_EQ(TypeName(tensor), facts.name);
      EXPECT_EQ(IsFloat(tensor), CanDecode(facts.type)) << facts.name;
      EXPECT_EQ(tensor.blocks != nullptr, facts.block_cols > 1);
      std::vector<float> values(tensor.elements());
      if (!IsFloat(tensor)) {
        EXPECT_THAT(MessageOf([&] { ReadFloats(tensor, 0, values); }), ::testing::HasSubstr("has dtype "));
        continue;
      }
      std::vector<float> expected(values.size());
      DecodeRow(facts.type, tensor.data, expected);
      ReadFiniteFloats(tensor, 0, values);
      EXPECT_EQ(values, expected) << facts.name;
      // Any part, and rows in another order.
      const size_t cols = tensor.shape[1];
      tensor.row_order =
          std::make_shared<const std::vector<uint32_t>>(std::vector<uint32_t>{3, 1, 5, 0, 2, 4});
      for (const size_t first : {size_t{0}, size_t{1}, cols - 1, cols, 2 * cols + cols / 2}) {
        for (const size_t count : {size_t{1}, cols / 3 + 1, cols, 3 * cols}) {
          values.assign(count, NAN);
          ReadFloats(tensor, first, values);
          for (size_t i = 0; i < count; ++i) {
            const size_t row = (first + i) / cols, col = (first + i) % cols;
            ASSERT_EQ(values[i], expected[(*tensor.row_order)[row] * cols + col]) << facts.name;
          }
        }
      }
    }
  }
}

TEST(GgufCheckpoint, HashesAndTheLayout) {
  const TemporaryDirectory directory;
  WriteGguf(
      directory / "m.gguf",
      {{"norm", GgmlType::kF32, {8}}, {"a", GgmlType::kQ6_K, {4, 256}}, {"b", GgmlType::kQ4_K, {8, 512}}});
  const Checkpoint checkpoint = Checkpoint::Open(directory / "m.gguf");
  EXPECT_EQ(checkpoint.layout(), "GGUF, Q4_K and Q6_K");
  std::vector<const TensorView*> all;
  for (const TensorView& tensor : checkpoint.tensors()) all.push_back(&tensor);
  const std::vector<std::string> hashes = checkpoint.Hashes(all);
  EXPECT_EQ(checkpoint.Hashes(all, [](const TensorView&) { return true; }), hashes);
}

TEST(GgufCheckpoint, ValuesThatAreNotFiniteAreNamed) {
  const TemporaryDirectory directory;
  GgufWriter writer(directory / "m.gguf", {{"a", GgmlType::kQ8_0, {3, 64}}}, {});
  std::vector<std::byte> bytes = FiniteBytes(3 * 2 * 34, 1);
  bytes[2 * 68 + 34] = std::byte{0x00};
  bytes[2 * 68 + 35] = std::byte{0x7C};  // the scale of block 1 of row 2
  writer.Write(bytes);
  writer.Commit();
  const Checkpoint checkpoint = Checkpoint::Open(directory / "m.gguf");
  ExpectError([&] { CheckFinite(checkpoint.Get("a"), 0, 3 * 64); }, {"m.gguf", "tensor a holds ", "at [2, "});
  ExpectError([&] { checkpoint.Hashes({&checkpoint.Get("a")}, [](const TensorView&) { return true; }); },
              {"m.gguf", "tensor a holds ", "at [2, "});
}

class SplitGguf : public testing::Test {
 protected:
  // Part `part` of `parts`, holding one tensor.
  void WritePart(const std::string& name, int part, int parts, const std::string& tensor, int tensors = 3) {
    WriteGguf(directory_ / name, {{tensor, GgmlType::kF16, {2, 4}}},
              {{"split.no", static_cast<uint16_t>(part)},
               {"split.count", static_cast<uint16_t>(parts)},
               {"split.tensors.count", int32_t{tensors}}});
  }
  void WriteAll() {
    for (int part = 0; part < 3; ++part)
      WritePart(fmt::format("m-{:05}-of-00003.gguf", part + 1), part, 3, std::string(1, "abc"[part]));
  }
  TemporaryDirectory directory_;
};

TEST_F(SplitGguf, AnyPartStandsForAll) {
  WriteAll();
  for (const fs::path& path :
       {directory_.path(), directory_ / "m-00001-of-00003.gguf", directory_ / "m-00003-of-00003.gguf"}) {
    const Checkpoint checkpoint = Checkpoint::Open(path);
    EXPECT_EQ(checkpoint.tensors().size(), 3u);
    EXPECT_EQ(checkpoint.layout(), "GGUF, F16, 3 files");
    EXPECT_EQ(checkpoint.files().size(), 3u);
  }
  EXPECT_TRUE(MissingShards(directory_.path()).empty());
}

TEST_F(SplitGguf, PartsThatAreMissingOrLie) {
  WriteAll();
  fs::remove(directory_ / "m-00002-of-00003.gguf");
  ExpectError([&] { Checkpoint::Open(directory_.path()); },
              {"m-00002-of-00003.gguf", "is missing, part 2 of 3", "complete the download"});
  EXPECT_EQ(MissingShards(directory_.path()), std::vector<std::string>{"m-00002-of-00003.gguf"});
  WritePart("m-00002-of-00003.gguf", 2, 3, "b");
  ExpectError([&] { Checkpoint::Open(directory_.path()); },
              {"m-00002-of-00003.gguf", "part 3 of 3 by its keys", "2 of 3 by its name"});
  WritePart("m-00002-of-00003.gguf", 1, 3, "a");
  ExpectError([&] { Checkpoint::Open(directory_.path()); },
              {"tensor a is in ", "m-00001-of-00003.gguf as well"});
  WritePart("m-00002-of-00003.gguf", 1, 3, "b");
  WritePart("m-00001-of-00003.gguf", 0, 3, "a", 7);
  ExpectError([&] { Checkpoint::Open(directory_.path()); }, {"announces 7 tensors", "found 3"});
}

TEST_F(SplitGguf, OnePartUnderAnotherName) {
  WritePart("whole.gguf", 0, 3, "a");
  ExpectError([&] { Checkpoint::Open(directory_ / "whole.gguf"); },
              {"whole.gguf", "part 1 of 3 by its keys", "1 of 1 by its name"});
}

TEST(GgufCheckpoint, DirectoriesWithSeveralModels) {
  const TemporaryDirectory directory;
  WriteGguf(directory / "a.gguf", {{"t", GgmlType::kF32, {4}}});
  EXPECT_TRUE(IsGgufModel(directory.path()));
  EXPECT_EQ(Checkpoint::Open(directory.path()).layout(), "GGUF");
  WriteGguf(directory / "b.gguf", {{"t", GgmlType::kF32, {4}}});
  ExpectError([&] { Checkpoint::Open(directory.path()); }, {"holds 2 GGUF models, a.gguf and b.gguf"});
  EXPECT_EQ(Checkpoint::Open(directory / "b.gguf").tensors().size(), 1u);
  WriteBytes(directory / "model.safetensors", "x");  // comes first, be it damaged
  EXPECT_FALSE(IsGgufModel(directory.path()));
}

TEST(GgufCheckpoint, TruncatedFilesAreNamed) {
  const TemporaryDirectory directory;
  WriteGguf(directory / "m.gguf", {{"a", GgmlType::kQ6_K, {4, 256}}}, {{"key", std::string("value")}});
  const std::string bytes = ReadFile(directory / "m.gguf");
  for (const size_t left :
       {size_t{0}, size_t{3}, size_t{20}, size_t{60}, bytes.size() / 2, bytes.size() - 33}) {
    WriteBytes(directory / "m.gguf", bytes.substr(0, left));
    ExpectError([&] { Checkpoint::Open(directory / "m.gguf"); }, {"m.gguf"});
  }
}

}  // namespace
}  // namespace mica
