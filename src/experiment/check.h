// Looks at everything that an experiment needs, in seconds and without writing, before hours are spent on it.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "experiment/experiment.h"

namespace mica {

enum class CheckState {
  kOk,
  kNote,   // it will run, but hear this
  kWrong,  // the command would refuse it
  kUnseen  // needs something that is wrong itself
};

struct CheckLine {
  CheckState state = CheckState::kOk;
  std::string what;  // "model", "text c4", "memory"
  std::string text;  // what was found; of what is wrong, what to do
};

// A stage of the run and what is left of it to do.
struct StageLine {
  std::string stage;
  bool finished = false;
  std::string text;
};

struct ExperimentCheck {
  std::vector<CheckLine> lines;
  std::vector<StageLine> stages;

  size_t Wrong() const;  // lines that say so
};

// Files and model, as far as their headers show; expectations; tokenizer; texts, with as many of their tokens
// as say whether the windows are there; calibration text against evaluation text; options and budget; disk
// and memory; the directory. What only the values of the weights show is not looked at. Writes nothing.
ExperimentCheck CheckExperiment(const Experiment& experiment);
// The same of an experiment's sweep: a line and a stage for each point.
ExperimentCheck CheckSweep(const Experiment& experiment);

// A line each, for people.
std::string CheckText(const ExperimentCheck& check);
// {"ok", "checks": [{"check", "state", "text"}], "stages": [{"stage", "finished", "text"}]}
Json ToJson(const ExperimentCheck& check);

}  // namespace mica
