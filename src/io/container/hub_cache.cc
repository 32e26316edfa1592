#include "io/container/hub_cache.h"

#include <string_view>
#include <system_error>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kBegin = "models--";
constexpr std::string_view kSeparator = "--";
constexpr const char* kSnapshots = "snapshots";
constexpr uint64_t kMaxRefBytes = 4096;

// Without "." and a "/" at its end.
fs::path Normal(const fs::path& path) {
  const fs::path normal = fs::absolute(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

bool IsCacheDirectory(const fs::path& path) {
  std::error_code code;
  return Normal(path).filename().string().starts_with(kBegin) && fs::is_directory(path / kSnapshots, code);
}

// The commit in refs/main; empty when there is none.
std::string MainCommit(const fs::path& path) {
  const fs::path ref = path / "refs" / "main";
  std::error_code code;
  if (!fs::is_regular_file(ref, code)) return "";
  std::string commit = ReadFile(ref, kMaxRefBytes);
  while (!commit.empty() && (commit.back() == '\n' || commit.back() == '\r' || commit.back() == ' '))
    commit.pop_back();
  if (commit.empty() || commit.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos)
    Fail("{}: names no commit; give the directory below {} that is wanted", ref.string(), kSnapshots);
  return commit;
}

}  // namespace

fs::path SnapshotOf(const fs::path& path) {
  if (!IsCacheDirectory(path)) return path;
  std::error_code code;
  if (const std::string commit = MainCommit(path); !commit.empty()) {
    const fs::path snapshot = path / kSnapshots / commit;
    if (!fs::is_directory(snapshot, code))
      Fail("{}: is missing, though refs/main names it; complete the download", snapshot.string());
    return snapshot;
  }
  std::vector<fs::path> snapshots;
  for (const fs::directory_entry& entry : fs::directory_iterator(path / kSnapshots)) {
    if (entry.is_directory(code)) snapshots.push_back(entry.path());
  }
  if (snapshots.size() == 1) return snapshots.front();
  Fail("{}: has no refs/main and {} directories below {}; {}", path.string(), snapshots.size(), kSnapshots,
       snapshots.empty() ? "complete the download" : "give the one that is wanted");
}

std::optional<std::string> HubModelName(const fs::path& path) {
  fs::path directory = Normal(path);
  if (directory.parent_path().filename() == kSnapshots) directory = directory.parent_path().parent_path();
  const std::string name = directory.filename().string();
  const size_t at = name.rfind(kSeparator);
  if (!name.starts_with(kBegin) || at + kSeparator.size() >= name.size()) return std::nullopt;
  return name.substr(at + kSeparator.size());
}

}  // namespace mica
