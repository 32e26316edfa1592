// The whole compression: statistics -> allocation -> layer by layer prune and quantise -> packed checkpoint.
#pragma once

#include <filesystem>

#include "base/json.h"
#include "device/device.h"
#include "device/group.h"

#include "base/progress.h"
#include "compress/settings.h"
#include "device/memory_plan.h"
#include "record/compression.h"
#include "record/identity.h"

namespace mica {

struct CompressionPaths {
  std::filesystem::path model;  // checkpoint to compress
  // Packed checkpoint: a new directory, or one in which the same run was stopped; or a GGUF file (output_place.h).
  std::filesystem::path out;
  std::filesystem::path
      statistics;  // file to keep the statistics in, used again by later runs; empty: none is kept
  // Instead: a directory of such files, one for each kind of statistics, named after what they were made of.
  std::filesystem::path statistics_store = {};
};

// Throws the Error that CompressModel would throw for what can be known at once: settings, model, tokenizer,
// texts, a budget out of reach. Writes nothing.
void CheckCompression(const CompressionPaths& paths, const CompressionSettings& settings, Progress& progress);

// Budgets that settings and model allow, whatever settings.budget.value is: bits or bytes as its target says; `most`
// may be infinite. per_bit: what a bit more for each compressed weight is in that measure.
struct BudgetReach {
  double least = 0, most = 0, per_bit = 1;
};
BudgetReach ReachOfBudget(const CompressionPaths& paths, const CompressionSettings& settings, Progress& progress);

// What a compression takes, before it begins.
struct CompressionNeeds {
  double disk_bytes = 0;        // of `out`, about
  double statistics_bytes = 0;  // of the statistics that are kept, at most
  MemoryPlan memory;            // compress/plan.h
};
// Which compression it would be (record/identity.h); writes nothing. Throws what CheckCompression throws.
Identity IdentityOfCompression(const CompressionPaths& paths, const CompressionSettings& settings,
                               Progress& progress);
// Throws what CheckCompression throws of settings, model and budget, and leaves tokenizer and texts aside.
CompressionNeeds NeedsOfCompression(const CompressionPaths& paths, const CompressionSettings& settings,
                                    Progress& progress);

// Compresses and returns what is also written to its record, out/compression.json (output_place.h): settings, budget and what was reached,
// bits by part and by layer, file sizes, time by phase, peak memory. Everything it says of sizes is counted
// on the files written. Where the same run was finished before, its record is returned. Throws Error, for a
// directory that holds another run naming what differs; a stopped run leaves `out` resumable, one that failed
// before there was something to go on with leaves nothing.
CompressionRecord CompressModel(const CompressionPaths& paths, const CompressionSettings& settings,
                                Progress& progress);
// What ranks do that settings.arithmetic.group of the leading one's CompressModel has besides. task: as they are told,
// {"task": "compress", ...}.
void FollowCompression(const Json& task, Device device, const Group& group);

}  // namespace mica
