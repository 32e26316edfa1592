#include "io/container/gguf.h"

#include "tests/error_message.h"
#include "tests/io/container/test_files.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

using test::Bytes;
using test::Number;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Numbers of types of values, as in files.
enum : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

std::string Text(std::string_view text) { return Number(uint64_t{text.size()}) + std::string(text); }

std::string Header(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
  return "GGUF" + Number(version) + Number(tensors) + Number(keys);
}

std::string Key(std::string_view name, uint32_t type, const std::string& value) {
  return Text(name) + Number(type) + value;
}

std::string Array(uint32_t type, uint64_t count, const std::string& elements) {
  return Number(type) + Number(count) + elements;
}

std::string Info(std::string_view name, const std::vector<uint64_t>& ne, uint32_t type, uint64_t offset) {
  std::string bytes = Text(name) + Number(static_cast<uint32_t>(ne.size()));
  for (const uint64_t extent : ne) bytes += Number(extent);
  return bytes + Number(type) + Number(offset);
}

std::string Padded(std::string bytes, size_t alignment = 32) {
  bytes.resize((bytes.size() + alignment - 1) / alignment * alignment, '\0');
  return bytes;
}

// A file of one tensor "t" of those extents, type and offset, followed by `data_bytes` bytes.
std::string One(const std::vector<uint64_t>& ne, uint32_t type, uint64_t offset, size_t data_bytes) {
  return Padded(Header(1, 0) + Info("t", ne, type, offset)) + std::string(data_bytes, 'x');
}

// A file of one key of that type and value, without tensors.
std::string OneKey(uint32_t type, const std::string& value, std::string_view name = "k") {
  return Header(0, 1) + Key(name, type, value);
}

TEST(GgufTest, ReadsKeysOfEveryType) {
  const std::string nested = Array(kArray, 2, Array(kU8, 2, "\1\2") + Array(kString, 1, Text("x")));
  const std::string bytes =
      Header(0, 15) + Key("u8", kU8, Number(uint8_t{200})) + Key("i8", kI8, Number(int8_t{-3})) +
      Key("u16", kU16, Number(uint16_t{60000})) + Key("i16", kI16, Number(int16_t{-300})) +
      Key("u32", kU32, Number(uint32_t{4000000000})) + Key("i32", kI32, Number(int32_t{-70000})) +
      Key("f32", kF32, Number(1.5f)) + Key("bool", kBool, "\1") + Key("string", kString, Text("a\xc3\xa4")) +
      Key("array", kArray, Array(kI32, 3, Number(int32_t{1}) + Number(int32_t{-2}) + Number(int32_t{3}))) +
      Key("nested", kArray, nested) + Key("none", kArray, Array(kF64, 0, "")) +
      Key("u64", kU64, Number(~uint64_t{0})) + Key("i64", kI64, Number(int64_t{-5})) +
      Key("f64", kF64, Number(0.1));
  const GgufFile file = ParseGguf(Bytes(bytes), "m.gguf");
  EXPECT_EQ(file.version, 3u);
  EXPECT_EQ(file.alignment, 32u);
  EXPECT_TRUE(file.tensors.empty());
  ASSERT_EQ(file.keys.size(), 15u);
  EXPECT_EQ(file.keys[3].name, "i16");
  const auto value = [&](std::string_view name) -> const GgufValue& { return *FindKey(file.keys, name); };
  EXPECT_EQ(value("u8"), GgufValue(uint8_t{200}));
  EXPECT_EQ(value("i8"), GgufValue(int8_t{-3}));
  EXPECT_EQ(value("u16"), GgufValue(uint16_t{60000}));
  EXPECT_EQ(value("i16"), GgufValue(int16_t{-300}));
  EXPECT_EQ(value("u32"), GgufValue(uint32_t{4000000000}));
  EXPECT_EQ(value("i32"), GgufValue(int32_t{-70000}));
  EXPECT_EQ(value("f32"), GgufValue(1.5f));
  EXPECT_EQ(value("bool"), GgufValue(true));
  EXPECT_EQ(value("string"), GgufValue(std::string("a\xc3\xa4")));
  EXPECT_EQ(value("array"), GgufValue(GgufArray{std::vector<int32_t>{1, -2, 3}}));
  EXPECT_EQ(value("nested"), GgufValue(GgufArray{std::vector<GgufArray>{{std::vector<uint8_t>{1, 2}},
                                                                        {std::vector<std::string>{"x"}}}}));
  EXPECT_EQ(value("none"), GgufValue(GgufArray{std::vector<double>{}}));
  EXPECT_EQ(value("u64"), GgufValue(~uint64_t{0}));
  EXPECT_EQ(value("i64"), GgufValue(int64_t{-5}));
  EXPECT_EQ(value("f64"), GgufValue(0.1));
  EXPECT_EQ(FindKey(file.keys, "U8"), nullptr);
}

TEST(GgufTest, ReadsTensorsWithTheFastestExtentLast) {
  // b stands in front of a; a has 24 bytes, b 2 rows of 2 blocks.
  const std::string bytes = Padded(Header(4, 0) + Info("a", {3, 2}, 0, 96) + Info("b", {64, 2}, 2, 0) +
                                   Info("scalar", {}, 26, 128) + Info("empty", {7, 0, 2}, 0, 160)) +
                            Padded(std::string(72, 'b')) + Padded(std::string(24, 'a')) + Padded("1234");
  for (const bool two : {false, true}) {
    std::string copy = bytes;
    if (two) copy[4] = 2;
    const GgufFile file = ParseGguf(Bytes(copy), "m.gguf");
    EXPECT_EQ(file.version, two ? 2u : 3u);
    ASSERT_EQ(file.tensors.size(), 4u);
    const GgufTensor& a = file.tensors[0];
    EXPECT_EQ(a.name, "a");
    EXPECT_EQ(a.type, GgmlType::kF32);
    EXPECT_THAT(a.shape, ElementsAre(2, 3));
    EXPECT_EQ(a.rows, 2u);
    EXPECT_EQ(a.cols, 3u);
    EXPECT_EQ(a.data.data(), Bytes(copy).data() + copy.size() - 64);
    EXPECT_EQ(a.data.size(), 24u);
    const GgufTensor& b = file.tensors[1];
    EXPECT_EQ(b.type, GgmlType::kQ4_0);
    EXPECT_EQ(b.rows, 2u);
    EXPECT_EQ(b.cols, 64u);
    EXPECT_EQ(b.data.size(), 72u);
    EXPECT_EQ(b.data[0], std::byte{'b'});
    const GgufTensor& scalar = file.tensors[2];
    EXPECT_TRUE(scalar.shape.empty());
    EXPECT_EQ(scalar.rows * scalar.cols, 1u);
    EXPECT_EQ(scalar.data[3], std::byte{'4'});
    const GgufTensor& empty = file.tensors[3];
    EXPECT_THAT(empty.shape, ElementsAre(2, 0, 7));
    EXPECT_EQ(empty.rows, 0u);
    EXPECT_EQ(empty.cols, 7u);
    EXPECT_TRUE(empty.data.empty());
  }
}

TEST(GgufTest, AcceptsAFileWithoutTensorsOrPadding) {
  EXPECT_TRUE(ParseGguf(Bytes(Header(0, 0)), "f").keys.empty());
  EXPECT_TRUE(ParseGguf(Bytes(Padded(Header(0, 0))), "f").tensors.empty());
  // The last tensor need not be padded.
  EXPECT_EQ(ParseGguf(Bytes(One({3}, 0, 0, 12)), "f").tensors[0].data.size(), 12u);
  EXPECT_EQ(ParseGguf(Bytes(One({3}, 0, 0, 32)), "f").tensors[0].data.size(), 12u);
}

TEST(GgufTest, TakesTheAlignmentFromItsKey) {
  const std::string bytes = Padded(Header(2, 1) + Key("general.alignment", kU32, Number(uint32_t{64})) +
                                       Info("a", {1}, 0, 0) + Info("b", {1}, 0, 64),
                                   64) +
                            Padded("aaaa", 64) + "bbbb";
  const GgufFile file = ParseGguf(Bytes(bytes), "m.gguf");
  EXPECT_EQ(file.alignment, 64u);
  EXPECT_EQ(file.tensors[0].data[0], std::byte{'a'});
  EXPECT_EQ(file.tensors[1].data[0], std::byte{'b'});
}

struct Lie {
  const char* what;
  std::string bytes;
  std::vector<std::string> parts;
};

TEST(GgufTest, RefusesHeadersThatLie) {
  const uint64_t most = ~uint64_t{0};
  std::string deep;
  for (int i = 0; i < 20; ++i) deep += Number(uint32_t{kArray}) + Number(uint64_t{1});
  const auto two = [](const std::vector<uint64_t>& ne, uint64_t offset, size_t data_bytes) {
    return Padded(Header(2, 0) + Info("t", {9}, 0, 0) + Info("u", ne, 0, offset)) +
           std::string(data_bytes, 'x');
  };
  const auto alignment = [](uint32_t value) { return OneKey(kU32, Number(value), "general.alignment"); };
  const Lie lies[] = {
      {"empty file", "", {"is empty", "expected a GGUF file"}},
      {"another kind", "PK\3\4" + std::string(60, '\1'), {"is a zip archive", "expected a GGUF file"}},
      {"anything", std::string(64, '\1'), {"does not begin with GGUF"}},
      {"the name alone", "GGUF", {"4 bytes", "ends inside its header", "truncated"}},
      {"version 1", Header(0, 0, 1), {"version 1", "expected 2 or 3"}},
      {"version 4", Header(0, 0, 4), {"version 4"}},
      {"version 0", Header(0, 0, 0), {"version 0"}},
      {"big-endian", Header(0, 0, 0x03000000), {"big-endian"}},
      {"too many tensors", Header(100, 0) + std::string(800, 'x'), {"100 tensors", "808 bytes"}},
      {"absurd tensors", Header(most, 0), {"18446744073709551615 tensors"}},
      {"too many keys", Header(0, 100) + std::string(800, 'x'), {"100 keys", "800 bytes"}},
      {"absurd keys", Header(0, uint64_t{1} << 60), {"1152921504606846976 keys"}},
      {"long name", Header(0, 1) + Number(most) + "123456789", {"key 1 of 1", "18446744073709551615 bytes"}},
      {"name beyond the limit", OneKey(kU8, "\1", std::string(70000, 'k')), {"70000", "at most 65535"}},
      {"unknown type", OneKey(13, "\1"), {"key k", "type 13"}},
      {"absurd type", OneKey(0xFFFFFFFF, "\1"), {"key k", "type 4294967295"}},
      {"number cut off", OneKey(kU64, "1234567"), {"inside key k", "truncated"}},
      {"bool of 2", OneKey(kBool, "\2"), {"key k", "BOOL of 2"}},
      {"long string", OneKey(kString, Number(uint64_t{5}) + "1234"), {"key k", "5 bytes", "4 bytes"}},
      {"absurd string", OneKey(kString, Number(most) + "1234"), {"key k", "18446744073709551615"}},
      {"unknown elements", OneKey(kArray, Array(13, 0, "")), {"key k", "type 13"}},
      {"long array",
       OneKey(kArray, Array(kU32, 2, "1234567")),
       {"key k", "2 values of type UINT32", "7 bytes of the file are left"}},
      {"absurd array", OneKey(kArray, Array(kU64, uint64_t{1} << 61, "12345678")), {"2305843009213693952"}},
      {"absurd strings", OneKey(kArray, Array(kString, most, Text("a"))), {"of type STRING"}},
      {"element cut off",
       OneKey(kArray, Array(kString, 2, Number(uint64_t{9}) + "12345678")),
       {"key k", "9 bytes", "8 bytes"}},
      {"deep arrays", OneKey(kArray, deep), {"key k", "more than 8 deep"}},
      {"key twice", Header(0, 2) + Key("k", kU8, "\1") + Key("k", kI8, "\2"), {"key k twice"}},
      {"control characters", OneKey(13, "\1", "a\nb"), {"a\\x0ab"}},
      {"alignment of 0", alignment(0), {"general.alignment is 0", "power of two"}},
      {"alignment of 24", alignment(24), {"general.alignment is 24"}},
      {"alignment no UINT32",
       OneKey(kU64, Number(uint64_t{32}), "general.alignment"),
       {"type UINT64", "expected UINT32"}},
      {"tensor cut off",
       Header(1, 0) + Text("long name of it") + Number(uint32_t{1}),
       {"inside tensor long name of it"}},
      {"long tensor name",
       Header(1, 0) + Info(std::string(65, 'n'), {1}, 0, 0) + std::string(64, 'x'),
       {"tensor 1 of 1", "65 bytes", "at most 64"}},
      {"five extents", One({1, 1, 1, 1, 1}, 0, 0, 4), {"tensor t", "5 extents, expected at most 4"}},
      {"tensor twice",
       Padded(Header(2, 0) + Info("t", {1}, 0, 0) + Info("t", {1}, 0, 32)) + std::string(36, 'x'),
       {"tensor t twice"}},
      {"type of old files", One({32}, 4, 0, 18), {"tensor t", "type 4"}},
      {"absurd tensor type", One({32}, 0xFFFFFFFF, 0, 18), {"tensor t", "type 4294967295"}},
      {"no whole blocks", One({48}, 2, 0, 36), {"tensor t", "[48]", "Q4_0", "multiples of 32"}},
      {"scalar of blocks", One({}, 12, 0, 144), {"tensor t", "[]", "Q4_K"}},
      {"shape overflows", One({1ull << 32, 1ull << 32, 2}, 0, 0, 4), {"more than a file can hold"}},
      {"shape overflows beside 0", One({0, 1ull << 40, 1ull << 40}, 0, 0, 0), {"more than a file can hold"}},
      {"absurd extent", One({most}, 24, 0, 4), {"tensor t", "more than a file can hold"}},
      {"offset not aligned", One({1}, 0, 16, 64), {"tensor t", "offset 16", "alignment, 32"}},
      {"data cut off", One({3}, 0, 0, 11), {"tensor t", "12 bytes", "holds 11 bytes", "truncated"}},
      {"no data", One({3}, 0, 0, 0), {"holds 0 bytes"}},
      {"offset outside", One({1}, 0, 64, 4), {"tensor t", "offset 64"}},
      {"absurd offset", One({1}, 0, most - 31, 4), {"tensor t", "18446744073709551584"}},
      {"gap at the front", One({1}, 0, 32, 36), {"32 bytes before tensor t"}},
      {"gap", two({1}, 96, 100), {"32 bytes before tensor u"}},
      {"overlap", two({1}, 32, 64), {"tensor u", "offset 32 inside tensor t", "ends at 36"}},
      {"same place", two({9}, 0, 64), {"inside tensor"}},
      {"appended bytes", One({1}, 0, 0, 33), {"1 bytes after the last tensor"}},
      {"appended bytes, no tensor", Padded(Header(0, 0)) + "x", {"1 bytes after the last tensor"}},
  };
  for (const Lie& lie : lies) {
    SCOPED_TRACE(lie.what);
    std::vector<std::string> all = {"m.gguf"};
    all.insert(all.end(), lie.parts.begin(), lie.parts.end());
    ExpectError([&] { ParseGguf(Bytes(lie.bytes), "m.gguf"); }, all);
  }
}

// A small file with everything in it.
struct Example {
  std::vector<GgufKey> keys = {
      {"general.architecture", std::string("llama")},
      {"general.file_type", uint32_t{1}},
      {"flags", GgufArray{std::vector<bool>{true, false, true}}},
      {"tokens", GgufArray{std::vector<std::string>{"<s>", "", "\u2581a"}}},
      {"nested", GgufArray{std::vector<GgufArray>{{std::vector<float>{1.5f}}, {std::vector<int64_t>{}}}}},
      {"small", int8_t{-1}},
      {"double", 0.25},
  };
  std::vector<GgufTensorSpec> specs = {
      {"none", GgmlType::kF32, {0, 3}}, {"blk.0.attn_q.weight", GgmlType::kQ8_0, {2, 32}},
      {"bias", GgmlType::kF32, {3}},    {"half", GgmlType::kF16, {2, 2, 8}},
      {"scalar", GgmlType::kI64, {}},   {"last", GgmlType::kBF16, {0}}};
  std::string data;  // of all tensors

  Example() {
    for (int i = 0; i < 68 + 12 + 64 + 8; ++i) data += static_cast<char>(i + 1);
  }
  // In two pieces that end inside a tensor.
  void Write(const std::filesystem::path& path) const {
    GgufWriter writer(path, specs, keys);
    writer.Write(Bytes(data).first(75));
    EXPECT_FALSE(std::filesystem::exists(path));
    writer.Write(Bytes(data).subspan(75));
    writer.Commit();
    EXPECT_EQ(std::filesystem::file_size(path), writer.file_bytes());
  }
};

TEST(GgufTest, ReadsWhatItWrites) {
  const TemporaryDirectory directory;
  for (const uint32_t alignment : {32u, 8u, 256u}) {
    SCOPED_TRACE(alignment);
    Example example;
    if (alignment != 32) example.keys.push_back({"general.alignment", alignment});
    const std::filesystem::path path = directory / fmt::format("{}.gguf", alignment);
    example.Write(path);
    const GgufFile file = OpenGguf(path);
    EXPECT_EQ(file.version, 3u);
    EXPECT_EQ(file.alignment, alignment);
    EXPECT_EQ(file.map->size() % alignment, 0u);
    ASSERT_EQ(file.keys.size(), example.keys.size());
    for (size_t i = 0; i < file.keys.size(); ++i) {
      EXPECT_EQ(file.keys[i].name, example.keys[i].name);
      EXPECT_EQ(file.keys[i].value, example.keys[i].value);
    }
    ASSERT_EQ(file.tensors.size(), example.specs.size());
    std::string data;
    for (size_t i = 0; i < file.tensors.size(); ++i) {
      const GgufTensor& tensor = file.tensors[i];
      EXPECT_EQ(tensor.name, example.specs[i].name);
      EXPECT_EQ(tensor.type, example.specs[i].type);
      EXPECT_EQ(tensor.shape, example.specs[i].shape);
      EXPECT_EQ(tensor.data.size(), SpecBytes(example.specs[i]));
      if (tensor.data.empty()) continue;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data.data()) % alignment, 0u);
      data.append(reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size());
    }
    EXPECT_EQ(data, example.data);
    EXPECT_EQ(file.tensors[3].rows, 4u);
    EXPECT_EQ(file.tensors[3].cols, 8u);
  }
}

// The bytes of a written file, worked by hand.
TEST(GgufTest, WritesTheseBytes) {
  const TemporaryDirectory directory;
  GgufWriter writer(directory / "m.gguf", {{"a", GgmlType::kF16, {1, 3}}, {"b", GgmlType::kQ4_0, {32}}},
                    {{"k", GgufArray{std::vector<uint16_t>{7, 8}}}});
  writer.Write(Bytes("aaaaaa"));
  writer.Write(Bytes("bbbbbbbbbbbbbbbbbb"));
  writer.Commit();
  const std::string expected =
      Padded(Header(2, 1) + Key("k", kArray, Array(kU16, 2, Number(uint16_t{7}) + Number(uint16_t{8}))) +
             Info("a", {3, 1}, 1, 0) + Info("b", {32}, 2, 32)) +
      Padded("aaaaaa") + Padded("bbbbbbbbbbbbbbbbbb");
  EXPECT_EQ(ReadFile(directory / "m.gguf"), expected);
}

// Every prefix and every extension of a good file is refused: the last tensor, an empty one, ends it.
TEST(GgufTest, RefusesEveryOtherLength) {
  const TemporaryDirectory directory;
  Example().Write(directory / "m.gguf");
  const std::string good = ReadFile(directory / "m.gguf");
  for (size_t length = 0; length < good.size(); ++length)
    EXPECT_THROW(ParseGguf(Bytes(good).first(length), "f"), Error) << length;
  EXPECT_THROW(ParseGguf(Bytes(good + "x"), "f"), Error);
}

// One byte of the header changed: an Error or a file whose tensors lie inside it, nothing else.
TEST(GgufTest, SurvivesEveryChangedByte) {
  const TemporaryDirectory directory;
  const Example example;
  example.Write(directory / "m.gguf");
  const std::string good = ReadFile(directory / "m.gguf");
  for (size_t at = 0; at < good.size(); ++at) {
    for (const int change : {1, 0x80, 0xFF}) {
      std::string bytes = good;
      bytes[at] = static_cast<char>(bytes[at] ^ change);
      try {
        for (const GgufTensor& tensor : ParseGguf(Bytes(bytes), "f").tensors) {
          if (tensor.data.empty()) continue;
          EXPECT_GE(tensor.data.data(), Bytes(bytes).data());
          EXPECT_LE(tensor.data.data() + tensor.data.size(), Bytes(bytes).data() + bytes.size());
        }
      } catch (const Error&) {
      }
    }
  }
}

TEST(GgufTest, RefusesToWriteWhatReadersRefuse) {
  const TemporaryDirectory directory;
  const auto write = [&](const GgufTensorSpec& spec, const std::vector<GgufKey>& keys = {}) {
    return [&directory, spec, keys] { GgufWriter(directory / "m.gguf", {spec}, keys); };
  };
  ExpectError(write({std::string(64, 'n'), GgmlType::kF32, {1}}),
              {"m.gguf", "cannot be written", "64 bytes"});
  ExpectError(write({"t", GgmlType::kF32, {1, 1, 1, 1, 1}}), {"m.gguf", "tensor t", "5 extents"});
  ExpectError(write({"t", GgmlType::kQ6_K, {4, 384}}), {"m.gguf", "tensor t", "[4, 384]", "Q6_K", "256"});
  ExpectError(write({"t", GgmlType::kF32, {uint64_t{1} << 62}}), {"tensor t", "more than a file can hold"});
  ExpectError(write({"t", GgmlType::kF32, {1}}, {{"general.alignment", uint32_t{12}}}), {"m.gguf", "is 12"});
  ExpectError(write({"t", GgmlType::kF32, {1}}, {{"general.alignment", int32_t{32}}}), {"type INT32"});
  ExpectError(write({"t", GgmlType::kF32, {1}}, {{std::string(65536, 'k'), true}}), {"65536 bytes"});
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

TEST(GgufTest, AnUnfinishedFileLeavesNothing) {
  const TemporaryDirectory directory;
  {
    GgufWriter writer(directory / "m.gguf", {{"t", GgmlType::kI8, {4}}}, {});
    writer.Write(Bytes("ab"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

TEST(GgufTest, NamesTheFileThatIsMissing) {
  ExpectError([] { OpenGguf("/nonexistent/m.gguf"); }, {"/nonexistent/m.gguf", "cannot be opened"});
  ExpectError([] { GgufWriter("/nonexistent/m.gguf", {}, {}); },
              {"/nonexistent/m.gguf", "cannot be written"});
}

}  // namespace
}  // namespace mica
