#include "io/container/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>
#include <tuple>
#include <type_traits>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "base/file_kind.h"
#include "base/text.h"
#include "io/container/tensor.h"

namespace mica {
namespace {

static_assert(std::endian::native == std::endian::little,
              "numbers are read as they stand, so the machine must be little-endian");

constexpr std::string_view kMagic = "GGUF";
constexpr std::string_view kGgufFile = "a GGUF file";
constexpr std::string_view kAlignmentKey = "general.alignment";
constexpr uint32_t kWrittenVersion = 3;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint32_t kMaxExtents = 4;
constexpr uint64_t kMaxKeyBytes = 65535;  // by the format's description
constexpr uint64_t kMaxNameBytes = 64;    // of a tensor; the reference implementation takes one less
constexpr int kMaxNesting = 8;            // of arrays; files in use have none

constexpr size_t kValueTypes = std::variant_size_v<GgufValue>;
constexpr size_t kStringType = 8, kArrayType = 9;
constexpr const char* kValueTypeNames[] = {"UINT8",  "INT8",    "UINT16", "INT16",  "UINT32",
                                           "INT32",  "FLOAT32", "BOOL",   "STRING", "ARRAY",
                                           "UINT64", "INT64",   "FLOAT64"};
// What a value takes at least: the length of a string, the type and count of an array.
constexpr uint64_t kLeastBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
constexpr uint64_t kLeastKeyBytes = 8 + 4 + 1;         // length of the name, type, value
constexpr uint64_t kLeastTensorBytes = 8 + 4 + 4 + 8;  // length of the name, extents, type, offset
static_assert(std::size(kValueTypeNames) == kValueTypes && std::size(kLeastBytes) == kValueTypes);
static_assert(std::is_same_v<std::variant_alternative_t<kStringType, GgufValue>, std::string>);
static_assert(std::is_same_v<std::variant_alternative_t<kArrayType, GgufValue>, GgufArray>);

constexpr uint64_t AlignUp(uint64_t bytes, uint64_t alignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

// Calls visit(index constant) for a type number below kValueTypes.
template <size_t kIndex = 0, typename Visit>
void WithValueType(size_t type, const Visit& visit) {
  if constexpr (kIndex < kValueTypes) {
    if (type == kIndex)
      visit(std::integral_constant<size_t, kIndex>());
    else
      WithValueType<kIndex + 1>(type, visit);
  }
}

uint64_t AlignmentOf(const std::vector<GgufKey>& keys, const std::string& file) {
  const GgufValue* value = FindKey(keys, kAlignmentKey);
  if (value == nullptr) return kDefaultAlignment;
  const uint32_t* alignment = std::get_if<uint32_t>(value);
  if (alignment == nullptr) {
    Fail("{}: key {} has type {}, expected {}", file, kAlignmentKey, kValueTypeNames[value->index()],
         kValueTypeNames[4]);
  }
  if (!std::has_single_bit(*alignment))
    Fail("{}: key {} is {}, expected a power of two", file, kAlignmentKey, *alignment);
  return *alignment;
}

// Bytes of the tensor, or throws Error, `where` in front of it ("FILE: tensor NAME").
uint64_t CheckedBytes(const GgufTensorSpec& spec, const std::string& where) {
  const GgmlTypeFacts& facts = FactsOf(spec.type);
  const uint64_t cols = spec.shape.empty() ? 1 : spec.shape.back();
  if (cols % facts.block_cols != 0) {
    Fail("{} has shape {}, but rows of {} hold multiples of {} values", where, ShapeText(spec.shape),
         facts.name, facts.block_cols);
  }
  std::vector<uint64_t> blocks = spec.shape;
  if (!blocks.empty()) blocks.back() /= facts.block_cols;
  const std::optional<uint64_t> bytes = ShapeBytes(blocks, facts.block_bytes);
  // Extents beside one that is 0 are not bounded by the bytes.
  if (!bytes || !ShapeBytes(spec.shape, 1))
    Fail("{} has shape {}, which is more than a file can hold", where, ShapeText(spec.shape));
  return *bytes;
}

class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& file) : bytes_(bytes), file_(file) {}

  GgufFile Read() {
    GgufFile result;
    result.version = ReadVersion();
    const uint64_t tensors = ReadCount("tensors", kLeastTensorBytes);
    const uint64_t keys = ReadCount("keys", kLeastKeyBytes);
    ReadKeys(keys, result.keys);
    result.alignment = AlignmentOf(result.keys, file_);
    ReadTensors(tensors, result.alignment, result.tensors);
    PlaceTensors(result.alignment, result.tensors);
    return result;
  }

 private:
  uint64_t left() const { return bytes_.size() - at_; }

  std::span<const std::byte> Take(uint64_t count) {
    if (count > left()) {
      Fail("{}: is {} bytes long and ends inside {}; it is truncated, fetch it again", file_, bytes_.size(),
           where_);
    }
    const std::span<const std::byte> taken = bytes_.subspan(at_, count);
    at_ += count;
    return taken;
  }

  template <typename T>
  T Number() {
    T value;
    std::memcpy(&value, Take(sizeof(value)).data(), sizeof(value));
    return value;
  }

  std::string String(const char* what, uint64_t limit) {
    const uint64_t length = Number<uint64_t>();
    if (length > left()) {
      Fail("{}: {} has {} of {} bytes, but {} bytes of the file are left; it is truncated or corrupted",
           file_, where_, what, length, left());
    }
    if (length > limit) {
      Fail("{}: {} has {} of {} bytes, expected at most {}; the file is corrupted", file_, where_, what,
           length, limit);
    }
    const std::span<const std::byte> text = Take(length);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }

  uint32_t ReadVersion() {
    const size_t known = std::min(bytes_.size(), kRecognisedBytes);
    const std::string_view begin(reinterpret_cast<const char*>(bytes_.data()), known);
    if (!begin.starts_with(kMagic)) {
      RefuseOtherKind(begin, file_, kGgufFile);
      Fail("{}: does not begin with {}; this is not a GGUF file", file_, kMagic);
    }
    at_ = kMagic.size();
    where_ = "its header";
    const uint32_t version = Number<uint32_t>();
    if (version != 0 && (version & 0xFFFF) == 0) {
      Fail(
          "{}: is a big-endian GGUF file, expected a little-endian one; convert it with the tool that wrote "
          "it",
          file_);
    }
    if (version != 2 && version != 3)
      Fail("{}: is of version {} of GGUF, expected 2 or 3; convert it to version 3", file_, version);
    return version;
  }

  // A count of what takes at least `least` bytes each.
  uint64_t ReadCount(const char* what, uint64_t least) {
    const uint64_t count = Number<uint64_t>();
    if (count > left() / least) {
      Fail("{}: announces {} {}, but {} bytes of the file are left; it is truncated or corrupted", file_,
           count, what, left());
    }
    return count;
  }

  size_t ReadValueType() {
    const uint32_t type = Number<uint32_t>();
    if (type >= kValueTypes)
      Fail("{}: {} has a value of type {}, expected one below {}", file_, where_, type, kValueTypes);
    return type;
  }

  template <typename T>
  T ReadValue(int nesting) {
    if constexpr (std::is_same_v<T, std::string>) {
      return String("a string", std::numeric_limits<uint64_t>::max());
    } else if constexpr (std::is_same_v<T, GgufArray>) {
      return ReadArray(nesting + 1);
    } else if constexpr (std::is_same_v<T, bool>) {
      const uint8_t value = Number<uint8_t>();
      if (value > 1) Fail("{}: {} has a BOOL of {}, expected 0 or 1", file_, where_, value);
      return value != 0;
    } else {
      return Number<T>();
    }
  }

  GgufArray ReadArray(int nesting) {
    if (nesting > kMaxNesting)
      Fail("{}: {} has arrays in arrays, more than {} deep", file_, where_, kMaxNesting);
    const size_t type = ReadValueType();
    const uint64_t count = Number<uint64_t>();
    if (count > left() / kLeastBytes[type]) {
      Fail(
          "{}: {} has an array of {} values of type {}, but {} bytes of the file are left; it is truncated "
          "or "
          "corrupted",
          file_, where_, count, kValueTypeNames[type], left());
    }
    GgufArray array;
    WithValueType(type, [&](auto index) {
      using T = std::variant_alternative_t<index(), GgufValue>;
      auto& elements = array.elements.template emplace<index()>();
      elements.reserve(count);
      for (uint64_t i = 0; i < count; ++i) elements.push_back(ReadValue<T>(nesting));
    });
    return array;
  }

  void ReadKeys(uint64_t count, std::vector<GgufKey>& keys) {
    std::unordered_set<std::string> names;
    for (uint64_t i = 0; i < count; ++i) {
      where_ = fmt::format("key {} of {}", i + 1, count);
      GgufKey key{.name = String("a name", kMaxKeyBytes), .value = {}};
      if (!names.insert(key.name).second) Fail("{}: has key {} twice", file_, Printable(key.name));
      where_ = "key " + Printable(key.name);
      WithValueType(ReadValueType(), [&](auto index) {
        key.value.template emplace<index()>(ReadValue<std::variant_alternative_t<index(), GgufValue>>(0));
      });
      keys.push_back(std::move(key));
    }
  }

  void ReadTensors(uint64_t count, uint64_t alignment, std::vector<GgufTensor>& tensors) {
    std::unordered_set<std::string> names;
    for (uint64_t i = 0; i < count; ++i) {
      where_ = fmt::format("tensor {} of {}", i + 1, count);
      GgufTensor tensor;
      tensor.name = String("a name", kMaxNameBytes);
      if (!names.insert(tensor.name).second) Fail("{}: has tensor {} twice", file_, Printable(tensor.name));
      where_ = "tensor " + Printable(tensor.name);
      const uint32_t extents = Number<uint32_t>();
      if (extents > kMaxExtents)
        Fail("{}: {} has {} extents, expected at most {}", file_, where_, extents, kMaxExtents);
      tensor.shape.resize(extents);
      for (uint32_t k = extents; k-- > 0;) tensor.shape[k] = Number<uint64_t>();
      const uint32_t type = Number<uint32_t>();
      const GgmlTypeFacts* facts = FindGgmlType(type);
      if (facts == nullptr)
        Fail("{}: {} has type {}, which is not a type of GGUF files", file_, where_, type);
      tensor.type = facts->type;
      const uint64_t bytes = CheckedBytes(tensor, file_ + ": " + where_);
      if (extents > 0) tensor.cols = tensor.shape.back();
      for (uint32_t k = 0; k + 1 < extents; ++k) tensor.rows *= tensor.shape[k];
      const uint64_t offset = Number<uint64_t>();
      if (offset % alignment != 0)
        Fail("{}: {} has offset {}, expected a multiple of the alignment, {}", file_, where_, offset,
             alignment);
      names_.push_back(where_);
      places_.push_back({offset, bytes});
      tensors.push_back(std::move(tensor));
    }
  }

  // Gives the tensors their bytes: those from the next multiple of the alignment on.
  void PlaceTensors(uint64_t alignment, std::vector<GgufTensor>& tensors) {
    const uint64_t begin = AlignUp(at_, alignment);
    std::vector<size_t> order(tensors.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return std::tuple(places_[a].offset, places_[a].bytes, a) <
             std::tuple(places_[b].offset, places_[b].bytes, b);
    });
    const uint64_t data_bytes = bytes_.size() - std::min<uint64_t>(begin, bytes_.size());
    uint64_t end = 0;  // of the tensors before
    const std::string* previous = nullptr;
    for (const size_t i : order) {
      const auto [offset, bytes] = places_[i];
      if (offset > data_bytes || bytes > data_bytes - offset) {
        Fail(
            "{}: {} has {} bytes at data offset {}, but the file holds {} bytes of data; it is truncated or "
            "corrupted, fetch it again",
            file_, names_[i], bytes, offset, data_bytes);
      }
      if (offset < end) {
        Fail("{}: {} begins at data offset {} inside {}, which ends at {}", file_, names_[i], offset,
             *previous, end);
      }
      const uint64_t expected = AlignUp(end, alignment);
      if (offset > expected) {
        Fail("{}: {} bytes before {} at data offset {} belong to no tensor", file_, offset - expected,
             names_[i], offset);
      }
      if (bytes > 0) tensors[i].data = bytes_.subspan(begin + offset, bytes);
      end = offset + bytes;
      previous = &names_[i];
    }
    if (bytes_.size() > begin + AlignUp(end, alignment)) {
      Fail("{}: {} bytes after the last tensor belong to no tensor; the file is longer than its header says",
           file_, bytes_.size() - begin - AlignUp(end, alignment));
    }
  }

  struct Place {
    uint64_t offset, bytes;
  };

  std::span<const std::byte> bytes_;
  const std::string& file_;
  uint64_t at_ = 0;
  std::string where_;               // what is being read, for messages
  std::vector<std::string> names_;  // [tensors] for messages
  std::vector<Place> places_;       // [tensors] in the data
};

template <typename T>
void PutNumber(T value, std::string& out) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void PutString(std::string_view text, std::string& out) {
  PutNumber(uint64_t{text.size()}, out);
  out += text;
}

void PutArray(const GgufArray& array, std::string& out);

template <typename T>
void PutValue(const T& value, std::string& out) {
  if constexpr (std::is_same_v<T, std::string>) {
    PutString(value, out);
  } else if constexpr (std::is_same_v<T, GgufArray>) {
    PutArray(value, out);
  } else if constexpr (std::is_same_v<T, bool>) {
    PutNumber(static_cast<uint8_t>(value), out);
  } else {
    PutNumber(value, out);
  }
}

void PutArray(const GgufArray& array, std::string& out) {
  PutNumber(static_cast<uint32_t>(array.elements.index()), out);
  std::visit(
      [&](const auto& elements) {
        PutNumber(uint64_t{elements.size()}, out);
        using T = typename std::decay_t<decltype(elements)>::value_type;
        for (size_t i = 0; i < elements.size(); ++i) PutValue<T>(elements[i], out);
      },
      array.elements);
}

}  // namespace

const GgufValue* FindKey(const std::vector<GgufKey>& keys, std::string_view name) {
  const auto found =
      std::find_if(keys.begin(), keys.end(), [&](const GgufKey& key) { return key.name == name; });
  return found == keys.end() ? nullptr : &found->value;
}

const char* ValueTypeName(const GgufValue& value) { return kValueTypeNames[value.index()]; }

std::optional<int64_t> WholeNumberOf(const GgufValue& value) {
  return std::visit(
      [](const auto& number) -> std::optional<int64_t> {
        using T = std::decay_t<decltype(number)>;
        if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
          if (std::in_range<int64_t>(number)) return static_cast<int64_t>(number);
        }
        return std::nullopt;
      },
      value);
}

GgufFile ParseGguf(std::span<const std::byte> bytes, const std::string& file) {
  return Reader(bytes, file).Read();
}

GgufFile OpenGguf(const std::filesystem::path& path) {
  std::shared_ptr<MappedFile> map = MappedFile::Open(path);
  GgufFile result = ParseGguf(map->bytes(), path.string());
  result.map = std::move(map);
  return result;
}

uint64_t SpecBytes(const GgufTensorSpec& spec) {
  return CheckedBytes(spec, "tensor " + Printable(spec.name));
}

namespace {

// Everything before the first tensor's bytes, and how many those are with their padding.
struct Header {
  std::string text;
  std::vector<uint64_t> tensors;  // bytes of each
  uint64_t data_bytes = 0;
};

Header MakeHeader(const std::string& file, const std::vector<GgufTensorSpec>& specs,
                  const std::vector<GgufKey>& keys, uint64_t alignment) {
  Header made{.text = std::string(kMagic), .tensors = {}, .data_bytes = 0};
  std::string& header = made.text;
  PutNumber(kWrittenVersion, header);
  PutNumber(uint64_t{specs.size()}, header);
  PutNumber(uint64_t{keys.size()}, header);
  std::unordered_set<std::string> names;
  for (const GgufKey& key : keys) {
    MICA_CHECK(names.insert(key.name).second);
    if (key.name.size() > kMaxKeyBytes) {
      Fail("{}: cannot be written: key {} has a name of {} bytes, expected at most {}", file,
           Printable(key.name), key.name.size(), kMaxKeyBytes);
    }
    PutString(key.name, header);
    PutNumber(static_cast<uint32_t>(key.value.index()), header);
    std::visit([&](const auto& value) { PutValue(value, header); }, key.value);
  }
  names.clear();
  for (const GgufTensorSpec& spec : specs) {
    MICA_CHECK(names.insert(spec.name).second);
    if (spec.name.size() >= kMaxNameBytes || spec.shape.size() > kMaxExtents) {
      Fail(
          "{}: cannot be written: tensor {} has a name of {} bytes and {} extents, expected fewer than {} "
          "and "
          "at most {}",
          file, Printable(spec.name), spec.name.size(), spec.shape.size(), kMaxNameBytes, kMaxExtents);
    }
    const uint64_t bytes = CheckedBytes(spec, fmt::format("{}: tensor {}", file, Printable(spec.name)));
    made.tensors.push_back(bytes);
    PutString(spec.name, header);
    PutNumber(static_cast<uint32_t>(spec.shape.size()), header);
    for (size_t k = spec.shape.size(); k-- > 0;) PutNumber(spec.shape[k], header);
    PutNumber(static_cast<uint32_t>(spec.type), header);
    PutNumber(made.data_bytes, header);
    if (bytes > std::numeric_limits<int64_t>::max() - made.data_bytes - alignment)
      Fail("{}: cannot be written: its tensors have more bytes than a file can hold", file);
    made.data_bytes = AlignUp(made.data_bytes + bytes, alignment);
  }
  header.resize(AlignUp(header.size(), alignment), '\0');
  return made;
}

}  // namespace

uint64_t GgufFileBytes(const std::vector<GgufTensorSpec>& specs, const std::vector<GgufKey>& keys) {
  const std::string file = "a GGUF file";
  const Header header = MakeHeader(file, specs, keys, AlignmentOf(keys, file));
  return header.text.size() + header.data_bytes;
}

GgufWriter::GgufWriter(const std::filesystem::path& path, std::vector<GgufTensorSpec> specs,
                       const std::vector<GgufKey>& keys)
    : file_(path), alignment_(AlignmentOf(keys, path.string())) {
  Header header = MakeHeader(path.string(), specs, keys, alignment_);
  file_.Write(header.text);
  file_bytes_ = header.text.size() + header.data_bytes;
  tensors_ = std::move(header.tensors);
  PadWholeTensors();
}

void GgufWriter::PadWholeTensors() {
  while (current_ < tensors_.size() && written_ == tensors_[current_]) {
    file_.Write(std::string(AlignUp(written_, alignment_) - written_, '\0'));
    written_ = 0;
    ++current_;
  }
}

void GgufWriter::Write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    MICA_CHECK(current_ < tensors_.size());
    const uint64_t piece = std::min<uint64_t>(bytes.size(), tensors_[current_] - written_);
    file_.Write(bytes.data(), piece);
    written_ += piece;
    bytes = bytes.subspan(piece);
    PadWholeTensors();
  }
}

void GgufWriter::Commit() {
  MICA_CHECK(current_ == tensors_.size());
  MICA_CHECK(file_.bytes_written() == file_bytes_);
  file_.Commit();
}

}  // namespace mica
