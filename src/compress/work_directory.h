// The output directory while a compression is under way: what is finished, so that a run that was stopped
// goes on after the last finished layer and ends in the same bytes.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "record/compression.h"

namespace mica {

class WorkDirectory {
 public:
  // Takes `out` for this process alone, before anything in it is looked at, and removes temporary files that
  // a dead process has left there. Throws Error that names the process in which another run goes on, or when
  // the directory holds what is not of a run.
  static std::unique_ptr<FileLock> Lock(const std::filesystem::path& out);

  // Opens `out` for a run that `identity` describes (settings, model and calibration fingerprints, code
  // version): a new or empty directory, or one in which a run of the same identity was stopped, be it before
  // it could say which it was. Throws Error when it holds anything else.
  WorkDirectory(const std::filesystem::path& out, const Json& identity);

  const std::filesystem::path& out() const { return out_; }
  // Where intermediate results live until Clear.
  std::filesystem::path File(const std::string& name) const { return work_ / name; }
  std::filesystem::path ShardPath(size_t shard, size_t shards) const;
  // The record of a shard finished by an earlier run; the file's size is checked.
  std::optional<ShardRecord> Finished(size_t shard, size_t shards) const;
  void Record(size_t shard, const ShardRecord& finished) const;
  // Removes everything that the run has written, and the directory if that leaves it empty.
  void Discard(size_t shards) const;
  // Removes the intermediate results of a finished run.
  static void Clear(const std::filesystem::path& out);

 private:
  std::filesystem::path out_, work_;
};

}  // namespace mica
