#include "io/container/zip.h"

#include <zlib.h>

#include <algorithm>
#include <concepts>
#include <cstring>
#include <optional>
#include <string_view>
#include <unordered_set>

#include "base/error.h"
#include "base/text.h"
#include "base/threads.h"

namespace mica {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50, kDescriptor = 0x08074b50, kCentralHeader = 0x02014b50,
                   kEnd = 0x06054b50;
constexpr uint32_t kEnd64 = 0x06064b50, kEnd64Locator = 0x07064b50;
constexpr size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocatorBytes = 20;
constexpr uint16_t kZip64Extra = 0x0001;
constexpr uint16_t kPaddingExtra = 0x4246;  // "FB", the extra field with which PyTorch aligns data
constexpr uint32_t kIn64 = 0xFFFFFFFFu;     // the value is in the 64-bit record or extra field
constexpr uint16_t kFlagEncrypted = 0x0001, kFlagDescriptor = 0x0008, kFlagUtf8 = 0x0800;
constexpr uint16_t kVersion64 = 45;
constexpr size_t kAlignment = 64;

// Reads little-endian numbers from a record; reading past its end is a fault of the file.
class Record {
 public:
  Record(std::span<const std::byte> bytes, const std::string& file, const char* what)
      : bytes_(bytes), file_(file), what_(what) {}

  template <std::unsigned_integral T>
  T Read() {
    T value;
    std::memcpy(&value, Take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::span<const std::byte> Take(size_t count) {
    if (count > bytes_.size())
      Fail("{}: {} of the zip archive is cut short; the file is truncated or corrupted", file_, what_);
    const std::span<const std::byte> taken = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return taken;
  }
  std::string Text(size_t count) {
    const std::span<const std::byte> taken = Take(count);
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }
  size_t left() const { return bytes_.size(); }

 private:
  std::span<const std::byte> bytes_;
  const std::string& file_;
  const char* what_;
};

struct Directory {
  uint64_t entries = 0, offset = 0, bytes = 0;
};

// Finds the end record, which may be followed by a comment, and the 64-bit one before it.
Directory FindDirectory(std::span<const std::byte> bytes, const std::string& file) {
  const size_t lowest = bytes.size() >= kEndBytes + 0xFFFF ? bytes.size() - kEndBytes - 0xFFFF : 0;
  std::optional<size_t> end;
  for (size_t at = bytes.size() >= kEndBytes ? bytes.size() - kEndBytes + 1 : 0; at-- > lowest && !end;) {
    uint32_t signature;
    std::memcpy(&signature, &bytes[at], sizeof(signature));
    uint16_t comment;
    std::memcpy(&comment, &bytes[at + 20], sizeof(comment));
    if (signature == kEnd && at + kEndBytes + comment == bytes.size()) end = at;
  }
  if (!end) Fail("{}: the zip archive has no end record; the file is truncated or has bytes appended", file);

  Record record(bytes.subspan(*end + 4, kEndBytes - 4), file, "the end record");
  const uint16_t disk = record.Read<uint16_t>(), directory_disk = record.Read<uint16_t>();
  const uint16_t entries_here = record.Read<uint16_t>(), entries = record.Read<uint16_t>();
  Directory directory{.entries = entries, .offset = 0, .bytes = record.Read<uint32_t>()};
  directory.offset = record.Read<uint32_t>();
  uint64_t records_begin = *end;
  bool split = (disk != 0 && disk != 0xFFFF) || disk != directory_disk || entries_here != entries;

  if (*end >= kLocatorBytes) {
    Record locator(bytes.subspan(*end - kLocatorBytes, kLocatorBytes), file, "the 64-bit locator");
    if (locator.Read<uint32_t>() == kEnd64Locator) {
      locator.Read<uint32_t>();
      const uint64_t at = locator.Read<uint64_t>();
      if (at > *end - kLocatorBytes)
        Fail("{}: the zip archive's 64-bit end record lies outside the file ({})", file, at);
      Record wide(bytes.subspan(at, *end - kLocatorBytes - at), file, "the 64-bit end record");
      if (wide.Read<uint32_t>() != kEnd64)
        Fail("{}: the zip archive has no 64-bit end record at byte {}", file, at);
      wide.Take(12);  // size of the record, versions
      const uint32_t wide_disk = wide.Read<uint32_t>(), wide_directory_disk = wide.Read<uint32_t>();
      const uint64_t wide_entries_here = wide.Read<uint64_t>();
      directory.entries = wide.Read<uint64_t>();
      split = wide_disk != 0 || wide_directory_disk != 0 || wide_entries_here != directory.entries;
      directory.bytes = wide.Read<uint64_t>();
      directory.offset = wide.Read<uint64_t>();
      records_begin = at;
    }
  }
  if (split) Fail("{}: the zip archive is split into parts; join them first", file);
  if (directory.offset > records_begin || directory.bytes != records_begin - directory.offset) {
    Fail(
        "{}: the zip archive's directory is said to be bytes {} + {}, but its end record is at {}; the file "
        "is corrupted",
        file, directory.offset, directory.bytes, records_begin);
  }
  if (directory.entries > directory.bytes / kCentralBytes) {
    Fail("{}: the zip archive is said to have {} entries in a directory of {} bytes", file, directory.entries,
         directory.bytes);
  }
  return directory;
}

// Sizes or offsets too large for the central header stand in its 64-bit extra field, in this order.
void ReadZip64Extra(Record extra, uint64_t& size, uint64_t& stored_size, uint64_t& offset) {
  while (extra.left() >= 4) {
    const uint16_t id = extra.Read<uint16_t>();
    const uint16_t length = extra.Read<uint16_t>();
    if (id != kZip64Extra) {
      extra.Take(length);
      continue;
    }
    for (uint64_t* value : {&size, &stored_size, &offset}) {
      if (*value == kIn64) *value = extra.Read<uint64_t>();
    }
    return;
  }
}

ZipEntry ReadEntry(Record& central, std::span<const std::byte> bytes, uint64_t directory_offset,
                   const std::string& file) {
  if (central.Read<uint32_t>() != kCentralHeader) Fail("{}: the zip archive's directory is corrupted", file);
  central.Take(4);  // versions
  const uint16_t flags = central.Read<uint16_t>(), method = central.Read<uint16_t>();
  central.Take(4);  // time and date
  ZipEntry entry;
  entry.crc = central.Read<uint32_t>();
  uint64_t stored_size = central.Read<uint32_t>(), size = central.Read<uint32_t>();
  const uint16_t name_bytes = central.Read<uint16_t>(), extra_bytes = central.Read<uint16_t>();
  const uint16_t comment_bytes = central.Read<uint16_t>();
  central.Take(8);  // part, attributes
  uint64_t offset = central.Read<uint32_t>();
  entry.name = central.Text(name_bytes);
  ReadZip64Extra(Record(central.Take(extra_bytes), file, "a 64-bit extra field"), size, stored_size, offset);
  central.Take(comment_bytes);

  const std::string name = Printable(entry.name);
  if (method != 0) {
    Fail(
        "{}: entry {} is compressed (method {}, {} to {} bytes); PyTorch stores entries as they are, so this "
        "file is refused",
        file, name, method, stored_size, size);
  }
  if ((flags & kFlagEncrypted) != 0) Fail("{}: entry {} is encrypted", file, name);
  if (size != stored_size)
    Fail("{}: entry {} is stored, but is said to be {} and {} bytes long", file, name, size, stored_size);

  if (offset > directory_offset) Fail("{}: entry {} at byte {} lies outside the archive", file, name, offset);
  Record local(bytes.subspan(offset, directory_offset - offset), file, "an entry");
  if (local.Read<uint32_t>() != kLocalHeader)
    Fail("{}: entry {} has no header at byte {}", file, name, offset);
  local.Take(kLocalBytes - 8);
  const uint16_t local_name_bytes = local.Read<uint16_t>(), local_extra_bytes = local.Read<uint16_t>();
  const std::string local_name = local.Text(local_name_bytes);
  if (local_name != entry.name)
    Fail("{}: entry {} is called {} in its own header", file, name, Printable(local_name));
  local.Take(local_extra_bytes);
  if (size > local.left()) {
    Fail("{}: entry {} of {} bytes does not fit before the directory ({} bytes left)", file, name, size,
         local.left());
  }
  entry.data = local.Take(size);
  return entry;
}

// Appends little-endian numbers to a record.
class RecordWriter {
 public:
  template <std::unsigned_integral T>
  RecordWriter& Put(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  RecordWriter& Put(std::string_view text) {
    text_ += text;
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

uint32_t Narrow(uint64_t value) { return value >= kIn64 ? kIn64 : static_cast<uint32_t>(value); }

uint32_t Crc(uint32_t crc, std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(crc32_z(crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

}  // namespace

std::vector<ZipEntry> ReadZip(std::span<const std::byte> bytes, const std::string& file) {
  const Directory directory = FindDirectory(bytes, file);
  Record central(bytes.subspan(directory.offset, directory.bytes), file, "the directory");
  std::vector<ZipEntry> entries;
  std::unordered_set<std::string> names;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    entries.push_back(ReadEntry(central, bytes, directory.offset, file));
    if (!names.insert(entries.back().name).second)
      Fail("{}: entry {} is there twice", file, Printable(entries.back().name));
  }
  if (central.left() != 0)
    Fail("{}: the zip archive's directory has {} bytes too many", file, central.left());

  std::vector<const ZipEntry*> by_place;
  for (const ZipEntry& entry : entries) {
    if (!entry.data.empty()) by_place.push_back(&entry);
  }
  std::sort(by_place.begin(), by_place.end(),
            [](const ZipEntry* a, const ZipEntry* b) { return a->data.data() < b->data.data(); });
  for (size_t i = 1; i < by_place.size(); ++i) {
    if (by_place[i]->data.data() < by_place[i - 1]->data.data() + by_place[i - 1]->data.size()) {
      Fail("{}: entries {} and {} overlap", file, Printable(by_place[i - 1]->name),
           Printable(by_place[i]->name));
    }
  }
  return entries;
}

void CheckCrc(const ZipEntry& entry, const std::string& file) {
  if (entry.crc == 0) return;
  constexpr size_t kPart = size_t{4} << 20;
  std::vector<uint32_t> parts((entry.data.size() + kPart - 1) / kPart);
  const auto part = [&](size_t i) {
    return entry.data.subspan(i * kPart, std::min(kPart, entry.data.size() - i * kPart));
  };
  ParallelFor(parts.size(), [&](size_t i) { parts[i] = Crc(0, part(i)); });
  uint32_t crc = 0;
  for (size_t i = 0; i < parts.size(); ++i)
    crc = static_cast<uint32_t>(crc32_combine(crc, parts[i], static_cast<z_off_t>(part(i).size())));
  if (crc != entry.crc) {
    Fail("{}: entry {} has CRC-32 {:08x}, expected {:08x}; the file is corrupted", file,
         Printable(entry.name), crc, entry.crc);
  }
}

void ZipWriter::Begin(const std::string& name, uint64_t size) {
  MICA_CHECK(remaining_ == 0);
  MICA_CHECK(name.size() < 0xFF00);
  entries_.push_back({name, file_.bytes_written(), size, 0});
  const bool wide = size >= kIn64;
  RecordWriter extra;
  // Announces 64-bit sizes in the data descriptor; the sizes themselves are zero here, as the CRC-32 is.
  if (wide) extra.Put(kZip64Extra).Put(uint16_t{16}).Put(uint64_t{0}).Put(uint64_t{0});
  const uint64_t unaligned = file_.bytes_written() + kLocalBytes + name.size() + extra.text().size() + 4;
  const size_t padding = (kAlignment - unaligned % kAlignment) % kAlignment;
  extra.Put(kPaddingExtra).Put(static_cast<uint16_t>(padding)).Put(std::string(padding, 'Z'));

  RecordWriter header;
  header.Put(kLocalHeader)
      .Put(kVersion64)
      .Put(static_cast<uint16_t>(kFlagDescriptor | kFlagUtf8))
      .Put(uint16_t{0});
  header.Put(uint32_t{0}).Put(uint32_t{0});  // time and date; CRC-32
  header.Put(wide ? kIn64 : uint32_t{0}).Put(wide ? kIn64 : uint32_t{0});
  header.Put(static_cast<uint16_t>(name.size()))
      .Put(static_cast<uint16_t>(extra.text().size()))
      .Put(name)
      .Put(extra.text());
  file_.Write(header.text());
  remaining_ = size;
  if (size == 0) End();
}

void ZipWriter::Write(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  MICA_CHECK(bytes.size() <= remaining_);
  entries_.back().crc = Crc(entries_.back().crc, bytes);
  file_.Write(bytes.data(), bytes.size());
  remaining_ -= bytes.size();
  if (remaining_ == 0) End();
}

void ZipWriter::End() {
  const Entry& entry = entries_.back();
  RecordWriter descriptor;
  descriptor.Put(kDescriptor).Put(entry.crc);
  if (entry.size >= kIn64) {
    descriptor.Put(entry.size).Put(entry.size);
  } else {
    descriptor.Put(static_cast<uint32_t>(entry.size)).Put(static_cast<uint32_t>(entry.size));
  }
  file_.Write(descriptor.text());
}

void ZipWriter::Add(const std::string& name, std::string_view content) {
  Begin(name, content.size());
  Write(std::as_bytes(std::span(content.data(), content.size())));
}

void ZipWriter::Commit() {
  MICA_CHECK(remaining_ == 0);
  const uint64_t directory_offset = file_.bytes_written();
  for (const Entry& entry : entries_) {
    RecordWriter extra;
    if (entry.size >= kIn64) extra.Put(entry.size).Put(entry.size);
    if (entry.offset >= kIn64) extra.Put(entry.offset);
    const size_t wide = extra.text().size();
    RecordWriter header;
    header.Put(kCentralHeader)
        .Put(kVersion64)
        .Put(kVersion64)
        .Put(static_cast<uint16_t>(kFlagDescriptor | kFlagUtf8));
    header.Put(uint16_t{0}).Put(uint32_t{0}).Put(entry.crc).Put(Narrow(entry.size)).Put(Narrow(entry.size));
    header.Put(static_cast<uint16_t>(entry.name.size())).Put(static_cast<uint16_t>(wide == 0 ? 0 : wide + 4));
    header.Put(uint16_t{0}).Put(uint64_t{0}).Put(Narrow(entry.offset)).Put(entry.name);
    if (wide != 0) header.Put(kZip64Extra).Put(static_cast<uint16_t>(wide)).Put(extra.text());
    file_.Write(header.text());
  }
  const uint64_t end64 = file_.bytes_written();
  const uint64_t directory_bytes = end64 - directory_offset;
  const uint64_t count = entries_.size();
  RecordWriter end;
  end.Put(kEnd64)
      .Put(uint64_t{kEnd64Bytes - 12})
      .Put(kVersion64)
      .Put(kVersion64)
      .Put(uint32_t{0})
      .Put(uint32_t{0});
  end.Put(count).Put(count).Put(directory_bytes).Put(directory_offset);
  end.Put(kEnd64Locator).Put(uint32_t{0}).Put(end64).Put(uint32_t{1});
  const uint16_t narrow_count = count >= 0xFFFF ? uint16_t{0xFFFF} : static_cast<uint16_t>(count);
  end.Put(kEnd).Put(uint16_t{0}).Put(uint16_t{0}).Put(narrow_count).Put(narrow_count);
  end.Put(Narrow(directory_bytes)).Put(Narrow(directory_offset)).Put(uint16_t{0});
  file_.Write(end.text());
  file_.Commit();
}

}  // namespace mica
