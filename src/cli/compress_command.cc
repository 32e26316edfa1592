#include <cstdio>
#include <memory>

#include "base/error.h"
#include "base/progress.h"
#include "base/units.h"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "compress/pipeline.h"
#include "compress/settings.h"
#include "device/precision.h"

namespace mica {
namespace {

struct CompressOptions {
  CommonOptions common;
  CompressionPaths paths;
  CompressionSettings settings;
  std::vector<std::string> calib;
  std::string coding = "fixed", pattern = "unstructured", grouping = "waterfill", estimator = "gaussian",
              dtype = "bf16", size, preset = "balanced";
  double bits = 0, bpw = 0, sparsity = 0;
  std::vector<int> bit_options = {2, 3, 4, 6, 8};
};

void PrintSummary(const Json& report, const std::string& out) {
  const Json& bits = report["bits"];
  const Json& file = report["file"];
  fmt::print("{}\n", out);
  fmt::print("  mean code bits      {:.4f}\n", bits["mean_code_bits"].get<double>());
  fmt::print("  bits per weight     {:.4f}  (all stored bits of {:.1f} M compressed weights)\n",
             bits["bits_per_weight"].get<double>(), bits["compressed_weights"].get<double>() / 1e6);
  fmt::print("  zero weights        {:.1f} %\n", 100 * bits["zero_share"].get<double>());
  fmt::print("  weight files        {} -> {}, {:.2f} times smaller\n",
             FormatBytes(file["bytes_before"].get<double>()), FormatBytes(file["bytes_after"].get<double>()),
             file["ratio"].get<double>());
  fmt::print("  time                {}\n", FormatDuration(report["time"]["total"].get<double>()));
  fmt::print("  peak memory         {}\n", FormatBytes(report["peak_memory_bytes"].get<double>()));
}

// The preset's settings, where no flag of `command` says otherwise.
void ApplyPreset(const CLI::App& command, const std::string& preset, CompressionSettings& settings) {
  const CompressionSettings given = settings;
  ApplyPreset(ParsePreset(preset), settings);
  const auto keep = [&](const char* flag, auto& value, const auto& of_flag) {
    if (command.count(flag) > 0) value = of_flag;
  };
  keep("--trellis", settings.entropy.trellis, given.entropy.trellis);
  keep("--lambda", settings.entropy.lambda, given.entropy.lambda);
  keep("--row-feedback", settings.entropy.row_feedback, given.entropy.row_feedback);
  keep("--token-weights", settings.fisher.token_weights, given.fisher.token_weights);
  keep("--refine-passes", settings.fixed.refine_passes, given.fixed.refine_passes);
  keep("--statistics-windows", settings.information.windows, given.information.windows);
  keep("--drift-compensation", settings.drift.compensation, given.drift.compensation);
  keep("--drift-windows", settings.drift.windows, given.drift.windows);
  keep("--fisher-windows", settings.fisher.windows, given.fisher.windows);
}

void Compress(const CLI::App& command, CompressOptions& options) {
  ApplyCommonOptions(options.common);
  CompressionSettings& settings = options.settings;
  const int budgets = (options.bits > 0) + (options.bpw > 0) + !options.size.empty();
  if (budgets > 1) Fail("more than one budget; give one of --bits, --bpw and --size");
  if (options.bpw > 0)
    settings.budget.target = BudgetTarget::kBitsPerWeight, settings.budget.value = options.bpw;
  if (options.bits > 0)
    settings.budget.target = BudgetTarget::kMeanBits, settings.budget.value = options.bits;
  if (!options.size.empty()) {
    settings.budget.target = BudgetTarget::kFileBytes;
    settings.budget.value = static_cast<double>(ParseBytes(options.size, "--size"));
  }
  settings.coding = ParseCoding(options.coding);
  ApplyPreset(command, options.preset, settings);
  settings.sparsity = ParseSparsity(options.sparsity, options.pattern);
  settings.information.grouping = ParseGroupingMethod(options.grouping);
  settings.information.estimator = ParseEstimator(options.estimator);
  settings.fixed.bit_options.assign(options.bit_options.begin(), options.bit_options.end());
  if (options.dtype != "bf16" && options.dtype != "fp32")
    Fail("--dtype is '{}', expected bf16 or fp32", options.dtype);
  settings.precision = options.dtype == "bf16" ? Precision::kBf16 : Precision::kFp32;
  settings.seed = settings.calibration.seed = options.common.seed;
  const Given given = [&](const std::string& name) { return command.count("--" + name) > 0; };
  CompleteSettings(settings, given);
  RefuseIdleOptions(settings, given);
  for (const std::string& argument : options.calib)
    settings.calibration.sources.push_back(ParseDataSpec(argument, true));

  Progress progress(!options.common.json);
  const Json report = CompressModel(options.paths, settings, progress);
  if (options.common.json) {
    fmt::print("{}\n", report.dump(2));
  } else {
    PrintSummary(report, options.paths.out.string());
  }
}

}  // namespace

void AddCompressCommand(CLI::App& app) {
  auto options = std::make_shared<CompressOptions>();
  CLI::App& command =
      *app.add_subcommand("compress", "Compress a checkpoint to an exact budget and write it packed");
  CompressionSettings& settings = options->settings;
  command.add_option("model", options->paths.model, "Checkpoint directory")->required();
  command
      .add_option("out", options->paths.out, "Packed checkpoint, a new directory (or that of a stopped run)")
      ->required();
  command
      .add_option("--calib", options->calib,
                  "Calibration text KIND=FILE[:WEIGHT]; may be given several times")
      ->required();
  command.add_option("--samples", settings.calibration.samples, "Calibration windows")->capture_default_str();
  command.add_option("--calib-seqlen", settings.calibration.seqlen, "Tokens a window")->capture_default_str();
  command.add_option("--bits", options->bits,
                     "Budget: mean code bits of the compressed matrices (16: prune only) [4.0]");
  command.add_option("--bpw", options->bpw, "Budget: all stored bits per weight of the compressed matrices");
  command.add_option("--size", options->size, "Budget: bytes of the weight files, such as 40MB");
  command
      .add_option("--bit-options", options->bit_options,
                  "Widths to choose from: some of 0, 2, 3, 4, 6, 8, 16")
      ->delimiter(',')
      ->capture_default_str();
  command
      .add_option("--preset", options->preset,
                  "fast, balanced or best: defaults of the flags below that cost time")
      ->capture_default_str();
  command.add_option("--sparsity", options->sparsity, "Share of zeros over all compressed weights")
      ->capture_default_str();
  command.add_option("--pattern", options->pattern, "unstructured, 2:4 or 4:8")->capture_default_str();
  command.add_option("--grouping", options->grouping,
                     "waterfill, spectral, hierarchical or kmeans [waterfill; spectral where --groups or "
                     "--estimator is given]");
  command
      .add_option("--groups", settings.information.groups,
                  "Groups of channels a matrix; 0 chooses by silhouette")
      ->capture_default_str();
  command.add_option("--estimator", options->estimator, "gaussian, copula, histogram or knn")
      ->capture_default_str();
  command.add_option("--group-size", settings.fixed.group_size, "Columns that share a scale")
      ->capture_default_str();
  command.add_option("--damping", settings.damping, "Added to the moments, times their mean diagonal")
      ->capture_default_str();
  command
      .add_option("--energy-weight", settings.fixed.sensitivity.energy_weight,
                  "Exponent of a column's energy in its sensitivity; 0 ignores the inputs")
      ->capture_default_str();
  command
      .add_option("--information-weight", settings.fixed.sensitivity.information_weight,
                  "a in energy * exp(-2 a I); 0 ignores information")
      ->capture_default_str();
  command
      .add_option("--saliency-exponent", settings.fixed.saliency_exponent,
                  "a in the pruning score: 0 Wanda, 1 SparseGPT")
      ->capture_default_str();
  command
      .add_option("--coding", options->coding,
                  "fixed (integer widths) or entropy (uniform grid, entropy-coded)")
      ->capture_default_str();
  command
      .add_option("--trellis", settings.entropy.trellis,
                  "Entropy coding: dependent quantisers along a trellis (true or false)")
      ->capture_default_str();
  command
      .add_option("--lambda", settings.entropy.lambda,
                  "Entropy coding: weight of bits against loss when an integer is chosen; 0: the nearest")
      ->capture_default_str();
  command
      .add_option("--row-feedback", settings.entropy.row_feedback,
                  "Entropy coding: errors are absorbed by later rows as well (true or false)")
      ->capture_default_str();
  command
      .add_option(
          "--token-weights", settings.fisher.token_weights,
          "Tokens count by the norm of their gradients (true or false); needs --fisher-windows for all")
      ->capture_default_str();
  command
      .add_option("--refine-passes", settings.fixed.refine_passes,
                  "Fixed coding: coordinate descent after the feedback; 0: plain GPTQ")
      ->capture_default_str();
  command
      .add_option("--statistics-windows", settings.information.windows, "Windows that allocation is based on")
      ->capture_default_str();
  command
      .add_option("--drift-compensation", settings.drift.compensation,
                  "Share of the inputs' drift that weights make up for, 0 to 1")
      ->capture_default_str();
  command
      .add_option("--drift-damping", settings.drift.damping, "As --damping, where weights make up for drift")
      ->capture_default_str();
  command.add_option("--drift-windows", settings.drift.windows, "Windows that the drift is measured on")
      ->capture_default_str();
  command
      .add_option(
          "--sampled-labels", settings.fisher.sampled_labels,
          "Fisher information with labels drawn from the model instead of the text's own (true or false)")
      ->capture_default_str();
  command.add_option("--fisher-windows", settings.fisher.windows,
                     "Windows of the backward pass; 0: all matrices weigh alike [fixed 8, entropy 16]");
  command.add_option("--embedding-bits", settings.embedding_bits, "Bits of embedding and output head")
      ->capture_default_str();
  command.add_option("--dtype", options->dtype, "Arithmetic of the calibration passes: bf16 or fp32")
      ->capture_default_str();
  command.add_option("--statistics", options->paths.statistics,
                     "Keep the statistics in this file and use them again");
  AddCommonOptions(command, options->common);
  command.callback([options, &command] { Compress(command, *options); });
}

}  // namespace mica
