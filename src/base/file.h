// Files that are mapped, files that appear whole or not at all, and the disk below them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/map_guard.h"

namespace mica {

// By what it is told whether a file is still the one that was opened.
struct FileState {
  uint64_t device = 0, inode = 0, size = 0;
  int64_t seconds = 0, nanoseconds = 0;  // of the last change of its content

  bool operator==(const FileState&) const = default;
};

// A read-only memory map of a whole file. Pages come in as they are touched and can be given back, so a file
// larger than memory can be read through it. Throws Error (with the path and the system's reason) if the file
// cannot be opened. A file that becomes shorter while it is read ends the program with one line
// (map_guard.h).
class MappedFile {
 public:
  static std::shared_ptr<MappedFile> Open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  size_t size() const { return size_; }

  // Copies a part of bytes() by reading the file: twice as fast as through the map, whose pages come in one by one.
  void Read(std::span<const std::byte> part, std::byte* out) const;

  // Throws Error when the file has been written or replaced since it was opened: what was read up to now may
  // be a mixture. One look at its size and time, for after each tensor. A file that was only deleted is still
  // whole.
  void CheckUnchanged() const;

  // Tells the system that this part of the map will not be read again soon: its pages leave the resident set.
  // `part` must lie inside bytes(); reading it again later is allowed and reads from disk or page cache.
  void Release(std::span<const std::byte> part) const;

 private:
  MappedFile() = default;
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  FileState opened_;
  int descriptor_ = -1;
  std::unique_ptr<MapGuard> guard_;
};

// A file that appears under its name only when complete: bytes go to a temporary file beside it, of a name of
// its own (kTemporaryPrefix); Commit() writes them to the disk (fsync), renames and syncs the directory. A
// link is followed: its target is what is replaced. A file that was there keeps its permissions and must be
// writable; a new one gets what the umask says. Destroyed without Commit(), it removes the temporary file.
// Every error throws Error with the path and the system's reason (a full disk included).
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void Write(const void* data, size_t bytes);
  void Write(std::string_view text) { Write(text.data(), text.size()); }
  uint64_t bytes_written() const { return bytes_written_; }
  void Commit();

 private:
  void CopyOver();
  void Close();

  std::filesystem::path path_;    // as it was given
  std::string name_, temporary_;  // in the directory
  int directory_ = -1;            // descriptors
  int descriptor_ = -1;
  uint64_t bytes_written_ = 0;
};

// Temporary files are named so. One that a dead process has left stops nobody.
inline constexpr std::string_view kTemporaryPrefix = ".mica-tmp-";

// Removes temporary files that were left in a directory in which nobody else writes.
void RemoveTemporaryFiles(const std::filesystem::path& directory);

// A lock between processes: held by one at a time, and free again when it ends, however it ends.
class FileLock {
 public:
  // Takes the lock that the file `path` stands for, which is made where it is missing. Throws Error naming
  // `what` is being written (a directory) and the process that holds it. Where the file system has no locks,
  // nothing is locked.
  FileLock(const std::filesystem::path& path, const std::filesystem::path& what);
  // Removes the file.
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

// Writes a small file through AtomicFile.
void WriteFileAtomically(const std::filesystem::path& path, std::string_view content);

// All of standard input, of the same length at most.
std::string ReadStdin(uint64_t limit = uint64_t{1} << 32);

// The whole file; throws Error naming the path when it is missing, a directory, or longer than `limit` bytes.
std::string ReadFile(const std::filesystem::path& path, uint64_t limit = uint64_t{1} << 32);

// What a path names in the end: links are followed one by one, the last of which may lead to nothing. Throws
// Error for a circle of links.
std::filesystem::path LinkTarget(const std::filesystem::path& path);

// Creates the directory and its parents, the target of a link that leads to nothing included; throws Error
// with the reason.
void MakeDirectories(const std::filesystem::path& path);

// Whether a directory that exists holds nothing but temporary files, what a file system puts into its root
// and entries of the names `but`.
bool HoldsNothing(const std::filesystem::path& directory, const std::vector<std::string>& but = {});

// Bytes an unprivileged user may still write on the file system that holds `path` (or its nearest existing
// parent).
uint64_t FreeDiskBytes(const std::filesystem::path& path);

}  // namespace mica
