#include <cstdio>
#include <memory>

#include "base/error.h"
#include "base/progress.h"
#include "base/units.h"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/option_flags.h"
#include "compress/pipeline.h"
#include "compress/settings.h"
#include "record/options.h"

namespace mica {
namespace {

struct CompressOptions {
  CommonOptions common;
  CompressionPaths paths;
  Json given = Json::object();  // as an experiment's "compress" would say it
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

void Compress(CompressOptions& options) {
  ApplyCommonOptions(options.common);
  options.paths.statistics = options.given.value("statistics", "");
  options.given["seed"] = options.common.seed;
  const CompressionSettings settings = SettingsFromJson(options.given, "");
  RefuseIdleOptions(settings, GivenIn(options.given));

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
  command.add_option("model", options->paths.model, "Checkpoint directory")->required();
  command
      .add_option("out", options->paths.out, "Packed checkpoint, a new directory (or that of a stopped run)")
      ->required();
  AddFlags(command, CompressionOptionTable(), options->given);
  AddCommonOptions(command, options->common);
  command.callback([options] { Compress(*options); });
}

}  // namespace mica
