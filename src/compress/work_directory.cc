#include "compress/work_directory.h"

#include <fmt/format.h>

#include <system_error>

#include "base/error.h"
#include "base/file.h"
#include "io/container/checkpoint.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

std::string RecordName(size_t shard) { return fmt::format("shard-{:05}.json", shard); }

constexpr const char* kLock = "lock";
constexpr const char* kIdentity = "identity.json";

bool HoldsNothingElse(const fs::path& out) { return HoldsNothing(out, {kUnfinishedDirectory}); }

void RefuseOtherFiles(const fs::path& out) {
  std::error_code code;
  if (!fs::exists(out, code) || fs::exists(out / kUnfinishedDirectory / kIdentity, code)) return;
  if (!fs::is_directory(out, code))
    Fail("{}: is not a directory; give a directory for the packed checkpoint", out.string());
  if (!HoldsNothingElse(out)) Fail("{}: is not empty; give a new directory, or delete it", out.string());
}

}  // namespace

std::unique_ptr<FileLock> WorkDirectory::Lock(const fs::path& out) {
  RefuseOtherFiles(out);
  MakeDirectories(out);
  MakeDirectories(out / kUnfinishedDirectory);
  auto lock = std::make_unique<FileLock>(out / kUnfinishedDirectory / kLock, out);
  try {
    RefuseOtherFiles(out);
  } catch (const Error&) {  // a run that has ended meanwhile
    Clear(out);
    throw;
  }
  RemoveTemporaryFiles(out);
  RemoveTemporaryFiles(out / kUnfinishedDirectory);
  return lock;
}

WorkDirectory::WorkDirectory(const fs::path& out, const Identity& identity, size_t shards, bool shards_stay,
                             const Group& group)
    : out_(out), work_(out / kUnfinishedDirectory), shards_(shards), shards_stay_(shards_stay), group_(&group) {
  if (group.leads()) Begin(identity);
  group.Barrier();
}

void WorkDirectory::Begin(const Identity& identity) {
  const fs::path identity_path = work_ / kIdentity;
  std::error_code code;
  if (fs::exists(out_, code)) {
    if (!fs::is_directory(out_, code))
      Fail("{}: is not a directory; give a directory for the packed checkpoint", out_.string());
    if (fs::exists(identity_path, code)) {
      const Identity stopped = IdentityFromJson(ReadJson(identity_path), identity_path.string());
      const std::vector<std::string> differences = Differences(stopped, identity, Unrecorded::kDiffers);
      if (differences.empty()) return;
      if (Resumable()) {
        Fail(
            "{}: holds a stopped run of another kind: {}; repeat the same to go on, or delete it to begin "
            "anew",
            out_.string(), JoinClauses(differences));
      }
      RemoveWritten();
    }
    if (!HoldsNothingElse(out_)) Fail("{}: is not empty; give a new directory, or delete it", out_.string());
  }
  MakeDirectories(work_);
  WriteJson(identity_path, ToJson(identity));
}

fs::path WorkDirectory::ShardPath(size_t shard) const {
  return (shards_stay_ ? out_ : work_) / fmt::format("model-{:05}-of-{:05}.safetensors", shard, shards_);
}

fs::path WorkDirectory::RecordPath(size_t shard) const { return work_ / RecordName(shard); }

std::optional<ShardRecord> WorkDirectory::ReadFinished(size_t shard) const {
  const fs::path record = RecordPath(shard);
  std::error_code code;
  if (!fs::exists(record, code)) return std::nullopt;
  ShardRecord finished;
  try {
    finished = ShardFromJson(ReadJson(record), record.string());
  } catch (const Error&) {
    Fail("{}: is damaged; delete {} to begin anew", record.string(), out_.string());
  }
  const fs::path file = ShardPath(shard);
  const uint64_t bytes = fs::file_size(file, code);
  if (code || bytes != finished.bytes) {
    Fail(
        "{}: is missing or not {} bytes long, as the record of the stopped run says; delete {} to begin anew",
        file.string(), finished.bytes, out_.string());
  }
  return finished;
}

std::optional<ShardRecord> WorkDirectory::Finished(size_t shard) const {
  if (group_->alone()) return ReadFinished(shard);
  const std::optional<ShardRecord> found = group_->leads() ? ReadFinished(shard) : std::nullopt;
  const std::string text = group_->Broadcast(0, found ? ToJson(*found).dump() : std::string());
  if (text.empty()) return std::nullopt;
  return ShardFromJson(Json::parse(text), RecordPath(shard).string());
}

bool WorkDirectory::HasFinished(size_t shard) const {
  std::error_code code;
  return fs::exists(RecordPath(shard), code);
}

ShardRecord WorkDirectory::Share(const ShardRecord& shard) const {
  if (group_->alone()) return shard;
  return ShardFromJson(Json::parse(group_->Broadcast(0, group_->leads() ? ToJson(shard).dump() : std::string())),
                       out_.string());
}

void WorkDirectory::Record(size_t shard, const ShardRecord& finished) const {
  WriteJson(RecordPath(shard), ToJson(finished));
}

bool WorkDirectory::Resumable() const {
  std::error_code code;
  return fs::exists(StatisticsPath(), code) || fs::exists(RecordPath(kShardsBeforeLayers + 1), code);
}

// All but the lock, which this process holds.
void WorkDirectory::RemoveWritten() const {
  std::error_code code;
  for (size_t shard = 1; shard <= shards_; ++shard) fs::remove(ShardPath(shard), code);
  std::vector<fs::path> written;
  for (const auto& entry : fs::directory_iterator(work_, code)) {
    if (entry.path().filename() != kLock) written.push_back(entry.path());
  }
  for (const fs::path& path : written) fs::remove_all(path, code);
}

void WorkDirectory::Discard() const {
  RemoveWritten();
  std::error_code code;
  fs::remove_all(work_, code);
  if (fs::is_empty(out_, code) && !fs::is_symlink(out_, code)) fs::remove(out_, code);
}

size_t WorkDirectory::FinishedShards(const fs::path& out) {
  size_t shards = 0;
  std::error_code code;
  while (fs::exists(out / kUnfinishedDirectory / RecordName(shards + 1), code)) ++shards;
  return shards;
}

void WorkDirectory::Clear(const fs::path& out) {
  std::error_code code;
  fs::remove_all(out / kUnfinishedDirectory, code);
}

}  // namespace mica
