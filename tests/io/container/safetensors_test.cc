#include "io/container/safetensors.h"

#include <map>

#include "tests/error_message.h"
#include "tests/io/container/test_files.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

using test::Bytes;
using test::Number;

// A file with that header (its length in front) and `data_bytes` bytes of data.
std::string File(const std::string& header, size_t data_bytes) {
  return Number(uint64_t{header.size()}) + header + std::string(data_bytes, 'x');
}

void ExpectRefused(const std::string& bytes, const std::vector<std::string>& parts) {
  std::vector<std::string> all = {"a.safetensors"};
  all.insert(all.end(), parts.begin(), parts.end());
  ExpectError([&] { ParseSafetensors(Bytes(bytes), "a.safetensors"); }, all);
}

TEST(SafetensorsTest, ReadsTensorsInOrderOfOffsets) {
  const std::string bytes = File(R"({"b":{"dtype":"F16","shape":[2,3],"data_offsets":[4,16]},)"
                                 R"("__metadata__":{"format":"pt","x":"y"},)"
                                 R"("a":{"data_offsets":[0,4],"shape":[],"dtype":"F32"},)"
                                 R"("empty":{"dtype":"I64","shape":[0,7],"data_offsets":[4,4]}}   )",
                                 16);
  const SafetensorsFile file = ParseSafetensors(Bytes(bytes), "a.safetensors");
  ASSERT_EQ(file.tensors.size(), 3u);
  EXPECT_EQ(file.tensors[0].name, "a");
  EXPECT_EQ(file.tensors[0].elements(), 1u);
  EXPECT_EQ(file.tensors[1].name, "empty");
  EXPECT_EQ(file.tensors[1].data.size(), 0u);
  EXPECT_EQ(file.tensors[2].name, "b");
  EXPECT_EQ(file.tensors[2].shape, (std::vector<uint64_t>{2, 3}));
  EXPECT_EQ(file.tensors[2].data.data(), Bytes(bytes).data() + bytes.size() - 12);
  EXPECT_EQ(file.metadata, (std::map<std::string, std::string>{{"format", "pt"}, {"x", "y"}}));
}

TEST(SafetensorsTest, AcceptsAFileWithoutTensors) {
  EXPECT_TRUE(ParseSafetensors(Bytes(File("{}", 0)), "f").tensors.empty());
}

struct Lie {
  const char* what;
  std::string bytes;
  std::vector<std::string> parts;
};

// An entry of 4 bytes of F16 called "t" at the given offsets.
std::string One(const std::string& offsets, const std::string& shape = "[2]",
                const std::string& dtype = "F16") {
  return R"({"t":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

TEST(SafetensorsTest, RefusesHeadersThatLie) {
  const std::string good = One("[0,4]");
  const std::string two =
      R"({"t":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"u":{"dtype":"F16","shape":[2],"data_offsets":)";
  const Lie lies[] = {
      {"no length", "abc", {"3 bytes", "truncated"}},
      {"empty file", "", {"is empty", "expected a safetensors file", "fetch it again"}},
      {"length beyond the file", Number(uint64_t{1000}) + good, {"1000", "truncated"}},
      {"absurd length", Number(uint64_t{1} << 62) + good, {"4611686018427387904", "at most 100000000"}},
      {"maximal length", Number(~uint64_t{0}) + good, {"18446744073709551615"}},
      {"no object", File("[1,2]", 0), {"does not begin with '{'"}},
      {"a Git LFS pointer",
       "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 13476925163\n",
       {"is a Git LFS pointer", "13.5 GB", "git lfs pull"}},
      {"an error page", "<!DOCTYPE html><html>", {"is an HTML page"}},
      {"JSON", "{\"error\":\"Repository not found\"}", {"is a JSON file"}},
      {"a zip archive", "PK\3\4" + std::string(60, '\1'), {"is a zip archive"}},
      {"zeros", std::string(5000, '\0'), {"filled with zero bytes", "fetch it again"}},
      {"empty header", File("", 0), {"does not begin with '{'"}},
      {"not JSON", File("{\"t\":", 0), {"not valid JSON"}},
      {"text after the object", File(good + "x", 4), {"not valid JSON"}},
      {"not UTF-8", File("{\"t\xff\":1}", 0), {"not valid JSON"}},
      {"truncated data", File(good, 3), {"is 65 bytes long", "needs 66", "tensor t", "[0, 4]", "truncated"}},
      {"appended bytes", File(good, 9), {"5 bytes after the last tensor"}},
      {"appended bytes, no tensor", File("{}", 1), {"1 bytes after the last tensor"}},
      {"offsets outside", File(One("[4,8]"), 4), {"tensor t", "[4, 8]", "truncated"}},
      {"offsets far outside", File(One("[0,18446744073709551615]"), 4), {"tensor t", "18446744073709551615"}},
      {"offsets backwards", File(One("[4,0]"), 4), {"tensor t", "[4, 0]"}},
      {"negative offset", File(One("[-4,0]"), 4), {"tensor t", "number -4", "data_offsets"}},
      {"fractional offset", File(One("[0,4.0]"), 4), {"tensor t", "number 4.0"}},
      {"one offset", File(One("[4]"), 4), {"tensor t", "1 data_offsets, expected 2"}},
      {"three offsets", File(One("[0,2,4]"), 4), {"tensor t", "3 data_offsets"}},
      {"offsets no array", File(One("4"), 4), {"tensor t", "a number in data_offsets"}},
      {"nested array", File(One("[[0],4]"), 4), {"tensor t", "an array in data_offsets"}},
      {"overlap", File(two + "[2,6]}}", 6), {"tensor u", "offset 2", "inside tensor t"}},
      {"same place", File(two + "[0,4]}}", 4), {"inside tensor"}},
      {"gap", File(two + "[8,12]}}", 12), {"4 bytes before tensor u"}},
      {"gap at the front", File(One("[2,6]"), 6), {"2 bytes before tensor t"}},
      {"shape too small", File(One("[0,4]", "[1]"), 4), {"tensor t", "4 bytes", "expected 2", "F16 [1]"}},
      {"shape overflows",
       File(One("[0,4]", "[4294967296,4294967296,2]"), 4),
       {"tensor t", "more than a file can hold"}},
      {"shape beyond 64 bits",
       File(One("[0,4]", "[99999999999999999999]"), 4),
       {"tensor t", "number 99999999999999999999"}},
      {"negative shape", File(One("[0,4]", "[-2]"), 4), {"tensor t", "number -2 in shape"}},
      {"unknown dtype",
       File(One("[0,4]", "[4]", "F8_E5M2"), 4),
       {"tensor t", "dtype F8_E5M2", "not supported"}},
      {"wrong dtype", File(One("[0,4]", "[2]", "F32"), 4), {"tensor t", "4 bytes", "expected 8", "F32 [2]"}},
      {"same name twice",
       File(
           R"({"t":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"t":{"dtype":"F16","shape":[2],"data_offsets":[4,8]}})",
           8),
       {"names t twice"}},
      {"two shapes",
       File(R"({"t":{"dtype":"F16","shape":[2],"shape":[2],"data_offsets":[0,4]}})", 4),
       {"tensor t", "two shape"}},
      {"two dtypes",
       File(R"({"t":{"dtype":"F16","dtype":"F16","shape":[2],"data_offsets":[0,4]}})", 4),
       {"tensor t", "two dtype"}},
      {"no dtype", File(R"({"t":{"shape":[2],"data_offsets":[0,4]}})", 4), {"tensor t", "no dtype"}},
      {"no shape", File(R"({"t":{"dtype":"F16","data_offsets":[0,4]}})", 4), {"tensor t", "no shape"}},
      {"no offsets", File(R"({"t":{"dtype":"F16","shape":[2]}})", 4), {"tensor t", "no data_offsets"}},
      {"unknown key",
       File(R"({"t":{"dtype":"F16","shape":[2],"data_offsets":[0,4],"more":1}})", 4),
       {"tensor t", "more"}},
      {"entry no object", File(R"({"t":4})", 4), {"header entry t is a number"}},
      {"entry null", File(R"({"t":null})", 4), {"header entry t is null"}},
      {"entry array", File(R"({"t":[1]})", 4), {"header entry t is an array"}},
      {"deep nesting", File(R"({"t":{"shape":{"shape":{}}}})", 0), {"tensor t", "an object in shape"}},
      {"metadata no strings",
       File(R"({"__metadata__":{"a":1}})", 0),
       {"metadata a is a number, expected a string"}},
      {"metadata twice", File(R"({"__metadata__":{"a":"1","a":"2"}})", 0), {"metadata names a twice"}},
      {"control characters in a name", File(R"({"a\nb":4})", 4), {"a\\x0ab"}},
  };
  for (const Lie& lie : lies) {
    SCOPED_TRACE(lie.what);
    ExpectRefused(lie.bytes, lie.parts);
  }
}

// Every prefix and every extension of a good file is refused.
TEST(SafetensorsTest, RefusesEveryOtherLength) {
  const std::string good = File(One("[0,4]"), 4);
  EXPECT_EQ(ParseSafetensors(Bytes(good), "f").tensors.size(), 1u);
  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_THROW(ParseSafetensors(Bytes(good).first(length), "f"), Error) << length;
  }
  EXPECT_THROW(ParseSafetensors(Bytes(good + "x"), "f"), Error);
}

TEST(SafetensorsTest, WritesWhatItReads) {
  const TemporaryDirectory directory;
  const std::vector<TensorSpec> specs = {{"z.weight", DType::kF16, {2, 3}},
                                         {"a \"quoted\" \u00e4", DType::kU8, {5}},
                                         {"none", DType::kF32, {0}}};
  SafetensorsWriter writer(directory / "m.safetensors", specs, {{"format", "pt"}});
  writer.Write(Bytes("abcdefghijkl12"));
  writer.Write(Bytes("345"));
  EXPECT_FALSE(std::filesystem::exists(directory / "m.safetensors"));
  writer.Commit();
  const SafetensorsFile file = OpenSafetensors(directory / "m.safetensors");
  EXPECT_EQ(file.map->size(), writer.file_bytes());
  ASSERT_EQ(file.tensors.size(), 3u);
  std::map<std::string, TensorView> by_name;
  for (const TensorView& tensor : file.tensors) by_name[tensor.name] = tensor;
  for (const TensorSpec& spec : specs) {
    EXPECT_EQ(by_name[spec.name].dtype, spec.dtype);
    EXPECT_EQ(by_name[spec.name].shape, spec.shape);
  }
  EXPECT_EQ(std::memcmp(by_name["z.weight"].data.data(), "abcdefghijkl", 12), 0);
  EXPECT_EQ(std::memcmp(by_name["a \"quoted\" \u00e4"].data.data(), "12345", 5), 0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(by_name["z.weight"].data.data()) % 64, 0u);
  EXPECT_EQ(file.metadata.at("format"), "pt");
}

TEST(SafetensorsTest, AnUnfinishedFileLeavesNothing) {
  const TemporaryDirectory directory;
  {
    SafetensorsWriter writer(directory / "m.safetensors", {{"t", DType::kU8, {4}}});
    writer.Write(Bytes("ab"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

TEST(SafetensorsTest, NamesTheFileThatIsMissing) {
  ExpectError([] { OpenSafetensors("/nonexistent/m.safetensors"); },
              {"/nonexistent/m.safetensors", "cannot be opened"});
  ExpectError([] { SafetensorsWriter("/nonexistent/m.safetensors", {}); },
              {"/nonexistent/m.safetensors", "cannot be written"});
}

}  // namespace
}  // namespace mica
