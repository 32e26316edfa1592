#include <filesystem>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/output.h"
#include "base/progress.h"
#include "base/units.h"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "compress/settings.h"
#include "device/precision.h"
#include "eval/measure/evaluate.h"

namespace mica {
namespace {

struct EvalOptions {
  CommonOptions common;
  EvaluationRequest request;
  std::vector<std::string> data;
  std::string convention = "gptq";
  std::string dtype = "auto";
  std::string activation_memory;
  std::filesystem::path out;
};

void Eval(EvalOptions& options) {
  ApplyCommonOptions(options.common);
  EvaluationRequest& request = options.request;
  request.convention = ParseConvention(options.convention);
  if (options.dtype == "fp32") request.precision = Precision::kFp32;
  if (options.dtype == "bf16") request.precision = Precision::kBf16;
  if (!options.activation_memory.empty())
    request.activation_bytes = ParseBytes(options.activation_memory, "--activation-memory");
  for (const std::string& argument : options.data) request.data.push_back(ParseDataSpec(argument));
  request.seed = options.common.seed;
  if (!options.out.empty()) CheckOutput(options.out);

  Progress progress(!options.common.json);
  const EvaluationRecord result = Evaluate(request, progress);
  // The figures are shown before the file is written, so that a disk that has filled up meanwhile does not
  // take them along.
  WriteStdout(options.common.json ? JsonText(ToJson(result)) : SummaryTable(result));
  if (!options.out.empty()) WriteOutput(options.out, JsonText(ToJson(result)));
}

}  // namespace

void AddEvalCommand(CLI::App& app) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App& command = *app.add_subcommand("eval", "Measure perplexity of a checkpoint, plain or packed");
  EvaluationRequest& request = options->request;
  command.add_option("model", request.model, "Checkpoint directory")->required();
  command
      .add_option("--data", options->data,
                  "Text to measure on, KIND=FILE or NAME:KIND=FILE; KIND is wikitext2, ptb, c4 or text; may "
                  "be given several times")
      ->required();
  command.add_option(
      "--reference", request.reference,
      "Checkpoint that the model was compressed from: measures how far its predictions have moved");
  command.add_option("-o,--output", options->out, "Write the result (JSON) to this file");
  command.add_option("--dtype", options->dtype, "Arithmetic: auto (the fastest here), fp32 or bf16")
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}))
      ->capture_default_str();
  command
      .add_option("--seqlen", request.seqlen,
                  "Tokens of a window [the smaller of 2048 and the model's positions]")
      ->check(CLI::Range(size_t{2}, size_t{1} << 24));
  command.add_option("--max-windows", request.max_windows, "Windows of each text at most; 0: all")
      ->capture_default_str();
  command
      .add_option("--convention", options->convention,
                  "gptq (score whole windows) or llamacpp (BOS in each window, score its second half)")
      ->check(CLI::IsMember({"gptq", "llamacpp"}))
      ->capture_default_str();
  command.add_flag(
      "--special-tokens", request.special_tokens,
      "\"<unk>\" and the like in a text become control tokens, as Hugging Face's tokenizer does it");
  command.add_option("--activation-memory", options->activation_memory,
                     "Memory for activations between layers, such as 2GB; more of it reads the weights less "
                     "often [512 MiB]");
  command.add_flag("--force", request.force, "Measure a packed model even on a text it was calibrated on");
  AddCommonOptions(command, options->common);
  command.callback([options] { Eval(*options); });
}

}  // namespace mica
