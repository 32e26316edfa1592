#include "io/container/safetensors.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>
#include <unordered_set>

#include "base/error.h"
#include "base/file_kind.h"
#include "base/json.h"
#include "base/text.h"

namespace mica {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the reference implementation
constexpr std::string_view kMetadata = "__metadata__";

// A header entry as written, before it is checked against the file.
struct Entry {
  std::string name;
  std::optional<std::string> dtype;
  std::optional<std::vector<uint64_t>> shape, offsets;
};

// Reads the header as a stream of events: a document tree would keep only the last of two entries of one
// name, and a hostile header of 100 MB would become gigabytes of nodes.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(const std::string& file, std::vector<Entry>& entries,
               std::map<std::string, std::string>& metadata)
      : file_(file), entries_(entries), metadata_(metadata) {}

  bool start_object(size_t) override {
    if (depth_ == 2 || numbers_ != nullptr) Unexpected("an object");
    ++depth_;
    if (depth_ == 2 && !in_metadata_)
      entries_.push_back({.name = name_, .dtype = {}, .shape = {}, .offsets = {}});
    return true;
  }
  bool end_object() override {
    --depth_;
    return true;
  }
  bool key(string_t& key) override {
    if (depth_ == 1) {
      if (!names_.insert(key).second) Fail("{}: header names {} twice", file_, Printable(key));
      name_ = key;
      in_metadata_ = key == kMetadata;
    }
    key_ = key;
    return true;
  }
  bool string(string_t& value) override {
    if (depth_ == 2 && in_metadata_) {
      if (!metadata_.emplace(key_, value).second) Fail("{}: metadata names {} twice", file_, Printable(key_));
      return true;
    }
    if (depth_ != 2 || numbers_ != nullptr || key_ != "dtype") Unexpected("a string");
    if (entries_.back().dtype) Twice();
    entries_.back().dtype = value;
    return true;
  }
  bool start_array(size_t) override {
    const bool shape = key_ == "shape";
    if (depth_ != 2 || in_metadata_ || numbers_ != nullptr || (!shape && key_ != "data_offsets"))
      Unexpected("an array");
    std::optional<std::vector<uint64_t>>& target = shape ? entries_.back().shape : entries_.back().offsets;
    if (target) Twice();
    numbers_ = &target.emplace();
    return true;
  }
  bool end_array() override {
    numbers_ = nullptr;
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (numbers_ == nullptr) Unexpected("a number");
    numbers_->push_back(value);
    return true;
  }
  bool number_integer(number_integer_t value) override { Unexpected(fmt::format("the number {}", value)); }
  bool number_float(number_float_t, const string_t& text) override {
    Unexpected("the number " + Printable(text, 40));
  }
  bool null() override { Unexpected("null"); }
  bool boolean(bool) override { Unexpected("a boolean"); }
  bool binary(binary_t&) override { Unexpected("binary data"); }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& failure) override {
    Fail("{}: header is not valid JSON ({})", file_, JsonReason(failure));
  }

 private:
  [[noreturn]] void Twice() const {
    Fail("{}: header of tensor {} has two {}", file_, Printable(name_), key_);
  }
  [[noreturn]] void Unexpected(const std::string& what) const {
    if (depth_ == 0) Fail("{}: header is {}, expected an object of tensors", file_, what);
    if (in_metadata_) Fail("{}: metadata {} is {}, expected a string", file_, Printable(key_), what);
    if (depth_ == 1) Fail("{}: header entry {} is {}, expected an object", file_, Printable(name_), what);
    Fail(
        "{}: header of tensor {} has {} in {}, expected dtype (a string), shape and data_offsets (whole "
        "numbers)",
        file_, Printable(name_), what, Printable(key_));
  }

  const std::string& file_;
  std::vector<Entry>& entries_;
  std::map<std::string, std::string>& metadata_;
  std::unordered_set<std::string> names_;
  int depth_ = 0;
  bool in_metadata_ = false;
  std::string name_, key_;
  std::vector<uint64_t>* numbers_ = nullptr;
};

TensorView CheckEntry(const Entry& entry, std::span<const std::byte> data, const std::string& file) {
  const std::string name = Printable(entry.name);
  const auto missing = [&](const char* key) { Fail("{}: header of tensor {} has no {}", file, name, key); };
  if (!entry.dtype) missing("dtype");
  if (!entry.shape) missing("shape");
  if (!entry.offsets) missing("data_offsets");
  const std::optional<DType> dtype = DTypeFromName(*entry.dtype);
  if (!dtype) {
    Fail("{}: tensor {} has dtype {}, which is not supported (F64, F32, F16, BF16, integers and BOOL are)",
         file, name, Printable(*entry.dtype, 40));
  }
  if (entry.offsets->size() != 2) {
    Fail("{}: tensor {} has {} data_offsets, expected 2", file, name, entry.offsets->size());
  }
  const uint64_t begin = (*entry.offsets)[0], end = (*entry.offsets)[1];
  if (begin > end || end > data.size()) {
    Fail(
        "{}: tensor {} has data_offsets [{}, {}], but the file holds {} bytes of data; it is truncated or "
        "corrupted",
        file, name, begin, end, data.size());
  }
  const std::optional<uint64_t> bytes = ShapeBytes(*entry.shape, DTypeBytes(*dtype));
  if (!bytes) {
    Fail("{}: tensor {} has shape {}, which is more than a file can hold", file, name,
         Printable(ShapeText(*entry.shape)));
  }
  if (*bytes != end - begin) {
    Fail("{}: tensor {} has {} bytes of data, expected {} for {} {}", file, name, end - begin, *bytes,
         *entry.dtype, Printable(ShapeText(*entry.shape)));
  }
  return {entry.name, *dtype, *entry.shape, data.subspan(begin, end - begin), file};
}

}  // namespace

SafetensorsFile ParseSafetensors(std::span<const std::byte> bytes, const std::string& file) {
  uint64_t header_bytes = 0;
  const auto refuse_other_kind = [&] {
    const size_t known = std::min(bytes.size(), kRecognisedBytes);
    RefuseOtherKind({reinterpret_cast<const char*>(bytes.data()), known}, file, kSafetensorsFile);
  };
  if (bytes.size() < sizeof(header_bytes)) {
    refuse_other_kind();
    Fail("{}: is {} bytes long, too short for a safetensors file; it is truncated, fetch it again", file,
         bytes.size());
  }
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  if (header_bytes > kMaxHeaderBytes) {
    refuse_other_kind();
    Fail(
        "{}: header length is {} bytes, expected at most {}; this is not a safetensors file or it is "
        "corrupted",
        file, header_bytes, kMaxHeaderBytes);
  }
  if (bytes.size() > sizeof(header_bytes) && bytes[sizeof(header_bytes)] != std::byte{'{'})
    refuse_other_kind();
  if (header_bytes > bytes.size() - sizeof(header_bytes)) {
    Fail("{}: is {} bytes long, but its header alone has {}; it is truncated, fetch it again", file,
         bytes.size(), header_bytes);
  }
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + sizeof(header_bytes),
                                header_bytes);
  if (header.empty() || header.front() != '{')
    Fail("{}: header does not begin with '{{'; this is not a safetensors file", file);

  SafetensorsFile result;
  std::vector<Entry> entries;
  HeaderReader reader(file, entries, result.metadata);
  MICA_CHECK(nlohmann::json::sax_parse(header.begin(), header.end(), &reader));

  result.header = bytes.first(sizeof(header_bytes) + header_bytes);
  const std::span<const std::byte> data = bytes.subspan(result.header.size());
  // What the header asks for is said of the whole file before it is said of one tensor; beyond 2^48 it is
  // nonsense, and CheckEntry names the tensor.
  const Entry* last = nullptr;
  for (const Entry& entry : entries) {
    if (!entry.offsets || entry.offsets->size() != 2 || (*entry.offsets)[1] >= uint64_t{1} << 48) continue;
    if (last == nullptr || (*entry.offsets)[1] > (*last->offsets)[1]) last = &entry;
  }
  if (last != nullptr && (*last->offsets)[1] > data.size()) {
    Fail(
        "{}: is {} bytes long, but its header needs {} (tensor {} has data_offsets [{}, {}]); it is "
        "truncated, fetch "
        "it again",
        file, bytes.size(), result.header.size() + (*last->offsets)[1], Printable(last->name),
        (*last->offsets)[0], (*last->offsets)[1]);
  }
  result.tensors.reserve(entries.size());
  for (const Entry& entry : entries) result.tensors.push_back(CheckEntry(entry, data, file));
  const auto begin_of = [&](const TensorView& tensor) {
    return static_cast<uint64_t>(tensor.data.data() - data.data());
  };
  std::stable_sort(result.tensors.begin(), result.tensors.end(),
                   [&](const TensorView& a, const TensorView& b) {
                     return std::pair(begin_of(a), a.data.size()) < std::pair(begin_of(b), b.data.size());
                   });

  uint64_t covered = 0;
  std::string previous;
  for (const TensorView& tensor : result.tensors) {
    const uint64_t begin = begin_of(tensor);
    if (begin < covered) {
      Fail("{}: tensor {} begins at data offset {} inside tensor {}, which ends at {}", file,
           Printable(tensor.name), begin, previous, covered);
    }
    if (begin > covered) {
      Fail("{}: {} bytes before tensor {} at data offset {} belong to no tensor", file, begin - covered,
           Printable(tensor.name), begin);
    }
    covered = begin + tensor.data.size();
    previous = Printable(tensor.name);
  }
  if (covered != data.size()) {
    Fail("{}: {} bytes after the last tensor belong to no tensor; the file is longer than its header says",
         file, data.size() - covered);
  }
  return result;
}

SafetensorsFile OpenSafetensors(const std::filesystem::path& path) {
  std::shared_ptr<MappedFile> map = MappedFile::Open(path);
  SafetensorsFile result = ParseSafetensors(map->bytes(), path.string());
  result.map = std::move(map);
  return result;
}

uint64_t SpecBytes(const TensorSpec& spec) {
  const std::optional<uint64_t> bytes = ShapeBytes(spec.shape, DTypeBytes(spec.dtype));
  if (!bytes)
    Fail("tensor {} with shape {} is more than a file can hold", Printable(spec.name), ShapeText(spec.shape));
  return *bytes;
}

namespace {

// The header as it stands in a file: length, text, padding. Sets data_bytes to what it announces.
std::string HeaderText(const std::vector<TensorSpec>& specs,
                       const std::map<std::string, std::string>& metadata, const std::string& where,
                       uint64_t& data_bytes) {
  Json header = Json::object();
  if (!metadata.empty()) header[std::string(kMetadata)] = metadata;
  std::unordered_set<std::string> names;
  data_bytes = 0;
  for (const TensorSpec& spec : specs) {
    MICA_CHECK(names.insert(spec.name).second);
    const uint64_t begin = data_bytes;
    data_bytes += SpecBytes(spec);
    header[spec.name] = {
        {"dtype", DTypeName(spec.dtype)}, {"shape", spec.shape}, {"data_offsets", {begin, data_bytes}}};
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception& failure) {
    Fail("{}: cannot be written: a tensor's name or the metadata is not UTF-8 ({})", where,
         JsonReason(failure));
  }
  uint64_t length = text.size();
  text.append((64 - (sizeof(length) + length) % 64) % 64, ' ');
  length = text.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + text;
}

}  // namespace

uint64_t SafetensorsHeaderBytes(const std::vector<TensorSpec>& specs,
                                const std::map<std::string, std::string>& metadata) {
  uint64_t data_bytes = 0;
  return HeaderText(specs, metadata, "header", data_bytes).size();
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> specs,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path) {
  file_.Write(HeaderText(specs, metadata, path.string(), data_bytes_));
  header_bytes_ = file_.bytes_written();
}

void SafetensorsWriter::Write(std::span<const std::byte> bytes) {
  MICA_CHECK(bytes.size() <= file_bytes() - file_.bytes_written());
  file_.Write(bytes.data(), bytes.size());
}

void SafetensorsWriter::Commit() {
  MICA_CHECK(file_.bytes_written() == file_bytes());
  file_.Commit();
}

}  // namespace mica
