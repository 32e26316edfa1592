// Runs an experiment at every point of its sweep: baseline and statistics once, each point as `mica run`
// makes it, and what the points say together.
#pragma once

#include "compress/pipeline.h"
#include "eval/report/sweep_figures.h"
#include "experiment/experiment.h"
#include "experiment/sweep/sweep_plan.h"

namespace mica {

inline constexpr const char* kSweepFile = "sweep.json";

// What the compression of a point needs, whose settings then have the budget that it begins with. Throws
// Error, naming the point, when it cannot be.
CompressionNeeds NeedsOfPoint(const Experiment& experiment, SweepPoint& point);

// Runs what is not done yet: DIR/baseline.json, DIR/statistics-*.safetensors (one for each kind that points
// need), DIR/POINT/{packed/, compressed.json, comparison.*} for each point, DIR/others/NAME.json for models
// of other programs, then DIR/sweep.json and DIR/sweep{,.zh}.{txt,md,html}. Packed files of points that
// others beat go as soon as they are beaten, where the sweep keeps those of the front. DIR/status.json tells
// `mica status` how far it is. Prints the text report unless `quiet`.
SweepSummary RunSweep(const Experiment& experiment, bool quiet);

}  // namespace mica
