#include "io/container/torch_file.h"

#include <zlib.h>

#include <cstdlib>
#include <map>

#include "io/container/pickle.h"
#include "io/container/zip.h"
#include "tests/error_message.h"
#include "tests/io/container/test_files.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

using test::Bytes;
using test::Number;

// data.pkl as torch.save (1.13) wrote it for the state dictionary of a module with these entries added: a
// view, the tensor it looks into, BF16, a parameter, a scalar. Ends with the dictionary's own attribute
// _metadata.
constexpr char kRealPickle[] =
    "\200\002ccollections\012OrderedDict\012q\000)Rq\001(X\010\000\000\0000.weightq\002ctorch._utils\012"
    "_rebuild_tensor_v2\012q\003((X\007\000\000\000storageq\004ctorch\012HalfStorage\012q\005X\001\000"
    "\000\0000q\006X\003\000\000\000cpuq\007K\006tq\010QK\000K\002K\003\206q\011K\003K\001\206q\012\211"
    "h\000)Rq\013tq\014Rq\015X\004\000\000\000viewq\016h\003((h\004ctorch\012FloatStorage\012q\017X\001"
    "\000\000\0001q\020h\007K\012tq\021QK\002K\002K\003\206q\022K\003K\001\206q\023\211h\000)Rq\024tq\025"
    "Rq\026X\006\000\000\000sharedq\027h\003((h\004h\017h\020h\007K\012tq\030QK\000K\012\205q\031K\001"
    "\205q\032\211h\000)Rq\033tq\034Rq\035X\002\000\000\000bfq\036h\003((h\004ctorch\012BFloat16Storag"
    "e\012q\037X\001\000\000\0002q h\007K\002tq!QK\000K\002\205q\"K\001\205q#\211h\000)Rq$tq%Rq&X\005\000"
    "\000\000paramq'ctorch._utils\012_rebuild_parameter\012q(h\003((h\004h\017X\001\000\000\0003q)h\007"
    "K\001tq*QK\000K\001K\001\206q+K\001K\001\206q,\211h\000)Rq-tq.Rq/\210h\000)Rq0\207q1Rq2X\001\000\000"
    "\000iq3h\003((h\004ctorch\012LongStorage\012q4X\001\000\000\0004q5h\007K\001tq6QK\000))\211h\000)"
    "Rq7tq8Rq9u}q:X\011\000\000\000_metadataq;h\000)Rq<(X\000\000\000\000q=}q>X\007\000\000\000version"
    "q?K\001sX\001\000\000\0000q@}qAh?K\001susb.";

std::string Real() { return std::string(kRealPickle, sizeof(kRealPickle) - 1); }

// Opcodes by hand.
std::string Text(const std::string& text) {
  return std::string("X") + Number(static_cast<uint32_t>(text.size())) + text;
}
std::string Int(int32_t value) { return "J" + Number(value); }
std::string Tuple(const std::vector<int32_t>& values) {
  std::string pickle = "(";
  for (const int32_t value : values) pickle += Int(value);
  return pickle + "t";
}
constexpr const char* kRebuild = "ctorch._utils\n_rebuild_tensor_v2\n";
std::string Storage(const std::string& type, const std::string& key, int32_t elements) {
  return std::string("(") + Text("storage") + std::string("ctorch\n") + type + "\n" + Text(key) +
         Text("cpu") + Int(elements) + "tQ";
}
std::string Hooks() { return "ccollections\nOrderedDict\n)R"; }
std::string Tensor(const std::string& storage, int32_t offset, const std::vector<int32_t>& shape,
                   const std::vector<int32_t>& strides) {
  return kRebuild + ("(" + storage) + Int(offset) + Tuple(shape) + Tuple(strides) + "\x89" + Hooks() + "tR";
}
// {"t": value}
std::string Dict(const std::string& value) { return "\x80\x02}" + Text("t") + value + "s."; }
std::string F32Tensor(int32_t offset, const std::vector<int32_t>& shape, const std::vector<int32_t>& strides,
                      int32_t elements) {
  return Dict(Tensor(Storage("FloatStorage", "0", elements), offset, shape, strides));
}

// A zip archive by hand, with every number open to lies.
struct HandEntry {
  std::string name;
  std::string data;
  uint16_t method = 0;
  uint16_t flags = 0;
  std::string central_name = {};  // another name in the directory
  int64_t size_change = 0;        // added to both sizes in the directory
  int64_t plain_size_change = 0;  // added to the size before compression
  int64_t offset_change = 0;
  uint32_t crc_change = 0;
  bool wide = false;  // sizes and offset in the 64-bit extra field
};
struct HandZip {
  std::vector<HandEntry> entries;
  int64_t count_change = 0, directory_change = 0;
  bool wide_end = false;
  std::string comment = {};
};

std::string Build(const HandZip& zip) {
  std::string bytes, directory;
  for (const HandEntry& entry : zip.entries) {
    const uint64_t offset = bytes.size() + entry.offset_change;
    const uint32_t crc =
        entry.crc_change ^ static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(entry.data.data()),
                                                       static_cast<uInt>(entry.data.size())));
    bytes += Number(uint32_t{0x04034b50}) + Number(uint16_t{20}) + Number(entry.flags) +
             Number(entry.method) + std::string(4, '\0') + Number(crc) + std::string(8, '\0') +
             Number(static_cast<uint16_t>(entry.name.size())) + Number(uint16_t{3}) + entry.name + "pad" +
             entry.data;
    const std::string name = entry.central_name.empty() ? entry.name : entry.central_name;
    const uint64_t stored = entry.data.size() + entry.size_change, plain = stored + entry.plain_size_change;
    const std::string extra = entry.wide
                                  ? Number(uint16_t{7}) + Number(uint16_t{2}) + "??" + Number(uint16_t{1}) +
                                        Number(uint16_t{24}) + Number(plain) + Number(stored) + Number(offset)
                                  : "";
    directory += Number(uint32_t{0x02014b50}) + std::string(4, '\0') + Number(entry.flags) +
                 Number(entry.method) + std::string(4, '\0') + Number(crc) +
                 Number(entry.wide ? ~uint32_t{0} : static_cast<uint32_t>(stored)) +
                 Number(entry.wide ? ~uint32_t{0} : static_cast<uint32_t>(plain)) +
                 Number(static_cast<uint16_t>(name.size())) + Number(static_cast<uint16_t>(extra.size())) +
                 Number(uint16_t{1}) + std::string(8, '\0') +
                 Number(entry.wide ? ~uint32_t{0} : static_cast<uint32_t>(offset)) + name + extra + "c";
  }
  const uint64_t begin = bytes.size() + zip.directory_change, count = zip.entries.size() + zip.count_change;
  const uint64_t size = directory.size();
  bytes += directory;
  if (zip.wide_end) {
    const uint64_t at = bytes.size();
    bytes += Number(uint32_t{0x06064b50}) + Number(uint64_t{44}) + std::string(12, '\0') + Number(count) +
             Number(count) + Number(size) + Number(begin);
    bytes += Number(uint32_t{0x07064b50}) + Number(uint32_t{0}) + Number(at) + Number(uint32_t{1});
  }
  const uint16_t narrow = zip.wide_end ? uint16_t{0xFFFF} : static_cast<uint16_t>(count);
  bytes += Number(uint32_t{0x06054b50}) + std::string(4, '\0') + Number(narrow) + Number(narrow) +
           Number(zip.wide_end ? ~uint32_t{0} : static_cast<uint32_t>(size)) +
           Number(zip.wide_end ? ~uint32_t{0} : static_cast<uint32_t>(begin)) +
           Number(static_cast<uint16_t>(zip.comment.size())) + zip.comment;
  return bytes;
}

// A checkpoint with that pickle and one storage "0".
HandZip Checkpoint(const std::string& pickle, const std::string& storage) {
  return {.entries = {{.name = "m/data.pkl", .data = pickle}, {.name = "m/data/0", .data = storage}}};
}

void ExpectRefused(const std::string& bytes, const std::vector<std::string>& parts) {
  std::vector<std::string> all = {"a.bin"};
  all.insert(all.end(), parts.begin(), parts.end());
  ExpectError([&] { ParseTorchFile(Bytes(bytes), "a.bin"); }, all);
}

TEST(PickleTest, ReadsWhatPyTorchWrites) {
  const std::string pickle = Real();
  const std::vector<PickledTensor> tensors = ReadStateDict(Bytes(pickle), "real");
  ASSERT_EQ(tensors.size(), 6u);
  std::map<std::string, PickledTensor> by_name;
  for (const PickledTensor& tensor : tensors) by_name[tensor.name] = tensor;
  const PickledTensor& weight = by_name.at("0.weight");
  EXPECT_EQ(weight.dtype, DType::kF16);
  EXPECT_EQ(weight.storage, "0");
  EXPECT_EQ(weight.storage_elements, 6u);
  EXPECT_EQ(weight.shape, (std::vector<uint64_t>{2, 3}));
  EXPECT_EQ(weight.strides, (std::vector<uint64_t>{3, 1}));
  EXPECT_EQ(by_name.at("view").offset, 2u);
  EXPECT_EQ(by_name.at("view").storage, by_name.at("shared").storage);
  EXPECT_EQ(by_name.at("shared").shape, (std::vector<uint64_t>{10}));
  EXPECT_EQ(by_name.at("bf").dtype, DType::kBF16);
  EXPECT_EQ(by_name.at("param").shape, (std::vector<uint64_t>{1, 1}));
  EXPECT_EQ(by_name.at("i").dtype, DType::kI64);
  EXPECT_TRUE(by_name.at("i").shape.empty());
}

TEST(PickleTest, ReadsTheOpcodesOfLaterProtocols) {
  const std::string body = "\x80\x04\x95" + Number(uint64_t{10}) +
                           "}\x94(\x8c\x01t\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v2\x93\x94" + "(" +
                           Storage("HalfStorage", "7", 300) + "\x8a\x02" + Number(int16_t{296}) +
                           "K\x04\x85K\x01\x85\x89" + Hooks() + "NtRu.";
  const std::vector<PickledTensor> tensors = ReadStateDict(Bytes(body), "p");
  ASSERT_EQ(tensors.size(), 1u);
  EXPECT_EQ(tensors[0].offset, 296u);
  EXPECT_EQ(tensors[0].storage, "7");
}

TEST(PickleTest, EveryPrefixOfAPickleIsRefused) {
  const std::string pickle = Real();
  for (size_t length = 0; length < pickle.size(); ++length) {
    EXPECT_THROW(ReadStateDict(Bytes(pickle).first(length), "p"), Error) << length;
  }
  EXPECT_THROW(ReadStateDict(Bytes(pickle + "x"), "p"), Error);
}

TEST(PickleTest, RefusesWhatCouldRunCode) {
  struct Case {
    std::string pickle;
    std::vector<std::string> parts;
  };
  const Case cases[] = {
      {std::string("\x80\x02") + "cos\nsystem\n" + Text("true") + "\x85R.",
       {"os.system is not allowed", "byte 2"}},
      {std::string("\x80\x04\x8c\x08") + "builtins\x8c\x04" + "eval\x93.", {"builtins.eval is not allowed"}},
      {Dict("ctorch\nload\n" + Text("x") + "\x85R"), {"torch.load is not allowed"}},
      {Dict("ctorch._utils\n_rebuild_tensor\n)R"), {"torch._utils._rebuild_tensor is not allowed"}},
      {Dict("ctorch\nQInt8Storage\n"), {"torch.QInt8Storage is not allowed"}},
      {Dict("cos\n\nsystem\n"), {"os. is not allowed"}},
      {Dict("ca\x1b[2J\nb\n"), {"a\\x1b[2J.b is not allowed"}},
      {Dict("(ios\nsystem\n"), {"opcode INST is not allowed"}},
      {Dict("(cos\nsystem\no"), {"os.system"}},
      {Dict("(o"), {"opcode OBJ"}},
      {Dict("}}\x81"), {"opcode NEWOBJ is not allowed"}},
      {Dict("}}}\x92"), {"opcode NEWOBJ_EX"}},
      {Dict("\x82\x01"), {"opcode EXT1"}},
      {Dict("Pid\n"), {"opcode PERSID"}},
      {Dict("\x97"), {"opcode NEXT_BUFFER"}},
      {Dict("2"), {"opcode DUP"}},
      {Dict("\xfe"), {"opcode 0xfe is unknown"}},
      {Dict("}" + Tuple({}) + "R"), {"a call of a dictionary"}},
      {Dict("ctorch\nFloatStorage\n)R"), {"a call of a storage class"}},
      {Dict("ccollections\nOrderedDict\n]\x85R"), {"OrderedDict is made from 1 arguments"}},
      {Dict("ccollections\nOrderedDict\n}b"),
       {"an object with a state is the class collections.OrderedDict"}},
      {Dict("}Nb"), {"the state of an object is None"}},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.parts[0]);
    ExpectError([&] { ReadStateDict(Bytes(one.pickle), "a.bin: data.pkl"); }, one.parts);
  }
}

TEST(PickleTest, RefusesWhatIsNoDictionaryOfTensors) {
  struct Case {
    std::string pickle;
    std::vector<std::string> parts;
  };
  const std::string good = Tensor(Storage("FloatStorage", "0", 4), 0, {4}, {1});
  const std::string start = "\x80\x02";
  const Case cases[] = {
      {"", {"cut short"}},
      {start + "]" + ".", {"the file holds a list, expected a dictionary"}},
      {start + good + ".", {"the file holds a tensor"}},
      {start + "}}.", {"1 objects are left over"}},
      {start + "(}.", {"left over"}},
      {start + "}.tail", {"4 bytes follow"}},
      {"\x80\x09}.", {"protocol 9"}},
      {start + "s.", {"stack is empty"}},
      {start + "u.", {"no mark"}},
      {start + "}(Nu.", {"key without a value"}},
      {start + "]NNs.", {"target of an assignment is a list"}},
      {start + "}Na.", {"target of an append is a dictionary"}},
      {start + "h\x05.", {"memo 5 is empty"}},
      {start + "}" + Text("\xff") + ".", {"not UTF-8"}},
      {start + std::string("X") + Number(uint32_t{0xFFFFFFFF}) + "abc.", {"cut short"}},
      {start + "\x8a\x09" + std::string(9, 'x') + ".", {"integer of 9 bytes"}},
      {std::string("\x80\x04\x95") + Number(~uint64_t{0}) + "}.", {"frame is longer"}},
      {Dict(Int(3)), {"entry t is an integer, expected a tensor"}},
      {Dict("}"), {"entry t is a dictionary"}},
      {Dict("G" + std::string(8, 'x')), {"entry t is a float"}},
      {start + "}" + Int(1) + good + "s.", {"key of the dictionary is an integer"}},
      {start + "}(" + Text("t") + good + Text("t") + good + "u.", {"tensor t is there twice"}},
      {Dict(std::string(kRebuild) + "(tR"), {"_rebuild_tensor_v2 has 0 arguments"}},
      {Dict(std::string(kRebuild) + "(NNNNNNtR"), {"storage of a tensor is None"}},
      {Dict(Tensor(Storage("FloatStorage", "0", 4), -1, {4}, {1})), {"offset of a tensor is -1"}},
      {Dict(Tensor(Storage("FloatStorage", "0", 4), 0, {-4}, {1})), {"shape of a tensor contains -4"}},
      {Dict(Tensor(Storage("FloatStorage", "0", 4), 0, {4}, {-1})), {"strides of a tensor contains -1"}},
      {Dict(Tensor(Storage("FloatStorage", "0", 4), 0, {4}, {})), {"1 extents and 0 strides"}},
      {Dict(Tensor(Storage("FloatStorage", "0", 4), 0, std::vector<int32_t>(17, 1), {})),
       {"17 numbers, expected at most 16"}},
      {Dict(Tensor(Storage("FloatStorage", "0", -4), 0, {4}, {1})), {"storage 0 has -4 elements"}},
      {Dict("(" + Text("module") + "NNNNtQ"), {"persistent id is not that of a storage"}},
      {Dict(Text("storage") + "Q"), {"persistent id is a string"}},
      {Dict(kRebuild + ("(" + Storage("FloatStorage", "0", 4)) + Int(0) + Tuple({4}) + Tuple({1}) + "\x89" +
            Hooks() + "}" + Text("neg") + "\x88stR"),
       {"a tensor has metadata"}},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.parts[0]);
    ExpectError([&] { ReadStateDict(Bytes(one.pickle), "a.bin: data.pkl"); }, one.parts);
  }
}

// A list that holds itself and a tuple nested a million deep cost no stack and no time.
TEST(PickleTest, SurvivesNestingAndCycles) {
  const std::string cycle = std::string("\x80\x02]q\x01h\x01") + "a.";
  ExpectError([&] { ReadStateDict(Bytes(cycle), "p"); }, {"the file holds a list"});
  const std::string deep = "\x80\x02N" + std::string(1000000, '\x85') + ".";
  ExpectError([&] { ReadStateDict(Bytes(deep), "p"); }, {"the file holds a tuple"});
  const std::string marks = "\x80\x02" + std::string(5000000, '(') + ".";
  ExpectError([&] { ReadStateDict(Bytes(marks), "p"); }, {"more than 4194304 objects"});
}

TEST(PickleTest, WritesWhatItReads) {
  const std::vector<PickledTensor> tensors = {
      {"a", DType::kF16, "0", 6, 0, {2, 3}, {3, 1}},
      {"\u00e4.weight", DType::kBF16, "1", uint64_t{1} << 33, 5, {uint64_t{1} << 32}, {1}},
      {"s", DType::kI64, "2", 1, 0, {}, {}},
  };
  const std::string pickle = WriteStateDict(tensors);
  const std::vector<PickledTensor> read = ReadStateDict(Bytes(pickle), "p");
  ASSERT_EQ(read.size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(read[i].name, tensors[i].name);
    EXPECT_EQ(read[i].dtype, tensors[i].dtype);
    EXPECT_EQ(read[i].storage, tensors[i].storage);
    EXPECT_EQ(read[i].storage_elements, tensors[i].storage_elements);
    EXPECT_EQ(read[i].offset, tensors[i].offset);
    EXPECT_EQ(read[i].shape, tensors[i].shape);
    EXPECT_EQ(read[i].strides, tensors[i].strides);
  }
}

TEST(TorchFileTest, UsesStoragesInPlace) {
  const std::string storage = "0123456789abcdefghijklmn";  // six F32
  const std::string pickle = "\x80\x02}(" + Text("all") +
                             Tensor(Storage("FloatStorage", "0", 6), 0, {2, 3}, {3, 1}) + Text("tail") +
                             Tensor(Storage("FloatStorage", "0", 6), 4, {1, 2, 1}, {99, 1, 7}) +
                             Text("none") + Tensor(Storage("FloatStorage", "0", 6), 6, {3, 0}, {1, 3}) + "u.";
  for (const bool wide : {false, true}) {
    HandZip zip = Checkpoint(pickle, storage);
    zip.entries.push_back({.name = "m/byteorder", .data = "little"});
    for (HandEntry& entry : zip.entries) entry.wide = wide;
    zip.wide_end = wide;
    zip.comment = wide ? "" : "PK\x05\x06 a comment";
    const std::string bytes = Build(zip);
    const std::vector<TensorView> tensors = ParseTorchFile(Bytes(bytes), "a.bin").tensors;
    ASSERT_EQ(tensors.size(), 3u);
    EXPECT_EQ(tensors[0].shape, (std::vector<uint64_t>{2, 3}));
    EXPECT_EQ(tensors[0].data.size(), 24u);
    EXPECT_EQ(std::memcmp(tensors[0].data.data(), storage.data(), 24), 0);
    EXPECT_EQ(tensors[1].data.data(), tensors[0].data.data() + 16);
    EXPECT_EQ(tensors[1].data.size(), 8u);
    EXPECT_TRUE(tensors[2].data.empty());
  }
}

TEST(TorchFileTest, RefusesTensorsThatLie) {
  const std::string storage(24, 'x');
  const auto with = [&](const std::string& pickle) { return Build(Checkpoint(pickle, storage)); };
  ExpectRefused(with(F32Tensor(0, {2, 3}, {1, 2}, 6)),
                {"tensor t", "[2, 3]", "strides [1, 2]", "contiguous"});
  ExpectRefused(with(F32Tensor(0, {3}, {2}, 6)), {"tensor t", "strides [2]"});
  ExpectRefused(with(F32Tensor(0, {3}, {0}, 6)), {"tensor t", "strides [0]"});
  ExpectRefused(with(F32Tensor(4, {3}, {1}, 6)), {"tensor t", "offset 4", "outside its storage of 6"});
  ExpectRefused(with(F32Tensor(0, {7}, {1}, 6)), {"tensor t", "[7]", "outside its storage"});
  ExpectRefused(with(F32Tensor(7, {0}, {1}, 6)), {"tensor t", "outside its storage"});
  ExpectRefused(with(F32Tensor(0, {2147483647, 2147483647, 2147483647}, {1, 1, 1}, 6)),
                {"tensor t", "more than a file can hold"});
  ExpectRefused(with(F32Tensor(0, {6}, {1}, 7)),
                {"storage m/data/0 holds 24 bytes, expected 7 elements of F32"});
  ExpectRefused(with(F32Tensor(0, {5}, {1}, 5)),
                {"storage m/data/0 holds 24 bytes, expected 5 elements of F32"});
  ExpectRefused(with(Dict(Tensor(Storage("FloatStorage", "9", 6), 0, {6}, {1}))),
                {"tensor t", "storage m/data/9", "lacks"});
  ExpectRefused(with(Dict(Tensor(Storage("FloatStorage", "../data.pkl", 6), 0, {6}, {1}))),
                {"../data.pkl", "lacks"});
}

TEST(TorchFileTest, RefusesOtherFormats) {
  ExpectRefused("", {"is empty"});
  ExpectRefused("\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.", {"PyTorch before 1.6", "save it again"});
  ExpectRefused("GGUF....", {"is a GGUF file", "expected a PyTorch checkpoint"});
  ExpectRefused("words", {"is not a PyTorch checkpoint"});
  ExpectRefused("version https://git-lfs.github.com/spec/v1\n", {"is a Git LFS pointer"});
  ExpectRefused("PK\x03\x04 and nothing else", {"no end record", "truncated"});
  ExpectRefused(Build({.entries = {{.name = "word/document.xml", .data = "<x/>"}}}), {"without a data.pkl"});
  const std::string pickle = F32Tensor(0, {6}, {1}, 6);
  HandZip zip = Checkpoint(pickle, std::string(24, 'x'));
  zip.entries.push_back({.name = "m/byteorder", .data = "big"});
  ExpectRefused(Build(zip), {"byte order is 'big', expected 'little'"});
  zip.entries[2] = {.name = "n/data.pkl", .data = pickle};
  ExpectRefused(Build(zip), {"two dictionaries, m/data.pkl and n/data.pkl"});
}

TEST(ZipTest, RefusesArchivesThatLie) {
  const std::string pickle = F32Tensor(0, {6}, {1}, 6), storage(24, 'x');
  const HandZip good = Checkpoint(pickle, storage);
  EXPECT_EQ(ParseTorchFile(Bytes(Build(good)), "a.bin").tensors.size(), 1u);
  struct Case {
    const char* what;
    std::function<void(HandZip&)> lie;
    std::vector<std::string> parts;
  };
  const Case cases[] = {
      {"bomb",
       [](HandZip& z) { z.entries[1].method = 8, z.entries[1].plain_size_change = int64_t{1} << 30; },
       {"m/data/0", "compressed", "method 8", "24 to 1073741848 bytes"}},
      {"compressed pickle", [](HandZip& z) { z.entries[0].method = 8; }, {"m/data.pkl", "compressed"}},
      {"encrypted", [](HandZip& z) { z.entries[1].flags = 1; }, {"m/data/0", "encrypted"}},
      {"CRC", [](HandZip& z) { z.entries[0].crc_change = 1; }, {"m/data.pkl", "CRC-32", "corrupted"}},
      {"sizes differ",
       [](HandZip& z) { z.entries[1].plain_size_change = 1; },
       {"m/data/0", "25 and 24 bytes"}},
      {"size outside",
       [](HandZip& z) { z.entries[1].size_change = 1000; },
       {"m/data/0", "1024 bytes does not fit"}},
      {"64-bit size outside",
       [](HandZip& z) { z.entries[1].wide = true, z.entries[1].size_change = int64_t{1} << 62; },
       {"m/data/0", "does not fit"}},
      {"offset outside",
       [](HandZip& z) { z.entries[1].offset_change = 1000; },
       {"m/data/0", "outside the archive"}},
      {"64-bit offset outside",
       [](HandZip& z) { z.entries[1].wide = true, z.entries[1].offset_change = int64_t{1} << 62; },
       {"m/data/0", "outside"}},
      {"offset elsewhere", [](HandZip& z) { z.entries[1].offset_change = 1; }, {"m/data/0", "no header"}},
      {"overlap", [](HandZip& z) { z.entries[0].size_change = 60; }, {"m/data.pkl and m/data/0 overlap"}},
      {"other name inside",
       [](HandZip& z) { z.entries[1].central_name = "m/data/1"; },
       {"m/data/1 is called m/data/0"}},
      {"same name twice", [](HandZip& z) { z.entries.push_back(z.entries[1]); }, {"m/data/0 is there twice"}},
      {"too many entries", [](HandZip& z) { z.count_change = 1000; }, {"1002 entries in a directory"}},
      {"one entry too many", [](HandZip& z) { z.count_change = 1; }, {"directory"}},
      {"one entry too few", [](HandZip& z) { z.count_change = -1; }, {"bytes too many"}},
      {"64-bit count",
       [](HandZip& z) { z.wide_end = true, z.count_change = int64_t{1} << 60; },
       {"entries in a directory of"}},
      {"directory elsewhere", [](HandZip& z) { z.directory_change = -1; }, {"directory is said to be"}},
      {"directory outside", [](HandZip& z) { z.directory_change = 1000; }, {"directory is said to be"}},
      {"64-bit directory outside",
       [](HandZip& z) { z.wide_end = true, z.directory_change = int64_t{1} << 61; },
       {"directory is said to be"}},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.what);
    HandZip zip = good;
    one.lie(zip);
    ExpectRefused(Build(zip), one.parts);
  }
}

TEST(ZipTest, RefusesEveryOtherLength) {
  for (const bool wide : {false, true}) {
    HandZip zip = Checkpoint(F32Tensor(0, {6}, {1}, 6), std::string(24, 'x'));
    zip.wide_end = wide;
    const std::string bytes = Build(zip);
    for (size_t length = 0; length < bytes.size(); ++length)
      EXPECT_THROW(ParseTorchFile(Bytes(bytes).first(length), "f"), Error) << length;
    ExpectRefused(bytes + "x", {"no end record", "appended"});
  }
}

TEST(TorchFileTest, WritesWhatItReads) {
  const TemporaryDirectory directory;
  const std::vector<TensorSpec> specs = {{"a", DType::kF16, {2, 3}},
                                         {"none", DType::kF32, {0}},
                                         {"b", DType::kU8, {5}},
                                         {"last", DType::kF32, {0, 2}}};
  TorchWriter writer(directory / "pytorch_model.bin", specs);
  writer.Write(Bytes("abcdefghijkl12"));
  writer.Write(Bytes("345"));
  EXPECT_FALSE(std::filesystem::exists(directory / "pytorch_model.bin"));
  writer.Commit();
  const TorchFile file = OpenTorchFile(directory / "pytorch_model.bin");
  EXPECT_EQ(file.map->size(), writer.file_bytes());
  ASSERT_EQ(file.tensors.size(), specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    EXPECT_EQ(file.tensors[i].name, specs[i].name);
    EXPECT_EQ(file.tensors[i].dtype, specs[i].dtype);
    EXPECT_EQ(file.tensors[i].shape, specs[i].shape);
  }
  EXPECT_EQ(std::memcmp(file.tensors[0].data.data(), "abcdefghijkl", 12), 0);
  EXPECT_EQ(std::memcmp(file.tensors[2].data.data(), "12345", 5), 0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file.tensors[0].data.data()) % 64, 0u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file.tensors[2].data.data()) % 64, 0u);
  for (const ZipEntry& entry : ReadZip(file.map->bytes(), "f"))
    EXPECT_NO_THROW(CheckCrc(entry, "f")) << entry.name;
  ExpectError([&] { TorchWriter(directory / "x.bin", {{"t", DType::kU32, {1}}}); }, {"tensor t", "U32"});
}

// The independent check, where PyTorch is installed: each side reads what the other writes.
TEST(TorchFileTest, AgreesWithPyTorch) {
  if (std::system("python3 -c 'import torch' >/dev/null 2>&1") != 0 &&
      std::system("/usr/bin/python3 -c 'import torch' >/dev/null 2>&1") != 0) {
    GTEST_SKIP() << "PyTorch is not installed";
  }
  const TemporaryDirectory directory;
  TorchWriter writer(directory / "ours.bin",
                     {{"a", DType::kF16, {2, 2}}, {"b", DType::kF32, {1}}, {"e", DType::kBF16, {0, 3}}});
  writer.Write(Bytes(Number(uint64_t{0x0000C0003E003C00}) + Number(-0.375f)));
  writer.Commit();
  test::WriteBytes(directory / "check.py", R"(
import sys, torch
d = sys.argv[1]
t = torch.load(d + "/ours.bin")
assert list(t) == ["a", "b", "e"], t
assert t["a"].dtype == torch.float16 and t["a"].tolist() == [[1.0, 1.5], [-2.0, 0.0]], t
assert t["b"].dtype == torch.float32 and t["b"].tolist() == [-0.375], t
assert t["e"].dtype == torch.bfloat16 and t["e"].shape == (0, 3), t
x = torch.arange(6, dtype=torch.float32).reshape(2, 3)
torch.save({"x": x, "row": x[1], "p": torch.nn.Parameter(x.bfloat16())}, d + "/theirs.bin")
torch.save({"x": x.t()}, d + "/transposed.bin")
torch.save({"x": x}, d + "/legacy.bin", _use_new_zipfile_serialization=False)
torch.save({"x": x, "f": torch.nn.Linear(1, 1)}, d + "/module.bin")
)");
  const std::string script = (directory / "check.py").string() + " " + directory.path().string();
  ASSERT_TRUE(std::system(("/usr/bin/python3 " + script).c_str()) == 0 ||
              std::system(("python3 " + script).c_str()) == 0);
  const TorchFile file = OpenTorchFile(directory / "theirs.bin");
  ASSERT_EQ(file.tensors.size(), 3u);
  std::vector<float> values(6);
  ReadFloats(file.tensors[0], 0, values);
  EXPECT_EQ(values, (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(file.tensors[1].data.data(), file.tensors[0].data.data() + 12);
  ReadFloats(file.tensors[2], 0, values);
  EXPECT_EQ(values, (std::vector<float>{0, 1, 2, 3, 4, 5}));
  ExpectError([&] { OpenTorchFile(directory / "transposed.bin"); },
              {"transposed.bin", "tensor x", "strides [1, 3]"});
  ExpectError([&] { OpenTorchFile(directory / "legacy.bin"); }, {"legacy.bin", "PyTorch before 1.6"});
  ExpectError([&] { OpenTorchFile(directory / "module.bin"); },
              {"module.bin", "torch.nn.modules.linear.Linear is not allowed"});
}

}  // namespace
}  // namespace mica
