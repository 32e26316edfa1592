#include "io/container/checkpoint.h"

#include "base/json.h"
#include "base/sha256.h"
#include "base/threads.h"
#include "io/container/safetensors.h"
#include "io/container/torch_file.h"
#include "tests/error_message.h"
#include "tests/io/container/test_files.h"
#include "tests/source_dir.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

namespace fs = std::filesystem;
using test::Bytes;
using test::WriteBytes;

// Three small tensors with their bytes.
const std::vector<TensorSpec> kSpecs = {
    {"b", DType::kF16, {2, 2}}, {"a", DType::kF32, {1}}, {"c", DType::kBF16, {3}}};
std::vector<std::string> HashesOf(const Checkpoint& checkpoint) {
  std::vector<const TensorView*> all;
  for (const TensorView& tensor : checkpoint.tensors()) all.push_back(&tensor);
  return checkpoint.Hashes(all);
}

const std::vector<std::string> kData = {"12345678", "abcd", "uvwxyz"};

template <typename Writer>
void WriteFile(const fs::path& path, const std::vector<size_t>& which) {
  std::vector<TensorSpec> specs;
  for (const size_t i : which) specs.push_back(kSpecs[i]);
  Writer writer(path, specs);
  for (const size_t i : which) writer.Write(Bytes(kData[i]));
  writer.Commit();
}
const auto WriteSafetensors = WriteFile<SafetensorsWriter>;
const auto WriteTorch = WriteFile<TorchWriter>;

void WriteIndex(const fs::path& path, const Json& weight_map) {
  WriteJson(path, {{"weight_map", weight_map}});
}

// A sharded checkpoint: b and a in s1, c in s2.
void WriteShards(const TemporaryDirectory& directory) {
  WriteSafetensors(directory / "s1.safetensors", {0, 1});
  WriteSafetensors(directory / "s2.safetensors", {2});
  WriteIndex(directory / "model.safetensors.index.json",
             {{"a", "s1.safetensors"}, {"b", "s1.safetensors"}, {"c", "s2.safetensors"}});
}

void ExpectAll(const Checkpoint& checkpoint) {
  ASSERT_EQ(checkpoint.tensors().size(), 3u);
  EXPECT_EQ(checkpoint.tensors()[0].name, "a");
  EXPECT_EQ(checkpoint.tensors()[2].name, "c");
  for (size_t i = 0; i < kSpecs.size(); ++i) {
    const TensorView& tensor = checkpoint.Get(kSpecs[i].name);
    EXPECT_EQ(tensor.dtype, kSpecs[i].dtype);
    EXPECT_EQ(tensor.shape, kSpecs[i].shape);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size()), kData[i]);
    checkpoint.Release(tensor);
    EXPECT_EQ(std::to_integer<char>(tensor.data[0]), kData[i][0]);
  }
}

TEST(CheckpointTest, TheFourLayoutsAreOne) {
  const TemporaryDirectory safetensors, sharded, torch, torch_sharded;
  WriteSafetensors(safetensors / "model.safetensors", {0, 1, 2});
  WriteShards(sharded);
  WriteTorch(torch / "pytorch_model.bin", {2, 1, 0});
  WriteTorch(torch_sharded / "p1.bin", {2});
  WriteTorch(torch_sharded / "p2.bin", {1, 0});
  WriteIndex(torch_sharded / "pytorch_model.bin.index.json",
             {{"c", "p1.bin"}, {"a", "p2.bin"}, {"b", "p2.bin"}});
  std::string fingerprint;
  const std::vector<std::pair<const TemporaryDirectory*, std::string>> layouts = {
      {&safetensors, "safetensors"},
      {&sharded, "safetensors, 2 shards"},
      {&torch, "PyTorch .bin"},
      {&torch_sharded, "PyTorch .bin, 2 shards"}};
  for (const auto& [directory, layout] : layouts) {
    SCOPED_TRACE(layout);
    WriteBytes(*directory / "config.json", "{\"x\": 1}\n");
    const Checkpoint checkpoint = Checkpoint::Open(directory->path());
    EXPECT_EQ(checkpoint.layout(), layout);
    ExpectAll(checkpoint);
    uint64_t bytes = 0;
    for (const auto& file : fs::directory_iterator(directory->path())) {
      if (file.path().filename() != "config.json") bytes += file.file_size();
    }
    EXPECT_EQ(checkpoint.file_bytes(), bytes);
    EXPECT_EQ(HashesOf(checkpoint),
              (std::vector<std::string>{Sha256Hex(kData[1]), Sha256Hex(kData[0]), Sha256Hex(kData[2])}));
  }
}

TEST(CheckpointTest, SafetensorsComesFirst) {
  const TemporaryDirectory directory;
  WriteSafetensors(directory / "model.safetensors", {0});
  WriteTorch(directory / "pytorch_model.bin", {0, 1, 2});
  EXPECT_EQ(Checkpoint::Open(directory.path()).tensors().size(), 1u);
}

TEST(CheckpointTest, OpensASingleFile) {
  const TemporaryDirectory directory;
  WriteTorch(directory / "weights.pt", {0, 1, 2});
  const Checkpoint checkpoint = Checkpoint::Open(directory / "weights.pt");
  ExpectAll(checkpoint);
  EXPECT_EQ(checkpoint.directory(), directory.path());
}

TEST(CheckpointTest, NamesWhatIsMissing) {
  const TemporaryDirectory directory;
  const std::string where = directory.path().string();
  ExpectError([] { Checkpoint::Open("/nonexistent/model"); }, {"/nonexistent/model", "does not exist"});
  ExpectError([&] { Checkpoint::Open(directory.path()); }, {where, "holds no weights", "model.safetensors"});
  WriteBytes(directory / "model.onnx", "ONNX");
  ExpectError([&] { Checkpoint::Open(directory / "model.onnx"); },
              {"model.onnx", "not a checkpoint", ".gguf file"});
  WriteSafetensors(directory / "model.safetensors", {0});
  const Checkpoint checkpoint = Checkpoint::Open(directory.path());
  EXPECT_EQ(checkpoint.Find("a"), nullptr);
  ExpectError([&] { checkpoint.Get("a"); }, {where, "tensor a is missing"});
}

TEST(CheckpointTest, RefusesAnIndexThatLies) {
  struct Case {
    const char* what;
    Json weight_map;
    std::vector<std::string> parts;
  };
  const Json good = {{"a", "s1.safetensors"}, {"b", "s1.safetensors"}, {"c", "s2.safetensors"}};
  const auto with = [&](const char* name, Json value) {
    Json map = good;
    map[name] = std::move(value);
    return map;
  };
  const Case cases[] = {
      {"missing shard",
       with("c", "s3.safetensors"),
       {"names the shard s3.safetensors, which is missing (1 tensors)"}},
      {"tensor not in its shard", with("d", "s2.safetensors"), {"tensor d is missing from s2.safetensors"}},
      {"tensor in another shard",
       with("b", "s2.safetensors"),
       {"s1.safetensors", "tensor b is said to be in s2.safetensors"}},
      {"tensor not in the index",
       {{"a", "s1.safetensors"}, {"c", "s2.safetensors"}},
       {"s1.safetensors", "tensor b is not in model.safetensors.index.json"}},
      {"parent directory",
       with("c", "../s2.safetensors"),
       {"tensor c", "\"../s2.safetensors\"", "plain name"}},
      {"absolute path", with("c", "/etc/passwd"), {"tensor c", "\"/etc/passwd\"", "plain name"}},
      {"dots", with("c", ".."), {"tensor c", "plain name"}},
      {"empty name", with("c", ""), {"tensor c", "plain name"}},
      {"no name", with("c", 3), {"tensor c is said to be in 3", "plain name"}},
      {"nothing", Json::object(), {"\"weight_map\" is empty"}},
      {"no object", Json::array(), {"no \"weight_map\" object"}},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.what);
    const TemporaryDirectory directory;
    WriteShards(directory);
    ExpectAll(Checkpoint::Open(directory.path()));
    WriteIndex(directory / "model.safetensors.index.json", one.weight_map);
    ExpectError([&] { Checkpoint::Open(directory.path()); }, one.parts);
  }
  const TemporaryDirectory directory;
  WriteShards(directory);
  WriteBytes(directory / "model.safetensors.index.json", "[]");
  ExpectError([&] { Checkpoint::Open(directory.path()); }, {"index.json", "no \"weight_map\""});
  WriteBytes(directory / "model.safetensors.index.json", "{");
  ExpectError([&] { Checkpoint::Open(directory.path()); }, {"index.json", "not valid JSON"});
  WriteShards(directory);
  WriteBytes(directory / "s2.safetensors", "short");
  ExpectError([&] { Checkpoint::Open(directory.path()); }, {"s2.safetensors", "truncated"});
}

TEST(CheckpointTest, ReadsShardsWithoutAnIndex) {
  const TemporaryDirectory directory;
  WriteSafetensors(directory / "model-00001-of-00002.safetensors", {0, 1});
  ExpectError([&] { Checkpoint::Open(directory.path()); },
              {"has 1 of 2 shards and no model.safetensors.index.json",
               "model-00002-of-00002.safetensors is missing, complete the download"});
  WriteSafetensors(directory / "model-00002-of-00002.safetensors", {2});
  ExpectAll(Checkpoint::Open(directory.path()));
  EXPECT_EQ(Checkpoint::Open(directory.path()).layout(), "safetensors, 2 shards, no index");
  WriteSafetensors(directory / "model-00002-of-00002.safetensors", {0, 2});
  ExpectError(
      [&] { Checkpoint::Open(directory.path()); },
      {"model-00002-of-00002.safetensors", "tensor b is in model-00001-of-00002.safetensors as well"});
  const TemporaryDirectory torch;
  WriteTorch(torch / "pytorch_model-00002-of-00002.bin", {0, 1});
  ExpectError([&] { Checkpoint::Open(torch.path()); }, {"pytorch_model-00001-of-00002.bin is missing"});
  WriteTorch(torch / "pytorch_model-00001-of-00002.bin", {2});
  ExpectAll(Checkpoint::Open(torch.path()));
}

TEST(CheckpointTest, SaysWhatADirectoryWithoutWeightsHolds) {
  const std::pair<const char*, const char*> cases[] = {
      {"model.safetensors.incomplete", "model.safetensors.incomplete is a download that was not finished"},
      {"adapter_model.safetensors", "is an adapter; merge it"},
      {"consolidated.00.pth", "layout of the original LLaMA"},
      {"weights.safetensors", "rename it to model.safetensors"},
  };
  for (const auto& [name, expected] : cases) {
    const TemporaryDirectory directory;
    WriteBytes(directory / name, "x");
    ExpectError([&] { Checkpoint::Open(directory.path()); }, {"holds no weights", expected});
  }
  const TemporaryDirectory directory;
  fs::create_directory(directory / ".work");
  WriteSafetensors(directory / "model-00001-of-00009.safetensors", {0});
  ExpectError([&] { Checkpoint::Open(directory.path()); },
              {"holds a compression that was not finished", "run the same mica compress command again"});
}

TEST(CheckpointTest, NamesLinksThatLeadNowhere) {
  const TemporaryDirectory directory;
  fs::create_symlink("../blobs/4d7a", directory / "model.safetensors");
  ExpectError([&] { Checkpoint::Open(directory.path()); },
              {"model.safetensors", "is a link to ../blobs/4d7a, which does not exist"});
  ExpectError([&] { Checkpoint::Open(directory / "model.safetensors"); }, {"is a link to ../blobs/4d7a"});
  fs::create_symlink("/nowhere", directory / "m");
  ExpectError([&] { Checkpoint::Open(directory / "m"); }, {"is a link to /nowhere"});
  WriteShards(directory);
  fs::remove(directory / "model.safetensors");
  fs::remove(directory / "s2.safetensors");
  fs::create_symlink("../blobs/5e", directory / "s2.safetensors");
  ExpectError([&] { Checkpoint::Open(directory.path()); }, {"s2.safetensors", "is a link to ../blobs/5e"});
}

TEST(CheckpointTest, TakesTheFirstLayoutAndNamesTheOthers) {
  const TemporaryDirectory directory;
  WriteShards(directory);
  EXPECT_TRUE(Checkpoint::Open(directory.path()).unread_files().empty());
  WriteTorch(directory / "pytorch_model.bin", {0, 1});
  EXPECT_EQ(Checkpoint::Open(directory.path()).unread_files(), std::vector<std::string>{"pytorch_model.bin"});
  WriteSafetensors(directory / "model.safetensors", {0, 1, 2});
  const Checkpoint checkpoint = Checkpoint::Open(directory.path());
  EXPECT_EQ(checkpoint.layout(), "safetensors");
  EXPECT_EQ(checkpoint.files()[0].name, "model.safetensors");
  EXPECT_EQ(checkpoint.unread_files(),
            (std::vector<std::string>{"pytorch_model.bin", "s1.safetensors", "s2.safetensors"}));
}

// The archive's CRC-32 is compared with the data before they are used, and by the hashes.
TEST(CheckpointTest, ABitFlippedInAPyTorchFileIsNamed) {
  const TemporaryDirectory directory;
  WriteTorch(directory / "pytorch_model.bin", {0, 1, 2});
  const Checkpoint good = Checkpoint::Open(directory.path());
  for (const TensorView& tensor : good.tensors()) good.Verify(tensor);
  std::string bytes = ReadFile(directory / "pytorch_model.bin");
  const size_t at = bytes.find("12345678");
  bytes[at + 3] ^= 4;
  WriteFileAtomically(directory / "pytorch_model.bin", bytes);
  const Checkpoint flipped = Checkpoint::Open(directory.path());
  flipped.Verify(flipped.Get("a"));
  for (int i = 0; i < 2; ++i) {
    ExpectError([&] { flipped.Verify(flipped.Get("b")); },
                {"pytorch_model.bin", "data/0", "CRC-32", "the file is corrupted"});
  }
  ExpectError([&] { HashesOf(flipped); }, {"pytorch_model.bin", "CRC-32"});
  // Written without checksums: zero stands for none.
  const size_t directory_entry = bytes.rfind("data/0");
  const size_t crc = bytes.rfind("PK\1\2", directory_entry) + 16;
  bytes.replace(crc, 4, std::string(4, '\0'));
  WriteFileAtomically(directory / "pytorch_model.bin", bytes);
  const Checkpoint unchecked = Checkpoint::Open(directory.path());
  unchecked.Verify(unchecked.Get("b"));
}

TEST(CheckpointTest, OpensTheDemo) {
  const Checkpoint checkpoint = Checkpoint::Open(SourceDir() / "models/demo");
  EXPECT_EQ(checkpoint.layout(), "safetensors");
  EXPECT_EQ(checkpoint.Get("model.embed_tokens.weight").shape, (std::vector<uint64_t>{16000, 384}));
  SetThreads(1);
  const std::vector<std::string> one = HashesOf(checkpoint);
  SetThreads(2);
  EXPECT_EQ(HashesOf(checkpoint), one);
  SetThreads(0);
}

}  // namespace
}  // namespace mica
