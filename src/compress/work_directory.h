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
#include "device/group.h"
#include "record/compression.h"
#include "record/identity.h"

namespace mica {

// Shards before the first layer's: embedding, final norm and what else stands outside the layers. The output
// head has the last one, where it is not the embedding.
inline constexpr size_t kShardsBeforeLayers = 1;

class WorkDirectory {
 public:
  // Takes `out` for this process alone, before anything in it is looked at, and removes temporary files that
  // a dead process has left there. Throws Error that names the process in which another run goes on, or when
  // the directory holds what is not of a run.
  static std::unique_ptr<FileLock> Lock(const std::filesystem::path& out);

  // Opens `out` for a run that depends on `identity`: a new or empty directory, or one in which a run of the
  // same identity was stopped, be it before it could say which it was. What is there of a run that has
  // nothing to go on with is discarded. Throws Error when it holds anything else, naming what differs.
  // shards_stay: whether they are what the run ends in, or go with the rest. Of several ranks the one that leads does
  // so, before the others go on.
  WorkDirectory(const std::filesystem::path& out, const Identity& identity, size_t shards,
                bool shards_stay = true, const Group& group = Group::Alone());

  const std::filesystem::path& out() const { return out_; }
  // Where the statistics are kept until Clear.
  std::filesystem::path StatisticsPath() const { return work_ / "statistics.safetensors"; }
  std::filesystem::path ShardPath(size_t shard) const;
  // The record of a shard finished by an earlier run; the file's size is checked. Called by all ranks.
  std::optional<ShardRecord> Finished(size_t shard) const;
  // Whether there is one, as this rank sees it.
  bool HasFinished(size_t shard) const;
  // What the leading rank has of a shard, which others need not give: for all. Called by all ranks.
  ShardRecord Share(const ShardRecord& shard) const;
  void Record(size_t shard, const ShardRecord& finished) const;
  // Whether a later run has something to go on with: statistics, or the shard of a layer.
  bool Resumable() const;
  // Removes everything that the run has written, and the directory if that leaves it empty.
  void Discard() const;
  // Of a stopped run in `out`: the shards that are finished, one after the other.
  static size_t FinishedShards(const std::filesystem::path& out);
  // Removes the intermediate results of a finished run.
  static void Clear(const std::filesystem::path& out);

 private:
  void Begin(const Identity& identity);
  std::filesystem::path RecordPath(size_t shard) const;
  void RemoveWritten() const;

  std::optional<ShardRecord> ReadFinished(size_t shard) const;

  std::filesystem::path out_, work_;
  size_t shards_;
  bool shards_stay_;
  const Group* group_;
};

}  // namespace mica
