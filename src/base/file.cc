#include "base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <random>
#include <system_error>
#include <thread>

#include "base/error.h"
#include "base/file_kind.h"
#include "base/system.h"

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

// A name that no other process, thread or earlier run has.
std::string TemporaryName() {
  static std::atomic<uint32_t> count{0};
  return fmt::format("{}{}-{:08x}", kTemporaryPrefix, ::getpid(), std::random_device()() + count++);
}

// Who holds a lock, as its file says; the holder writes it just after taking the lock.
std::string HolderOf(int descriptor) {
  for (int attempt = 0; attempt < 20; ++attempt) {
    char text[256];
    const ssize_t got = ::pread(descriptor, text, sizeof(text), 0);
    if (got > 0 && text[got - 1] == '\n') return std::string(text, static_cast<size_t>(got) - 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return "another process";
}

// Whether the path still names the file that is open.
bool Names(const fs::path& path, int descriptor) {
  struct stat opened, named;
  return ::fstat(descriptor, &opened) == 0 && ::stat(path.c_str(), &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

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
  mapped->descriptor_ = ::fcntl(file.get(), F_DUPFD_CLOEXEC, 0);
  if (mapped->descriptor_ < 0) throw Error(CannotOpen(path, errno));
  return mapped;
}

void MappedFile::Read(std::span<const std::byte> part, std::byte* out) const {
  MICA_CHECK(part.data() >= data_ && part.data() + part.size() <= data_ + size_);
  while (!part.empty()) {
    const ssize_t count = ::pread(descriptor_, out, part.size(), part.data() - data_);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) Fail("{}: cannot be read ({})", path_.string(), Reason());
    if (count == 0) {
      Fail("{}: became shorter while it was read; run the command again when nobody is writing it",
           path_.string());
    }
    part = part.subspan(static_cast<size_t>(count));
    out += count;
  }
}

void MappedFile::CheckUnchanged() const {
  struct stat status;
  if (::stat(path_.c_str(), &status) != 0 || StateOf(status) == opened_) return;
  Fail("{}: changed while it was read; run the command again when nobody is writing it", path_.string());
}

MappedFile::~MappedFile() {
  guard_.reset();
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
  if (descriptor_ >= 0) ::close(descriptor_);
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

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)) {
  const fs::path target = LinkTarget(path_);
  const fs::path directory = target.has_parent_path() ? target.parent_path() : fs::path(".");
  name_ = target.filename().string();
  const auto refuse = [&] {
    const std::string reason = Reason();
    Close();
    Fail("{}: cannot be written ({}); check the directory and its permissions", path_.string(), reason);
  };
  if (name_.empty()) Fail("{}: names a directory; give the name of a file to write", path_.string());
  directory_ = ::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory_ < 0) refuse();
  struct stat before;
  const bool replaces = ::fstatat(directory_, name_.c_str(), &before, 0) == 0;
  if (!replaces && errno != ENOENT) refuse();
  if (replaces && S_ISDIR(before.st_mode)) {
    errno = EISDIR;
    refuse();
  }
  if (replaces && ::faccessat(directory_, name_.c_str(), W_OK, AT_EACCESS) != 0) refuse();
  do {
    temporary_ = TemporaryName();
    descriptor_ = ::openat(directory_, temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
                           replaces ? 0600 : 0666);
  } while (descriptor_ < 0 && errno == EEXIST);
  if (descriptor_ < 0) refuse();
  if (replaces) {
    // Whose file it was can be kept by root only; what others may do with it does not grow then.
    const bool owned = ::fchown(descriptor_, before.st_uid, before.st_gid) == 0;
    if (::fchmod(descriptor_, before.st_mode & (owned ? 07777 : 0777)) != 0) {
      ::unlinkat(directory_, temporary_.c_str(), 0);
      refuse();
    }
  }
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::unlinkat(directory_, temporary_.c_str(), 0);
  Close();
}

void AtomicFile::Close() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (directory_ >= 0) ::close(directory_);
  descriptor_ = directory_ = -1;
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

// The content into the file that is there, where that is a mount point and cannot be renamed over.
void AtomicFile::CopyOver() {
  const auto refuse = [&] { Fail("{}: cannot be put in place ({})", path_.string(), Reason()); };
  const Descriptor out(::openat(directory_, name_.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC));
  if (out.get() < 0) refuse();
  off_t from = 0;
  while (static_cast<uint64_t>(from) < bytes_written_) {
    char block[65536];
    const ssize_t got = ::pread(descriptor_, block, sizeof(block), from);
    if (got <= 0) refuse();
    for (ssize_t done = 0; done < got;) {
      const ssize_t written = ::write(out.get(), block + done, static_cast<size_t>(got - done));
      if (written < 0 && errno != EINTR) refuse();
      if (written > 0) done += written;
    }
    from += got;
  }
  if (::fsync(out.get()) != 0) refuse();
  ::unlinkat(directory_, temporary_.c_str(), 0);
}

void AtomicFile::Commit() {
  MICA_CHECK(descriptor_ >= 0);
  if (::fsync(descriptor_) != 0) Fail("{}: cannot be written to the disk ({})", path_.string(), Reason());
  if (::renameat(directory_, temporary_.c_str(), directory_, name_.c_str()) != 0) {
    if (errno != EBUSY) Fail("{}: cannot be put in place ({})", path_.string(), Reason());
    CopyOver();
  }
  const int closed = ::close(descriptor_);
  descriptor_ = -1;
  if (closed != 0) Fail("{}: cannot be written to the disk ({})", path_.string(), Reason());
  const Descriptor parent(::openat(directory_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (parent.get() >= 0) ::fsync(parent.get());
}

void RemoveTemporaryFiles(const fs::path& directory) {
  std::error_code code;
  for (fs::directory_iterator entry(directory, code), end; !code && entry != end; entry.increment(code)) {
    std::error_code ignored;
    if (entry->path().filename().string().starts_with(kTemporaryPrefix)) fs::remove(entry->path(), ignored);
  }
}

FileLock::FileLock(const fs::path& path, const fs::path& what) : path_(path) {
  for (;;) {
    const int descriptor = ::open(path_.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (descriptor < 0) Fail("{}: cannot be written ({})", path_.string(), Reason());
    if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      const std::string holder = HolderOf(descriptor);
      ::close(descriptor);
      Fail("{}: is being written by {}; wait until that has ended, or give another directory", what.string(),
           holder);
    }
    // The one before removes the file when it ends, be it just after this was opened.
    if (Names(path_, descriptor)) {
      descriptor_ = descriptor;
      break;
    }
    ::close(descriptor);
  }
  const std::string holder = fmt::format("process {} on {}\n", ::getpid(), HostName());
  if (::ftruncate(descriptor_, 0) != 0 ||
      ::pwrite(descriptor_, holder.data(), holder.size(), 0) != static_cast<ssize_t>(holder.size())) {
    // The lock is held all the same; only its holder has no name.
  }
}

FileLock::~FileLock() {
  if (Names(path_, descriptor_)) ::unlink(path_.c_str());  // while it is held: nobody else's can be there
  ::close(descriptor_);
}

void WriteFileAtomically(const fs::path& path, std::string_view content) {
  AtomicFile file(path);
  file.Write(content);
  file.Commit();
}

std::string ReadStdin(uint64_t limit) {
  std::string content;
  char block[65536];
  while (true) {
    const ssize_t got = ::read(STDIN_FILENO, block, sizeof(block));
    ThrowIfInterrupted();
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) Fail("standard input cannot be read ({})", Reason());
    if (got == 0) return content;
    content.append(block, static_cast<size_t>(got));
    if (content.size() > limit) Fail("standard input is longer than {} bytes; give less", limit);
  }
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

fs::path LinkTarget(const fs::path& path) {
  constexpr int kMostLinks = 40;  // as the system has it
  fs::path target = path;
  for (int links = 0; links < kMostLinks; ++links) {
    std::error_code code;
    const fs::path next = fs::read_symlink(target, code);
    if (code) return target;
    target = target.parent_path() / next;  // an absolute one stands for itself
  }
  Fail("{}: is a link that leads back to itself; remove it", path.string());
}

void MakeDirectories(const fs::path& path) {
  std::error_code code;
  fs::create_directories(LinkTarget(path), code);
  if (code) Fail("{}: cannot be created ({})", path.string(), code.message());
}

bool HoldsNothing(const fs::path& directory, const std::vector<std::string>& but) {
  std::error_code code;
  for (fs::directory_iterator entry(directory, code), end; !code && entry != end; entry.increment(code)) {
    const std::string name = entry->path().filename().string();
    if (name != "lost+found" && !name.starts_with(kTemporaryPrefix) &&
        std::find(but.begin(), but.end(), name) == but.end())
      return false;
  }
  if (code) Fail("{}: cannot be read ({})", directory.string(), code.message());
  return true;
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
