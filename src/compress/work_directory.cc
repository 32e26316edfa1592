#include "compress/work_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "base/error.h"
#include "base/file.h"
#include "io/container/checkpoint.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

bool HoldsNothingElse(const fs::path& out) {
  return std::all_of(
      fs::directory_iterator(out), fs::directory_iterator(),
      [](const fs::directory_entry& entry) { return entry.path().filename() == kUnfinishedDirectory; });
}

}  // namespace

WorkDirectory::WorkDirectory(const fs::path& out, const Json& identity)
    : out_(out), work_(out / kUnfinishedDirectory) {
  const fs::path identity_path = work_ / "identity.json";
  std::error_code code;
  if (fs::exists(out_, code)) {
    if (!fs::is_directory(out_, code))
      Fail("{}: is not a directory; give a directory for the packed checkpoint", out_.string());
    if (fs::exists(identity_path, code)) {
      if (ReadJson(identity_path) == identity) return;
      Fail(
          "{}: holds a stopped run with other settings, texts or code; repeat those to go on, or delete it "
          "to begin anew",
          out_.string());
    }
    if (!HoldsNothingElse(out_)) Fail("{}: is not empty; give a new directory, or delete it", out_.string());
  }
  MakeDirectories(work_);
  WriteJson(identity_path, identity);
}

fs::path WorkDirectory::ShardPath(size_t shard, size_t shards) const {
  return out_ / fmt::format("model-{:05}-of-{:05}.safetensors", shard, shards);
}

std::optional<ShardRecord> WorkDirectory::Finished(size_t shard, size_t shards) const {
  const fs::path record = work_ / fmt::format("shard-{:05}.json", shard);
  std::error_code code;
  if (!fs::exists(record, code)) return std::nullopt;
  ShardRecord finished;
  try {
    finished = ShardFromJson(ReadJson(record), record.string());
  } catch (const Error&) {
    Fail("{}: is damaged; delete {} to begin anew", record.string(), out_.string());
  }
  const fs::path file = ShardPath(shard, shards);
  const uint64_t bytes = fs::file_size(file, code);
  if (code || bytes != finished.bytes) {
    Fail(
        "{}: is missing or not {} bytes long, as the record of the stopped run says; delete {} to begin anew",
        file.string(), finished.bytes, out_.string());
  }
  return finished;
}

void WorkDirectory::Record(size_t shard, const ShardRecord& finished) const {
  WriteJson(work_ / fmt::format("shard-{:05}.json", shard), ToJson(finished));
}

void WorkDirectory::Discard(size_t shards) const {
  std::error_code code;
  for (size_t shard = 1; shard <= shards; ++shard) fs::remove(ShardPath(shard, shards), code);
  fs::remove_all(work_, code);
  if (fs::is_empty(out_, code)) fs::remove(out_, code);
}

void WorkDirectory::Clear(const fs::path& out) {
  std::error_code code;
  fs::remove_all(out / kUnfinishedDirectory, code);
}

}  // namespace mica
