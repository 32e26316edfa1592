#include "base/output_directory.h"

#include <algorithm>
#include <sstream>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr const char* kMaking = ".partial";
constexpr const char* kLock = "lock";
constexpr const char* kPlaced =
    "placed";  // the names of the files, a line each, once they are put into place

// The files that a killed process had put into place.
std::vector<std::string> PlacedBefore(const fs::path& making) {
  std::vector<std::string> names;
  std::error_code code;
  if (!fs::is_regular_file(making / kPlaced, code)) return names;
  std::istringstream lines(ReadFile(making / kPlaced));
  for (std::string name; std::getline(lines, name);) names.push_back(name);
  return names;
}

}  // namespace

OutputDirectory::OutputDirectory(fs::path path) : path_(std::move(path)), making_(path_ / kMaking) {
  std::error_code code;
  const bool existed = fs::exists(path_, code);
  std::vector<std::string> leftover;
  if (existed) {
    if (!fs::is_directory(path_, code))
      Fail("{}: is not a directory; give a new or an empty one", path_.string());
    leftover = PlacedBefore(making_);
    leftover.push_back(kMaking);
    if (!HoldsNothing(path_, leftover))
      Fail("{}: already exists and is not an empty directory; give a new one", path_.string());
  }
  made_ = !existed;
  MakeDirectories(path_);
  MakeDirectories(making_);
  lock_ = std::make_unique<FileLock>(making_ / kLock, path_);
  leftover = PlacedBefore(making_);
  for (const std::string& name : leftover) fs::remove(path_ / name, code);
  for (const fs::directory_entry& entry : fs::directory_iterator(making_)) {
    if (entry.path().filename() != kLock) fs::remove_all(entry.path(), code);
  }
  RemoveTemporaryFiles(path_);
}

OutputDirectory::~OutputDirectory() {
  if (making_.empty()) return;
  std::error_code ignored;
  for (const std::string& name : PlacedBefore(making_)) fs::remove(path_ / name, ignored);
  fs::remove_all(making_, ignored);
  lock_.reset();
  if (made_) fs::remove(LinkTarget(path_), ignored);
}

fs::path OutputDirectory::File(const std::string& name) {
  MICA_CHECK(name != kLock);
  MICA_CHECK(name != kPlaced);
  names_.push_back(name);
  if (fs::path(name).has_parent_path()) MakeDirectories((making_ / name).parent_path());
  return making_ / name;
}

void OutputDirectory::Commit() {
  std::string names;
  for (const std::string& name : names_) names += name + "\n";
  WriteFileAtomically(making_ / kPlaced, names);
  std::error_code code;
  for (const std::string& name : names_) {
    if (fs::path(name).has_parent_path()) MakeDirectories((path_ / name).parent_path());
    fs::rename(making_ / name, path_ / name, code);
    if (code) Fail("{}: cannot be put in place ({})", (path_ / name).string(), code.message());
  }
  fs::remove_all(making_, code);
  making_.clear();
  lock_.reset();
}

}  // namespace mica
