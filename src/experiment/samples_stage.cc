#include "experiment/samples_stage.h"

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/system.h"
#include "eval/measure/samples.h"
#include "model/vocabulary.h"
#include "model/weights.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

SampleTask TaskOf(const ExperimentDirectory& directory) {
  const Experiment& experiment = directory.experiment();
  return {.prompts = directory.prompts(),
          .tokens = experiment.samples.tokens,
          .seed = experiment.compression.seed,
          .device = experiment.evaluation.device};
}

SamplesRecord Take(const SampleTask& task, const Experiment& experiment, const fs::path& packed, Progress& progress) {
  const double began = MonotonicSeconds();
  SamplesRecord record;
  const fs::path& original = experiment.evaluation.model;
  const ModelWeights weights = ModelWeights::Open(original), packed_weights = ModelWeights::Open(packed);
  std::string why = WhyNoSamples(weights, task, "original");
  if (why.empty()) why = WhyNoSamples(packed_weights, task, "compressed");
  if (!why.empty()) {
    LogWarning("no samples: {}", why);
    record.skipped = why;
    return record;
  }
  const Tokenizer tokenizer = OpenTokenizer(original, weights.config(), experiment.evaluation.tokenizer);
  const uint64_t tokens = task.prompts.size() * task.tokens;
  progress.Begin("samples", 2 * tokens, "tokens");
  const auto advance = [&](const char* of) {
    return [&progress, of](uint64_t done) { progress.Advance(done, of); };
  };
  const SampledModel before = SampleModel(weights, original, tokenizer, task, nullptr, advance("original"));
  SampledModel after = SampleModel(packed_weights, packed, tokenizer, task, &before, advance("compressed"));
  record = CompareSamples(task, before, after);
  progress.End();
  record.seconds = MonotonicSeconds() - began;
  return record;
}

}  // namespace

bool TakeSamples(ExperimentDirectory& directory, const EvaluationRecord& baseline, const fs::path& packed,
                 EvaluationRecord& compressed) {
  if (!directory.experiment().samples.wanted()) {
    const bool had = compressed.samples.has_value();
    compressed.samples.reset();
    return had;
  }
  const SampleTask task = TaskOf(directory);
  std::vector<std::vector<int32_t>> ids;
  for (const SamplePrompt& prompt : task.prompts) ids.push_back(prompt.ids);
  const std::string made_of = SamplesMadeOf(baseline, compressed, task.tokens, ids);
  // What was skipped is tried again: there may be more memory now.
  if (compressed.samples && compressed.samples->made_of == made_of && !compressed.samples->skipped) return false;
  SamplesRecord record = Take(task, directory.experiment(), packed, directory.progress());
  record.made_of = made_of;
  compressed.samples = std::move(record);
  return true;
}

}  // namespace mica
