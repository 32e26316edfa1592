#include "io/text/datasets.h"

#include <zlib.h>
#include <zstd.h>

#include <cstdlib>
#include <utility>

#include "base/sha256.h"
#include "tests/error_message.h"
#include "tests/io/container/test_files.h"
#include "tests/source_dir.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

namespace fs = std::filesystem;
using test::WriteBytes;

std::string Gzip(const std::string& text) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string packed(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

std::string Zstd(const std::string& text) {
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3));
  return packed;
}

class DatasetsTest : public ::testing::Test {
 protected:
  // The text of a file with that content.
  std::string Load(DataKind kind, const std::string& content) {
    WriteBytes(directory_ / "data", content);
    return LoadText({"x", kind, directory_ / "data", 1.0}).text;
  }
  void ExpectRefused(DataKind kind, const std::string& content, std::vector<std::string> parts) {
    parts.push_back((directory_ / "data").string());
    ExpectError([&] { Load(kind, content); }, parts);
  }
  TemporaryDirectory directory_;
};

// As the published data set: a blank line is an empty row, other rows keep their newline, rows are joined by
// two newlines.
TEST_F(DatasetsTest, Wikitext2JoinsRows) {
  const std::string raw = " \n = Robert Boulter = \n \n Robert Boulter is an actor . \n";
  EXPECT_EQ(Load(DataKind::kWikitext2, raw),
            "\n\n = Robert Boulter = \n\n\n\n\n Robert Boulter is an actor . \n");
  EXPECT_EQ(Load(DataKind::kWikitext2, "a"), "a");
  EXPECT_EQ(Load(DataKind::kWikitext2, "a\n"), "a\n");
  EXPECT_EQ(Load(DataKind::kWikitext2, "a\n\n"), "a\n\n\n");
  EXPECT_EQ(Load(DataKind::kWikitext2, "a\nb"), "a\n\n\nb");
  EXPECT_EQ(Load(DataKind::kWikitext2, "a\r\n\u3000\r\nb\r\n"), "a\n\n\n\n\nb\n");
  EXPECT_EQ(Load(DataKind::kWikitext2, "a\n\t \u00a0\u2003\n\fb\n"), "a\n\n\n\n\n\fb\n");
}

TEST_F(DatasetsTest, PtbStripsLines) {
  EXPECT_EQ(Load(DataKind::kPtb, " no it was n't black monday \n but while \n"),
            "no it was n't black monday but while");
  EXPECT_EQ(Load(DataKind::kPtb, "a\n\nb"), "a  b");
  EXPECT_EQ(Load(DataKind::kPtb, "\u00a0a b\u3000\x1c\r\n\u2028c\n"), "a b c");
  EXPECT_EQ(Load(DataKind::kPtb, "a\rb"), "a b");
  EXPECT_EQ(Load(DataKind::kPtb, "\u00e0\n\u20ac"), "\u00e0 \u20ac");  // their last bytes are those of blanks
}

TEST_F(DatasetsTest, C4JoinsTheTextsOfDocuments) {
  EXPECT_EQ(Load(DataKind::kC4, R"({"text":"a\nb \u00e9"}
{"url":"x","meta":{"text":"no","list":[{"text":1}]},"text":"second","n":1.5e3,"t":null}

  {"text": "third"}  )"),
            "a\nb \u00e9 second third");
  EXPECT_EQ(Load(DataKind::kC4, "{\"text\":\"a\"}\r\n{\"text\":\"\"}\r\n{\"text\":\"b\"}\r\n"), "a  b");
  EXPECT_EQ(Load(DataKind::kC4, R"({"text":"first","text":"last"})"), "last");
}

TEST_F(DatasetsTest, TextIsTheFile) {
  EXPECT_EQ(Load(DataKind::kText, " a\r\n\n b \n"), " a\r\n\n b \n");
  const std::string with_zero("a\0b", 3);
  EXPECT_EQ(Load(DataKind::kText, with_zero), with_zero);
}

TEST_F(DatasetsTest, DecompressesByMagicBytes) {
  std::string text;
  for (int i = 0; i < 300000; ++i) text += std::to_string(i) + (i % 7 == 0 ? "\n" : " ");
  EXPECT_EQ(Load(DataKind::kText, Gzip(text)), text);
  EXPECT_EQ(Load(DataKind::kText, Zstd(text)), text);
  EXPECT_EQ(Load(DataKind::kText, Gzip("a\n") + Gzip("") + Gzip("b")), "a\nb");
  EXPECT_EQ(Load(DataKind::kText, Zstd("a\n") + Zstd("") + Zstd("b")), "a\nb");
  EXPECT_EQ(Load(DataKind::kC4, Gzip("{\"text\":\"a\"}\n{\"text\":\"b\"}")), "a b");
  const LoadedText loaded = LoadText({"x", DataKind::kC4, directory_ / "data", 1.0});
  EXPECT_EQ(loaded.fingerprint, Sha256Hex("a b"));  // of the text, whatever it came in
  EXPECT_EQ(loaded.content_fingerprint, Sha256Hex("{\"text\":\"a\"}\n{\"text\":\"b\"}"));
  EXPECT_EQ(loaded.file_bytes, fs::file_size(directory_ / "data"));
}

// pzstd begins with a frame that readers skip; zstd --long=31 asks for a window of 2 GiB; tapes and tar pad
// with zeros.
TEST_F(DatasetsTest, DecompressesWhatOtherToolsWrite) {
  using std::string_literals::operator""s;
  const std::string skippable = "\x50\x2a\x4d\x18\4\0\0\0abcd"s, other = "\x5f\x2a\x4d\x18\0\0\0\0"s;
  EXPECT_EQ(Load(DataKind::kText, skippable + Zstd("a text")), "a text");
  EXPECT_EQ(Load(DataKind::kText, other + skippable + Zstd("a ") + skippable + Zstd("text") + other),
            "a text");
  ExpectRefused(DataKind::kText, skippable, {"holds no text"});

  ZSTD_CCtx* const context = ZSTD_createCCtx();
  ASSERT_EQ(ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, 31)), 0u);
  std::string packed(1000, '\0');
  ZSTD_inBuffer in{"a text", 6, 0};
  ZSTD_outBuffer out{packed.data(), packed.size(), 0};
  ZSTD_compressStream2(context, &out, &in, ZSTD_e_continue);  // so that the length is not known in front
  ASSERT_EQ(ZSTD_compressStream2(context, &out, &in, ZSTD_e_end), 0u);
  ZSTD_freeCCtx(context);
  packed.resize(out.pos);
  EXPECT_EQ(Load(DataKind::kText, packed), "a text");

  EXPECT_EQ(Load(DataKind::kText, Gzip("a text") + std::string(512, '\0')), "a text");
  EXPECT_EQ(Load(DataKind::kText, Gzip("a ") + Gzip("text") + std::string(1, '\0')), "a text");
  ExpectRefused(DataKind::kText, Gzip("a") + std::string(8, '\0') + Gzip("b"),
                {"bytes follow the gzip data"});
}

TEST_F(DatasetsTest, NamesWhatIsNoText) {
  using std::string_literals::operator""s;
  const std::string rest(100, '\1');
  const std::pair<std::string, const char*> cases[] = {
      {"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n", "is a Git LFS pointer"},
      {"\xfd"
       "7zXZ\0"s +
           rest,
       "is xz data"},
      {"PK\3\4" + rest, "is a zip archive"},
      {"BZh91AY&SY" + rest, "is bzip2 data"},
      {"PAR1\x15" + rest, "is a Parquet file"},
      {"ARROW1\0\0"s + rest, "is an Arrow file"},
      {"%PDF-1.7\n" + rest, "is a PDF document"},
      {"a\0 \0w\0o\0r\0d\0"s, "convert it with iconv -f UTF-16LE -t UTF-8"},
      {"\0a\0 \0w\0o\0r\0d"s, "convert it with iconv -f UTF-16BE -t UTF-8"},
      {"\xff\xfe"
       "a\0 \0"s,
       "is UTF-16LE text"},
  };
  for (const auto& [content, name] : cases) {
    for (const DataKind kind : {DataKind::kWikitext2, DataKind::kC4, DataKind::kText}) {
      ExpectRefused(kind, content, {name});
      ExpectRefused(kind, Gzip(content), {name});
    }
  }
  for (const DataKind kind : {DataKind::kWikitext2, DataKind::kPtb, DataKind::kC4})
    ExpectRefused(kind, "<!DOCTYPE html>\n<html>", {"is an HTML page", "error page of a server"});
}

TEST_F(DatasetsTest, WarnsOfWhatIsMeasuredThoughHardlyMeant) {
  const auto said = [&](DataKind kind, const std::string& content, const std::string& text) {
    WriteBytes(directory_ / "data", content);
    testing::internal::CaptureStderr();
    EXPECT_EQ(LoadText({"x", kind, directory_ / "data", 1.0}).text, text);
    return testing::internal::GetCapturedStderr();
  };
  using testing::HasSubstr;
  EXPECT_EQ(said(DataKind::kText, "a\nb\n", "a\nb\n"), "");
  EXPECT_THAT(said(DataKind::kText, "a\r\nb\r\n", "a\r\nb\r\n"), HasSubstr("line ends of Windows"));
  EXPECT_EQ(said(DataKind::kText, "a\r\nb\r\n", "a\r\nb\r\n"), "");  // said before
  EXPECT_EQ(said(DataKind::kPtb, "a\r\nb\r\n", "a b"), "");
  EXPECT_THAT(said(DataKind::kText, "<html>", "<html>"), HasSubstr("is an HTML page"));
}

TEST_F(DatasetsTest, AByteOrderMarkIsNoText) {
  const std::string mark = "\xef\xbb\xbf";
  for (const DataKind kind : {DataKind::kText, DataKind::kPtb, DataKind::kWikitext2, DataKind::kC4}) {
    const std::string content = kind == DataKind::kC4 ? "{\"text\":\"a\"}\n" : "a\nb\n";
    for (const std::string& file : {mark + content, Gzip(mark + content)}) {
      WriteBytes(directory_ / "plain", content);
      WriteBytes(directory_ / "marked", file);
      testing::internal::CaptureStderr();
      const LoadedText plain = LoadText({"x", kind, directory_ / "plain", 1.0});
      const LoadedText marked = LoadText({"x", kind, directory_ / "marked", 1.0});
      EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
      EXPECT_EQ(marked.text, plain.text);
      EXPECT_EQ(marked.fingerprint, plain.fingerprint);
    }
  }
  WriteBytes(directory_ / "inside", "a" + mark + "b");
  EXPECT_EQ(LoadText({"x", DataKind::kText, directory_ / "inside", 1.0}).text, "a" + mark + "b");
  ExpectRefused(DataKind::kText, mark, {"holds no text"});
}

TEST_F(DatasetsTest, RefusesDamagedCompression) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += std::to_string(i * i) + " ";
  for (const std::string& packed : {Gzip(text), Zstd(text)}) {
    for (const size_t length : {packed.size() - 1, packed.size() / 2, size_t{10}, size_t{4}}) {
      ExpectRefused(DataKind::kText, packed.substr(0, length), {"end too early"});
    }
  }
  std::string gzip = Gzip(text);
  gzip[gzip.size() - 8] ^= 1;
  ExpectRefused(DataKind::kText, gzip, {"gzip data are corrupted"});
  ExpectRefused(DataKind::kText, Gzip(text) + "tail", {"4 bytes follow the gzip data"});
  std::string zstd = Zstd(text);
  zstd[5] ^= 0x55;
  EXPECT_THROW(Load(DataKind::kText, zstd), Error);
  ExpectRefused(DataKind::kText, Zstd(text) + "tail", {"Zstandard data cannot be decompressed"});
}

TEST_F(DatasetsTest, NamesWhatIsWrong) {
  ExpectError(
      [] {
        LoadText({"x", DataKind::kText, "/nonexistent/a.txt", 1.0});
      },
      {"/nonexistent/a.txt", "cannot be opened"});
  ExpectError([&] { LoadText({"x", DataKind::kText, directory_.path(), 1.0}); }, {"not a regular file"});
  for (const DataKind kind : {DataKind::kWikitext2, DataKind::kPtb, DataKind::kC4, DataKind::kText}) {
    ExpectRefused(kind, "", {"is empty"});
    ExpectRefused(kind, " \n\n\t\u3000\n", {"holds no text"});
    ExpectRefused(kind, Gzip(""), {"holds no text"});
    ExpectRefused(kind, "good\n\xc3\x28", {"not UTF-8 at byte 5 (0xc3)"});
  }
  ExpectRefused(DataKind::kC4, "{\"text\":\"a\"}\n\n{\"text\":\n", {"line 3", "not valid JSON"});
  ExpectRefused(DataKind::kC4, "{\"text\":\"a\"}\nplain text\n", {"line 2", "not valid JSON"});
  ExpectRefused(DataKind::kC4, "{\"text\":\"a\"} {\"text\":\"b\"}\n", {"line 1", "not valid JSON"});
  ExpectRefused(DataKind::kC4, "{\"text\":\"a\"}\n{\"txt\":\"b\"}\n",
                {"line 2", "without a string \"text\""});
  ExpectRefused(DataKind::kC4, "{\"text\":7}\n", {"line 1", "without a string \"text\""});
  ExpectRefused(DataKind::kC4, "{\"text\":[\"a\"]}\n", {"line 1", "without a string \"text\""});
  ExpectRefused(DataKind::kC4, "[\"text\"]\n", {"line 1", "not a JSON object"});
  ExpectRefused(DataKind::kC4, "{\"text\":\"\\ud800\"}\n", {"line 1", "not valid JSON"});
  ExpectRefused(DataKind::kC4, "{\"text\":\"\"}\n", {"holds no text"});
}

TEST(DataSpecTest, Parses) {
  const DataSpec plain = ParseDataSpec("wikitext2=/data/wiki.raw");
  EXPECT_EQ(plain.name, "wikitext2");
  EXPECT_EQ(plain.kind, DataKind::kWikitext2);
  EXPECT_EQ(plain.path, "/data/wiki.raw");
  EXPECT_EQ(plain.weight, 1.0);
  const DataSpec named = ParseDataSpec("c4-short:c4=a=b:0.5");
  EXPECT_EQ(named.name, "c4-short");
  EXPECT_EQ(named.kind, DataKind::kC4);
  EXPECT_EQ(named.path, "a=b:0.5");
  const DataSpec weighted = ParseDataSpec("ptb=C:/x.txt:0.25", true);
  EXPECT_EQ(weighted.path, "C:/x.txt");
  EXPECT_EQ(weighted.weight, 0.25);
  EXPECT_EQ(ParseDataSpec("ptb=C:/x.txt", true).path, "C:/x.txt");
  for (const DataKind kind : {DataKind::kWikitext2, DataKind::kPtb, DataKind::kC4, DataKind::kText}) {
    EXPECT_EQ(ParseDataSpec(std::string(DataKindName(kind)) + "=f").kind, kind);
  }
}

TEST_F(DatasetsTest, AFileWithAColonInItsNameIsFound) {
  const std::filesystem::path path = directory_ / "t:2";
  WriteBytes(path, "text");
  EXPECT_EQ(ParseDataSpec("text=" + path.string(), true).path, path);
  EXPECT_EQ(ParseDataSpec("text=" + path.string(), true).weight, 1.0);
  const DataSpec weighted = ParseDataSpec("text=" + path.string() + ":3", true);
  EXPECT_EQ(weighted.path, path);
  EXPECT_EQ(weighted.weight, 3.0);
  EXPECT_EQ(ParseDataSpec("text=" + path.string()).path, path);
  std::filesystem::remove(path);
  EXPECT_EQ(ParseDataSpec("text=" + path.string(), true).weight, 2.0);
}

TEST(DataSpecTest, RefusesOtherForms) {
  ExpectError([] { ParseDataSpec("built-in"); }, {"'built-in'", "[NAME:]KIND=FILE"});
  ExpectError([] { ParseDataSpec("built-in=f", true); }, {"kind 'built-in'"});
  for (const char* weighted : {"built-in:0", "built-in:-1", "built-in:", "built-ins"})
    ExpectError([&] { ParseDataSpec(weighted, true); }, {weighted, "built-in[:WEIGHT]"});
  ExpectError([] { ParseDataSpec("wiki.raw"); }, {"'wiki.raw'", "[NAME:]KIND=FILE"});
  ExpectError([] { ParseDataSpec("c4="); }, {"'c4='"});
  ExpectError([] { ParseDataSpec("=f"); }, {"'=f'"});
  ExpectError([] { ParseDataSpec("wikitext103=f"); },
              {"kind 'wikitext103'", "expected wikitext2, ptb, c4 or text"});
  ExpectError([] { ParseDataSpec("a/b:c4=f"); }, {"name 'a/b'"});
  ExpectError([] { ParseDataSpec(":c4=f"); }, {"name ''"});
  ExpectError([] { ParseDataSpec("c4=f:0", true); }, {"weight 0"});
  ExpectError([] { ParseDataSpec("c4=f:-1", true); }, {"weight -1"});
  ExpectError([] { ParseDataSpec("c4=f:nan", true); }, {"weight nan"});
  ExpectError([] { ParseDataSpec("c4=:2", true); }, {"'c4=:2'", "[:WEIGHT]"});
}

// The texts beside the project, where they are.
TEST(DataSpecTest, PublishedTextsBeginAsTheyShould) {
  const char* data = std::getenv("MICA_DATA");
  if (data == nullptr || !fs::exists(fs::path(data) / "wikitext2.test.raw"))
    GTEST_SKIP() << "MICA_DATA is not set";
  const std::string wikitext2 =
      LoadText({"w", DataKind::kWikitext2, fs::path(data) / "wikitext2.test.raw", 1.0}).text;
  EXPECT_TRUE(wikitext2.starts_with("\n\n = Robert Boulter = \n\n\n\n\n Robert Boulter is"));
  const std::string ptb = LoadText({"p", DataKind::kPtb, fs::path(data) / "ptb.test.txt", 1.0}).text;
  EXPECT_TRUE(ptb.starts_with("no it was n't black monday but while the new york stock exchange"));
}

// Of a few megabytes and in many languages; the file that it was made from is the same text.
TEST(BuiltInText, IsPartOfTheProgram) {
  const DataSpec spec = ParseDataSpec("built-in", true);
  EXPECT_EQ(spec.kind, DataKind::kBuiltIn);
  EXPECT_EQ(spec.path, "built-in");
  EXPECT_EQ(ParseDataSpec("built-in:0.5", true).weight, 0.5);
  const LoadedText loaded = LoadText(spec);
  EXPECT_GT(loaded.text.size(), 3u << 20);
  EXPECT_LT(loaded.file_bytes, 2u << 20);
  for (const char* word : {"Elizabeth", "SELECT", "def __init__", " nicht ", " vous ", "软件", "これ", "что"})
    EXPECT_NE(loaded.text.find(word), std::string::npos) << word;
  for (const char* words : {"All rights reserved", "WITHOUT WARRANTY", "Project Gutenberg"})
    EXPECT_EQ(loaded.text.find(words), std::string::npos) << words;
  const LoadedText file =
      LoadText(MakeDataSpec("text", SourceDir() / "data" / "calibration.txt.zst"));
  EXPECT_EQ(file.fingerprint, loaded.fingerprint);
  EXPECT_EQ(file.content_fingerprint, loaded.content_fingerprint);
}

}  // namespace
}  // namespace mica
