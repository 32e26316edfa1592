// Zip archives as PyTorch writes them: every entry stored without compression, 64-bit sizes where needed.
// Source: PKWARE APPNOTE 6.3.10, sections 4.3 to 4.5.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"

namespace mica {

struct ZipEntry {
  std::string name;
  std::span<const std::byte> data;  // inside the archive's bytes
  uint32_t crc = 0;                 // CRC-32 the archive claims for the data; see CheckCrc
};

// The entries in the order of the central directory. Throws Error (naming `file`, the entry and the values)
// for anything but a whole, single-part archive whose entries are stored, unencrypted, uniquely named, inside
// the archive and apart from each other: a compressed entry could expand without bound and could not be used
// in place.
std::vector<ZipEntry> ReadZip(std::span<const std::byte> bytes, const std::string& file);

// Throws Error unless the data have the CRC-32 that the archive claims, or it claims 0: PyTorch writes that
// when it was told not to compute any (torch.serialization.set_crc32_options). Large entries are read by all
// threads.
void CheckCrc(const ZipEntry& entry, const std::string& file);

// Writes an archive of stored entries atomically and in one forward pass: sizes and CRC-32 follow each
// entry's data (data descriptor).
class ZipWriter {
 public:
  explicit ZipWriter(const std::filesystem::path& path) : file_(path) {}

  // Begins an entry of exactly `size` bytes whose data start at a multiple of 64 bytes in the file.
  void Begin(const std::string& name, uint64_t size);
  // The next bytes of the entry; the entry ends by itself after `size` bytes.
  void Write(std::span<const std::byte> bytes);
  // Begin and Write in one.
  void Add(const std::string& name, std::string_view content);
  // Bytes of the open entry that Write still expects.
  uint64_t remaining() const { return remaining_; }
  // Writes the central directory, syncs and renames.
  void Commit();
  uint64_t bytes_written() const { return file_.bytes_written(); }

 private:
  struct Entry {
    std::string name;
    uint64_t offset = 0;  // of the local header
    uint64_t size = 0;
    uint32_t crc = 0;
  };
  void End();

  AtomicFile file_;
  std::vector<Entry> entries_;
  uint64_t remaining_ = 0;
};

}  // namespace mica
