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

void PrintSummary(const CompressionRecord& record, const std::string& out) {
  const BitTotals& bits = record.bits;
  const FileSizes& file = record.file;
  fmt::print("{}\n", out);
  fmt::print("  mean code bits      {:.4f}\n", *bits.mean_code_bits);
  fmt::print("  bits per weight     {:.4f}  (all stored bits of {:.1f} M compressed weights)\n",
             *bits.bits_per_weight, static_cast<double>(*bits.compressed_weights) / 1e6);
  fmt::print("  zero weights        {:.1f} %\n", 100 * *bits.zero_share);
  fmt::print("  weight files        {} -> {}, {:.2f} times smaller\n",
             FormatBytes(static_cast<double>(*file.bytes_before)),
             FormatBytes(static_cast<double>(*file.bytes_after)), *file.ratio);
  fmt::print("  time                {}\n", FormatDuration(*record.time.total));
  fmt::print("  peak memory         {}\n", FormatBytes(static_cast<double>(*record.peak_memory_bytes)));
}

void Compress(CompressOptions& options) {
  ApplyCommonOptions(options.common);
  options.paths.statistics = options.given.value("statistics", "");
  options.given["seed"] = options.common.seed;
  const CompressionSettings settings = SettingsFromJson(options.given, "");
  RefuseIdleOptions(settings, GivenIn(options.given));

  Progress progress(!options.common.json);
  const CompressionRecord record = CompressModel(options.paths, settings, progress);
  if (options.common.json) {
    fmt::print("{}\n", ToJson(record).dump(2));
  } else {
    PrintSummary(record, options.paths.out.string());
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
