#include <filesystem>
#include <memory>

#include "base/output.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/option_flags.h"
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

void Eval(EvalOptions& options) {
  ApplyCommonOptions(options.common);
  EvaluationRequest request = RequestFromJson(options.given, "");
  request.model = options.model;
  request.seed = options.common.seed;
  const std::filesystem::path out = options.given.value("output", "");
  if (!out.empty()) CheckOutput(out);

  Progress progress(!options.common.json);
  const EvaluationRecord result = Evaluate(request, progress);
  // The figures are shown before the file is written, so that a disk that has filled up meanwhile does not
  // take them along.
  WriteStdout(options.common.json ? JsonText(ToJson(result)) : SummaryTable(result));
  if (!out.empty()) WriteOutput(out, JsonText(ToJson(result)));
}

}  // namespace

void AddEvalCommand(CLI::App& app) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App& command = *app.add_subcommand("eval", "Measure perplexity of a checkpoint, plain or packed");
  command.add_option("model", options->model, "Checkpoint directory")->required();
  AddFlags(command, EvaluationOptionTable(), options->given, WrongValue::kIsUsage);
  AddCommonOptions(command, options->common);
  command.callback([options] { Eval(*options); });
}

}  // namespace mica
