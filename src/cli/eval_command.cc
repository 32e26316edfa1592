#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/output.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "eval/measure/evaluate.h"
#include "eval/measure/request.h"
#include "record/options.h"

namespace mica {
namespace {

struct EvalOptions {
  CommonOptions common;
  std::filesystem::path model;
  Json given = Json::object();  // as an experiment's "evaluate" would say it
};

// Whether a model directory has its own use for a file of this name.
bool IsModelFile(const std::string& name) {
  for (const char* begin : {"config", "generation_config", "compression", "tokenizer", "special_tokens",
                            "added_tokens", "vocab", "chat_template", "preprocessor_config", "model."}) {
    if (name.starts_with(begin)) return true;
  }
  return name.ends_with(".index.json");
}

// A result may lie beside the model that it is of, unless it would be one of the files that a model consists
// of: there it may be new, or replace an earlier result.
bool MayLieInAModel(const std::filesystem::path& out) {
  if (!std::filesystem::exists(out))
    return out.extension() == ".json" && !IsModelFile(out.filename().string());
  try {
    const Json before = ReadJson(out);
    return before.is_object() && before.contains("mica") && before.contains("datasets");
  } catch (const Error&) {
    return false;
  }
}

void Eval(EvalOptions& options) {
  ApplyCommonOptions(options.common, SeveralRanks::kYes);
  EvaluationRequest request = RequestFromJson(options.given, "");
  request.model = options.model;
  request.seed = options.common.seed;
  request.device = options.common.device;
  request.group = options.common.group;
  const std::filesystem::path out = options.given.value("output", "");
  if (!out.empty()) {
    CommandFiles files{.inputs = {request.model, request.reference, request.tokenizer},
                       .outputs = {out},
                       .directories = {},
                       .harmless = MayLieInAModel};
    if (!std::filesystem::is_directory(request.model)) files.inputs.push_back(RecordOf(request.model));
    for (const DataSpec& set : request.data) files.inputs.push_back(set.path);
    CheckFiles(files);
    CheckOutput(out);
  }

  Progress progress(!options.common.json);
  const EvaluationRecord result = Evaluate(request, progress);
  const std::string json = JsonText(ToJson(result));
  std::vector<FileResult> results;
  if (!out.empty()) results.push_back({out, json});
  WriteResults(results, options.common.json ? json : SummaryTable(result));
}

}  // namespace

Subcommand EvalCommand() {
  auto options = std::make_shared<EvalOptions>();
  return {.name = "eval",
          .help = "Measure perplexity of a checkpoint, plain or packed, or of a GGUF file",
          .arguments = {{"model", &options->model, "Checkpoint directory or GGUF file"}},
          .flags = {{EvaluationOptionTable(), &options->given}, CommonFlags(options->common)},
          .run = [options] { Eval(*options); }};
}

}  // namespace mica
