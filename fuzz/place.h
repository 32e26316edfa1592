// A directory for the fuzz targets of readers that take a path.
#pragma once

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <system_error>

namespace mica {

// A directory of this process, in memory if there is such a place. (A fuzzer that is stopped leaves it there:
// it ends without destructors of static objects.)
class Place {
 public:
  explicit Place(const std::string& target) {
    const std::filesystem::path memory = "/dev/shm";
    path_ = (std::filesystem::is_directory(memory) ? memory : std::filesystem::temp_directory_path()) /
            fmt::format("mica_{}_fuzz_{}", target, ::getpid());
    std::filesystem::create_directories(path_);
  }
  ~Place() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace mica
