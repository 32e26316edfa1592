#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "base/error.h"
#include "base/file_kind.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

std::string Reason() { return std::strerror(errno); }

// Owns a file descriptor until released.
class Descriptor {
 public:
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  ~Descriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

FileState StateOf(const struct stat& status) {
  return {static_cast<uint64_t>(status.st_dev), static_cast<uint64_t>(status.st_ino),
          static_cast<uint64_t>(status.st_size), status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
}

FileState RegularFileState(const fs::path& path, int descriptor) {
  struct stat status;
  if (::fstat(descriptor, &status) != 0) Fail("{}: {}", path.string(), Reason());
  if (!S_ISREG(status.st_mode)) Fail("{}: is not a regular file; give the path of a file", path.string());
  return StateOf(status);
}

}  // namespace

std::shared_ptr<MappedFile> MappedFile::Open(const fs::path& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) throw Error(CannotOpen(path, errno));
  std::shared_ptr<MappedFile> mapped(new MappedFile);
  mapped->path_ = path;
  mapped->opened_ = RegularFileState(path, file.get());
  mapped->size_ = mapped->opened_.size;
  if (mapped->size_ == 0) return mapped;  // an empty file cannot be mapped
  void* data = ::mmap(nullptr, mapped->size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) Fail("{}: cannot be mapped into memory ({})", path.string(), Reason());
  mapped->data_ = static_cast<const std::byte*>(data);
  mapped->guard_ = std::make_unique<MapGuard>(data, mapped->size_, path.string());
  return mapped;
}

void MappedFile::CheckUnchanged() const {
  struct stat status;
  if (::stat(path_.c_str(), &status) != 0 || StateOf(status) == opened_) return;
  Fail("{}: changed while it was read; run the command again when nobody is writing it", path_.string());
}

MappedFile::~MappedFile() {
  guard_.reset();
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::Release(std::span<const std::byte> part) const {
  if (part.empty()) return;
  MICA_CHECK(part.data() >= data_ && part.data() + part.size() <= data_ + size_);
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t offset = static_cast<size_t>(part.data() - data_);
  const size_t begin = offset / page * page;
  const size_t end = std::min(size_, (offset + part.size() + page - 1) / page * page);
  ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)), temporary_(path_.string() + ".tmp") {
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0)
    Fail("{}: cannot be written ({}); check the directory and its permissions", path_.string(), Reason());
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::Write(const void* data, size_t bytes) {
  MICA_CHECK(descriptor_ >= 0);
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(descriptor_, next, bytes);
    if (written < 0) {
      if (errno == EINTR) continue;
      Fail("{}: writing failed after {} bytes ({}); nothing was left behind", path_.string(), bytes_written_,
           Reason());
    }
    next += written;
    bytes -= static_cast<size_t>(written);
    bytes_written_ += static_cast<uint64_t>(written);
  }
}

void AtomicFile::Commit() {
  MICA_CHECK(descriptor_ >= 0);
  if (::fsync(descriptor_) != 0) Fail("{}: cannot be written to the disk ({})", path_.string(), Reason());
  const int closed = ::close(descriptor_);
  descriptor_ = -1;
  if (closed != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const std::string reason = Reason();
    ::unlink(temporary_.c_str());
    Fail("{}: cannot be put in place ({})", path_.string(), reason);
  }
  const fs::path directory = path_.has_parent_path() ? path_.parent_path() : fs::path(".");
  const Descriptor parent(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (parent.get() >= 0) ::fsync(parent.get());
}

void WriteFileAtomically(const fs::path& path, std::string_view content) {
  AtomicFile file(path);
  file.Write(content);
  file.Commit();
}

std::string ReadFile(const fs::path& path, uint64_t limit) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) throw Error(CannotOpen(path, errno));
  const uint64_t size = RegularFileState(path, file.get()).size;
  if (size > limit) Fail("{}: is {} bytes long, expected at most {}", path.string(), size, limit);
  std::string content(size, '\0');
  size_t done = 0;
  while (done < size) {
    const ssize_t got = ::read(file.get(), content.data() + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) Fail("{}: cannot be read ({})", path.string(), Reason());
    if (got == 0)
      Fail("{}: ended after {} of {} bytes; it changed while being read", path.string(), done, size);
    done += static_cast<size_t>(got);
  }
  return content;
}

void MakeDirectories(const fs::path& path) {
  std::error_code code;
  fs::create_directories(path, code);
  if (code) Fail("{}: cannot be created ({})", path.string(), code.message());
}

uint64_t FreeDiskBytes(const fs::path& path) {
  fs::path existing = fs::absolute(path);
  std::error_code code;
  while (!fs::exists(existing, code) && existing.has_relative_path()) existing = existing.parent_path();
  const fs::space_info space = fs::space(existing, code);
  if (code) Fail("{}: free disk space cannot be read ({})", existing.string(), code.message());
  return space.available;
}

}  // namespace mica
