#include "io/text/datasets.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "base/error.h"
#include "base/file.h"
#include "base/file_kind.h"
#include "base/json.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/system.h"
#include "base/text.h"
#include "base/units.h"
#include "io/text/built_in_text.h"

namespace mica {
namespace {

constexpr uint64_t kMaxTextBytes = uint64_t{8} << 30;
constexpr size_t kBlockBytes = size_t{1} << 20;

struct KindName {
  DataKind kind;
  const char* name;
};
constexpr KindName kKinds[] = {
    {DataKind::kWikitext2, "wikitext2"},
    {DataKind::kPtb, "ptb"},
    {DataKind::kC4, "c4"},
    {DataKind::kText, "text"},
};  // those that files may be of

// Text as it grows; refuses to grow beyond what a file may hold.
class BoundedText {
 public:
  explicit BoundedText(const std::string& where) : where_(where) {}
  void Append(std::string_view more) {
    if (more.size() > kMaxTextBytes - text_.size()) {
      Fail("{}: holds more than {} bytes once decompressed; split it", where_, kMaxTextBytes);
    }
    text_ += more;
  }
  std::string Take() { return std::move(text_); }

 private:
  const std::string& where_;
  std::string text_;
};

std::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

constexpr std::string_view kGzipMagic = "\x1f\x8b";
constexpr std::string_view kZstdMagic = "\x28\xb5\x2f\xfd";

// Whether a skippable frame of Zstandard begins here: one of sixteen signatures, and its length (pzstd writes
// such, and tools that keep an index in the file).
bool IsSkippableFrame(std::string_view input) {
  return input.size() >= 8 && (static_cast<uint8_t>(input[0]) & 0xF0) == 0x50 &&
         input.substr(1, 3) == "\x2a\x4d\x18";
}

// All members of a gzip file, one after the other. Zero bytes behind the last one are padding (of tar, of
// tapes) and are passed over, as gzip does.
std::string Gunzip(std::span<const std::byte> input, const std::string& where) {
  z_stream stream{};
  MICA_CHECK(inflateInit2(&stream, 15 + 16) == Z_OK);  // largest window, gzip header
  const std::unique_ptr<z_stream, decltype(&inflateEnd)> guard(&stream, inflateEnd);
  BoundedText text(where);
  std::string block(kBlockBytes, '\0');
  bool ended = false;
  while (!input.empty() || !ended) {
    if (ended) {
      if (std::all_of(input.begin(), input.end(), [](std::byte byte) { return byte == std::byte{0}; })) break;
      if (!AsText(input).starts_with(kGzipMagic.substr(0, std::min(kGzipMagic.size(), input.size())))) {
        Fail("{}: {} bytes follow the gzip data that are neither gzip data nor zeros; the file is damaged",
             where, input.size());
      }
      inflateReset(&stream);
      ended = false;
    }
    const size_t given = std::min<size_t>(input.size(), kBlockBytes);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(input.data()));
    stream.avail_in = static_cast<uInt>(given);
    stream.next_out = reinterpret_cast<Bytef*>(block.data());
    stream.avail_out = static_cast<uInt>(block.size());
    const int status = inflate(&stream, Z_NO_FLUSH);
    input = input.subspan(given - stream.avail_in);
    text.Append(std::string_view(block).substr(0, block.size() - stream.avail_out));
    if (status == Z_STREAM_END) {
      ended = true;
    } else if (status == Z_BUF_ERROR) {
      Fail("{}: the gzip data end too early; the file is truncated, fetch it again", where);
    } else if (status != Z_OK) {
      Fail("{}: the gzip data are corrupted ({}); fetch the file again", where,
           stream.msg != nullptr ? stream.msg : "unknown fault");
    }
  }
  return text.Take();
}

// Bytes of the window that decoding the frame at the front of `input` takes (RFC 8878, 3.1.1.1), 0 when the
// header is not whole.
uint64_t WindowBytes(std::span<const std::byte> input) {
  constexpr size_t kDescriptor = 4;
  if (input.size() < kDescriptor + 2 || !AsText(input).starts_with(kZstdMagic)) return 0;
  const bool single_segment = (static_cast<uint8_t>(input[kDescriptor]) & 0x20) != 0;
  if (single_segment) return 0;  // as large as the text at most
  const uint8_t window = static_cast<uint8_t>(input[kDescriptor + 1]);
  const uint64_t base = uint64_t{1} << (10 + (window >> 3));
  return base + base / 8 * (window & 7);
}

// All frames of a Zstandard file, whatever their window (zstd --long=31), as far as there is memory for it.
std::string Unzstd(std::span<const std::byte> input, const std::string& where) {
  const std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context(ZSTD_createDCtx(), ZSTD_freeDCtx);
  MICA_CHECK(context != nullptr);
  const ZSTD_bounds window = ZSTD_dParam_getBounds(ZSTD_d_windowLogMax);
  ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, window.upperBound);
  const auto check_window = [&](size_t at) {
    const uint64_t needed = WindowBytes(input.subspan(at)), available = AvailableMemoryBytes();
    if (needed <= available) return;
    Fail(
        "{}: its Zstandard window takes {} of memory, {} are free; decompress it first with zstd -d "
        "--long=31",
        where, FormatBytes(static_cast<double>(needed)), FormatBytes(static_cast<double>(available)));
  };
  BoundedText text(where);
  std::string block(kBlockBytes, '\0');
  ZSTD_inBuffer in{input.data(), input.size(), 0};
  size_t wanted = 0;  // 0 at the end of a frame
  do {
    if (wanted == 0) check_window(in.pos);
    ZSTD_outBuffer out{block.data(), block.size(), 0};
    const size_t before = in.pos;
    wanted = ZSTD_decompressStream(context.get(), &out, &in);
    if (ZSTD_isError(wanted) != 0) {
      Fail("{}: the Zstandard data cannot be decompressed ({}); fetch the file again", where,
           ZSTD_getErrorName(wanted));
    }
    text.Append(std::string_view(block).substr(0, out.pos));
    if (wanted != 0 && out.pos == 0 && in.pos == before)
      Fail("{}: the Zstandard data end too early; the file is truncated, fetch it again", where);
  } while (in.pos < in.size || wanted != 0);
  return text.Take();
}

std::string Decompress(std::span<const std::byte> bytes, const std::string& where) {
  const std::string_view raw = AsText(bytes);
  if (raw.starts_with(kGzipMagic)) return Gunzip(bytes, where);
  if (raw.starts_with(kZstdMagic) || IsSkippableFrame(raw)) return Unzstd(bytes, where);
  BoundedText text(where);
  text.Append(raw);
  return text.Take();
}

constexpr std::string_view kByteOrderMark =
    "\xef\xbb\xbf";  // says that UTF-8 follows, and is none of the text

// Throws Error naming what is no text of that kind; warns of what is, but hardly the text that was meant.
void CheckIsText(std::string_view text, DataKind kind, const std::string& where) {
  const std::optional<FileKind> file = RecogniseFile(text);
  if (file && !text.empty()) {
    const std::string expected = fmt::format("a text of kind {}", DataKindName(kind));
    if (!file->is_text) RefuseOtherKind(text, where, expected);
    if (file->is_markup && kind != DataKind::kText) RefuseOtherKind(text, where, expected);
    if (file->is_markup) LogWarningOnce("{}: is {}; {}", where, file->name, file->advice);
  }
  if (const size_t at = FirstInvalidUtf8(text); at != std::string::npos) {
    Fail("{}: is not UTF-8 at byte {} (0x{:02x}); convert it first (iconv -f ENCODING -t UTF-8)", where, at,
         static_cast<unsigned>(static_cast<uint8_t>(text[at])));
  }
  const size_t first = text.find('\n');
  if (kind == DataKind::kText && first != std::string_view::npos && first > 0 && text[first - 1] == '\r') {
    LogWarningOnce(
        "{}: has line ends of Windows (CR LF), each measured as two characters; convert them with dos2unix "
        "or sed 's/\\r$//'",
        where);
  }
}

// Bytes of the white-space character (as Python's str.isspace defines it) at the start of valid UTF-8 text,
// or 0.
size_t LeadingSpace(std::string_view text) {
  if (text.empty()) return 0;
  const uint8_t first = static_cast<uint8_t>(text[0]);
  if ((first >= 0x09 && first <= 0x0D) || (first >= 0x1C && first <= 0x20)) return 1;
  if (text.starts_with("\u0085") || text.starts_with("\u00a0")) return 2;
  if (text.size() < 3 || first < 0xE1 || first > 0xE3) return 0;
  const uint32_t code = (first & 0x0Fu) << 12 | (static_cast<uint8_t>(text[1]) & 0x3Fu) << 6 |
                        (static_cast<uint8_t>(text[2]) & 0x3Fu);
  const bool space = code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
                     code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
  return space ? 3 : 0;
}

size_t TrailingSpace(std::string_view text) {
  for (size_t count = 1; count <= std::min<size_t>(3, text.size()); ++count) {
    if (LeadingSpace(text.substr(text.size() - count)) == count) return count;
  }
  return 0;
}

std::string_view Strip(std::string_view text) {
  while (const size_t count = LeadingSpace(text)) text.remove_prefix(count);
  while (const size_t count = TrailingSpace(text)) text.remove_suffix(count);
  return text;
}

// Calls `use` with each line without its end, and whether it had one. Ends are "\n", "\r\n" and "\r", as for
// text files in Python, with which the published data sets were read.
template <typename Use>
void ForEachLine(std::string_view text, const Use& use) {
  while (!text.empty()) {
    const size_t end = text.find_first_of("\r\n");
    if (end == std::string_view::npos) return use(text, false);
    use(text.substr(0, end), true);
    text.remove_prefix(text.substr(end).starts_with("\r\n") ? end + 2 : end + 1);
  }
}

std::string JoinRows(std::string_view text) {
  std::string joined;
  bool first = true;
  ForEachLine(text, [&](std::string_view line, bool has_end) {
    if (!first) joined += "\n\n";
    first = false;
    if (Strip(line).empty()) return;
    joined += line;
    if (has_end) joined += '\n';
  });
  return joined;
}

std::string JoinSentences(std::string_view text) {
  std::string joined;
  bool first = true;
  ForEachLine(text, [&](std::string_view line, bool) {
    if (!first) joined += ' ';
    first = false;
    joined += Strip(line);
  });
  return joined;
}

// Takes the string "text" out of one JSON object without building it, whatever else is in it.
class TextReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::optional<std::string> text;
  std::string fault;
  bool is_object = false;

  bool start_object(size_t) override {
    is_object = is_object || depth_ == 0;
    return Enter();
  }
  bool start_array(size_t) override { return Enter(); }
  bool end_object() override { return Leave(); }
  bool end_array() override { return Leave(); }
  bool key(string_t& key) override {
    wanted_ = depth_ == 1 && key == "text";
    return true;
  }
  bool string(string_t& value) override {
    if (wanted_) text = std::move(value);
    return Other();
  }
  bool null() override { return Other(); }
  bool boolean(bool) override { return Other(); }
  bool number_integer(number_integer_t) override { return Other(); }
  bool number_unsigned(number_unsigned_t) override { return Other(); }
  bool number_float(number_float_t, const string_t&) override { return Other(); }
  bool binary(binary_t&) override { return Other(); }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& failure) override {
    fault = JsonReason(failure);
    return false;
  }

 private:
  bool Enter() {
    wanted_ = false;
    ++depth_;
    return true;
  }
  bool Leave() {
    --depth_;
    return true;
  }
  bool Other() {
    wanted_ = false;
    return true;
  }
  int depth_ = 0;
  bool wanted_ = false;  // the next value is the top object's "text"
};

std::string JoinDocuments(std::string_view lines, const std::string& where) {
  std::string joined;
  bool first = true;
  for (size_t number = 1; !lines.empty(); ++number) {
    const size_t end = std::min(lines.find('\n'), lines.size());
    const std::string_view line = lines.substr(0, end);
    lines.remove_prefix(std::min(end + 1, lines.size()));
    if (Strip(line).empty()) continue;
    TextReader reader;
    if (!nlohmann::json::sax_parse(line.begin(), line.end(), &reader)) {
      Fail("{}: line {} is not valid JSON ({}); expected one object with a \"text\" on each line", where,
           number, reader.fault);
    }
    if (!reader.is_object || !reader.text) {
      Fail("{}: line {} is {}; expected {{\"text\": \"...\"}}", where, number,
           reader.is_object ? "an object without a string \"text\"" : "not a JSON object");
    }
    if (!first) joined += ' ';
    first = false;
    joined += *reader.text;
  }
  return joined;
}

std::optional<double> ParseWeight(std::string_view text) {
  double weight = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), weight);
  if (code != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return weight;
}

}  // namespace

const char* DataKindName(DataKind kind) {
  if (kind == DataKind::kBuiltIn) return kBuiltInText;
  for (const KindName& known : kKinds) {
    if (known.kind == kind) return known.name;
  }
  MICA_CHECK(false);
  return "";
}

void CheckDataName(const std::string& name, const std::string& where) {
  if (!IsLabel(name)) Fail("{} has the name '{}', expected {}", where, Printable(name), kLabelRule);
}

DataSpec MakeDataSpec(const std::string& kind, const std::string& path,
                      const std::optional<std::string>& name) {
  DataSpec spec;
  spec.name = name.value_or(kind);
  spec.path = path;
  const auto known = std::find_if(std::begin(kKinds), std::end(kKinds),
                                  [&](const KindName& one) { return kind == one.name; });
  if (known == std::end(kKinds)) {
    Fail("data set '{}' has the kind '{}', expected wikitext2, ptb, c4 or text", Printable(path),
         Printable(kind));
  }
  spec.kind = known->kind;
  CheckDataName(spec.name, fmt::format("data set '{}'", Printable(path)));
  return spec;
}

DataSpec BuiltInText() {
  DataSpec spec;
  spec.name = kBuiltInText;
  spec.kind = DataKind::kBuiltIn;
  spec.path = kBuiltInText;
  return spec;
}

DataSpec ParseDataSpec(const std::string& argument, bool weighted) {
  if (weighted && argument.find('=') == std::string::npos && argument.starts_with(kBuiltInText)) {
    const std::string_view weight = std::string_view(argument).substr(BuiltInText().name.size());
    DataSpec spec = BuiltInText();
    if (weight.empty()) return spec;
    spec.weight = weight.starts_with(':') ? ParseWeight(weight.substr(1)).value_or(0) : 0;
    if (std::isfinite(spec.weight) && spec.weight > 0) return spec;
    Fail("data set '{}' is not of the form built-in[:WEIGHT] with a positive number", Printable(argument));
  }
  const std::string form = weighted ? "[NAME:]KIND=FILE[:WEIGHT]" : "[NAME:]KIND=FILE";
  const size_t equals = argument.find('='), colon = argument.substr(0, equals).rfind(':');
  if (equals == std::string::npos || equals == 0 || equals + 1 == argument.size()) {
    Fail("data set '{}' is not of the form {}", Printable(argument), form);
  }
  const std::string label = argument.substr(0, equals);
  std::string file = argument.substr(equals + 1);
  std::optional<double> weight;
  std::error_code code;
  if (weighted && !std::filesystem::exists(file, code)) {
    const size_t last = file.rfind(':');
    if (last != std::string::npos) weight = ParseWeight(std::string_view(file).substr(last + 1));
    if (weight) {
      if (!std::isfinite(*weight) || *weight <= 0) {
        Fail("data set '{}' has the weight {}, expected a positive number", Printable(argument), *weight);
      }
      file.resize(last);
      if (file.empty()) Fail("data set '{}' is not of the form {}", Printable(argument), form);
    }
  }
  DataSpec spec = colon == std::string::npos
                      ? MakeDataSpec(label, file)
                      : MakeDataSpec(label.substr(colon + 1), file, label.substr(0, colon));
  spec.weight = weight.value_or(1.0);
  return spec;
}

std::string TextOf(std::span<const std::byte> bytes, DataKind kind, const std::string& where,
                   LoadedText* loaded) {
  if (bytes.empty()) Fail("{}: is empty", where);
  std::string text = Decompress(bytes, where);
  if (loaded != nullptr) {
    loaded->content_fingerprint = Sha256Hex(text);
    loaded->lines = static_cast<uint64_t>(std::count(text.begin(), text.end(), '\n'));
  }
  CheckIsText(text, kind, where);
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  switch (kind) {
    case DataKind::kWikitext2:
      text = JoinRows(text);
      break;
    case DataKind::kPtb:
      text = JoinSentences(text);
      break;
    case DataKind::kC4:
      text = JoinDocuments(text, where);
      break;
    case DataKind::kText:
    case DataKind::kBuiltIn:
      break;
  }
  if (Strip(text).empty()) Fail("{}: holds no text", where);
  return text;
}

LoadedText LoadText(const DataSpec& spec) {
  LoadedText loaded;
  if (spec.kind == DataKind::kBuiltIn) {
    const std::span<const std::byte> bytes = BuiltInCalibrationText();
    loaded.file_bytes = bytes.size();
    loaded.text = TextOf(bytes, spec.kind, kBuiltInText, &loaded);
    loaded.fingerprint = Sha256Hex(loaded.text);
    return loaded;
  }
  const std::shared_ptr<MappedFile> file = MappedFile::Open(spec.path);
  loaded.file_bytes = file->size();
  loaded.text = TextOf(file->bytes(), spec.kind, spec.path.string(), &loaded);
  file->CheckUnchanged();
  loaded.fingerprint = Sha256Hex(loaded.text);
  return loaded;
}

}  // namespace mica
