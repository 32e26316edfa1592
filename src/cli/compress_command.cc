#include <fmt/format.h>

#include <memory>

#include "base/error.h"
#include "base/output.h"
#include "base/progress.h"
#include "base/text.h"
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

std::string Summary(const CompressionRecord& record, const std::string& out) {
  const BitTotals& bits = record.bits;
  const FileSizes& file = record.file;
  std::string text = Printable(out, std::string::npos) + "\n";
  const auto line = [&](const char* label, const std::string& value) {
    text += fmt::format("  {:<19} {}\n", label, value);
  };
  line("mean code bits", fmt::format("{:.4f}", *bits.mean_code_bits));
  line("bits per weight",
       fmt::format("{:.4f}  (all stored bits of {:.1f} M compressed weights)", *bits.bits_per_weight,
                   static_cast<double>(*bits.compressed_weights) / 1e6));
  line("zero weights", fmt::format("{:.1f} %", 100 * *bits.zero_share));
  line("weight files",
       fmt::format("{} -> {}, {:.2f} times smaller", FormatBytes(static_cast<double>(*file.bytes_before)),
                   FormatBytes(static_cast<double>(*file.bytes_after)), *file.ratio));
  line("time", FormatDuration(*record.time.total));
  line("peak memory", FormatBytes(static_cast<double>(*record.peak_memory_bytes)));
  return text;
}

void Compress(CompressOptions& options) {
  ApplyCommonOptions(options.common);
  options.paths.statistics = options.given.value("statistics", "");
  options.given["seed"] = options.common.seed;
  const CompressionSettings settings = SettingsFromJson(options.given, "");
  RefuseIdleOptions(settings, GivenIn(options.given));

  Progress progress(!options.common.json);
  const CompressionRecord record = CompressModel(options.paths, settings, progress);
  WriteStdout(options.common.json ? JsonText(ToJson(record)) : Summary(record, options.paths.out.string()));
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
