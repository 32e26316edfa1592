// The points of a sweep: an experiment's "sweep" object, taken apart into one "compress" object a point.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "compress/settings.h"
#include "experiment/experiment.h"
#include "record/compression.h"

namespace mica {

struct SweepPoint {
  std::string name;      // "bpw-2.5-sparsity-0.5": its directory
  Ordered<Json> values;  // what it is told apart by, by the name of the option: {"bpw", 2.5}, {"seed", 1}
  Json compress;         // the "compress" of its run: what is given and changes something
  CompressionSettings settings;
  std::optional<QualityBudget> quality;  // in place of the budget
};

// Which points keep their packed files; their results stay in any case.
enum class KeptFiles { kFront, kAll, kNone };

// A file of another program, shown beside the points: a model to be measured, or a result.
struct SweepOther {
  std::string name;
  std::filesystem::path path;
  double bytes = 0, bits = 0;  // of a result that does not say them; 0: not given
};

struct SweepPlan {
  std::vector<SweepPoint> points;  // in the order in which they are run
  KeptFiles keep = KeptFiles::kFront;
  std::vector<SweepOther> others;
};

// Reads experiment.sweep:
//   {"budget": {"kind": "bpw", "value": AXIS}, any other key of "compress": AXIS, ...
//    "points": [{keys of "compress"}, ...], "keep": "front" | "all" | "none",
//    "others": ["FILE", {"path", "name", "bytes", "bits_per_weight"}]}
// AXIS is a list of values or {"from", "to", "points"}; budgets may also be a list of {"kind", "value"}.
// Points are those of the full grid, the last axis changing fastest, or "points" in its place. What changes
// nothing at a point is left out there, and points that are then alike are one. Throws Error for unknown
// keys, values that an option cannot have, options that change nothing at any point, and points that cannot
// be.
SweepPlan PlanSweep(const Experiment& experiment);

// "bpw 2.5, sparsity 0.5".
std::string LabelOf(const Ordered<Json>& values);

}  // namespace mica
