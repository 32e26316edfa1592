#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/output.h"
#include "base/threads.h"
#include "base/units.h"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/opened_model.h"
#include "generate/speed.h"
#include "ops/packed_product/read_speed.h"
#include "record/options.h"

namespace mica {
namespace {

struct BenchOptions {
  CommonOptions common;
  std::vector<std::filesystem::path> models;
  Json given = Json::object();
};

struct Measured {
  std::string model;
  RunningCost cost;
  uint64_t peak_bytes = 0;
  double load_seconds = 0;
};

Measured Measure(const std::filesystem::path& path, const BenchOptions& options) {
  const auto value = [&](const char* name) { return ValueOf(options.given, FindOption(BenchOptionTable(), name)); };
  const SpeedSettings settings = {.prompt_tokens = value("prompt-tokens"),
                                  .generated_tokens = value("generated-tokens"),
                                  .repetitions = value("repetitions"),
                                  .cache_bits = std::stoi(value("kv-bits").get<std::string>()),
                                  .seed = options.common.seed};
  OpenedModel opened(path, settings.Context(), settings.cache_bits, options.common.device);
  opened.Load();
  Measured measured = {.model = path.string(),
                       .cost = MeasureRunning(opened.weights(), opened.running(), settings),
                       .peak_bytes = opened.PeakBytes(),
                       .load_seconds = opened.load_seconds()};
  return measured;
}

std::string SpeedText(const Speed& speed) {
  return speed.mean == 0 ? "-" : fmt::format("{:.2f} ± {:.2f}", speed.mean, speed.deviation);
}

void Bench(BenchOptions& options) {
  ApplyCommonOptions(options.common);
  const Json prompt = ValueOf(options.given, FindOption(BenchOptionTable(), "prompt-tokens")),
             generated = ValueOf(options.given, FindOption(BenchOptionTable(), "generated-tokens"));
  const Json* given_out = ValueIn(options.given, FindOption(BenchOptionTable(), "output"));
  const std::filesystem::path out = given_out == nullptr ? "" : given_out->get<std::string>();
  if (!out.empty()) {
    CheckFiles({.inputs = options.models, .outputs = {out}, .directories = {}, .harmless = {}});
    CheckOutput(out);
  }
  const Device device = options.common.device;
  const double bandwidth = ReadBytesPerSecond(device);
  std::vector<std::vector<std::string>> rows = {{"model", "file", "in memory", "bits", fmt::format("pp{} t/s", prompt.get<size_t>()),
                                                 fmt::format("tg{} t/s", generated.get<size_t>()), "of bandwidth", "peak"}};
  Json models = Json::array();
  for (const std::filesystem::path& path : options.models) {
    const Measured m = Measure(path, options);
    const RunningCost& cost = m.cost;
    const double share = cost.decode.mean * static_cast<double>(cost.bytes_per_token) / bandwidth;
    rows.push_back({m.model, FormatBytes(static_cast<double>(cost.file_bytes)),
                    FormatBytes(static_cast<double>(cost.weight_bytes)), fmt::format("{:.2f}", cost.bits),
                    SpeedText(cost.prompt), SpeedText(cost.decode), fmt::format("{:.0f} %", 100 * share),
                    FormatBytes(static_cast<double>(m.peak_bytes))});
    models.push_back({{"model", m.model},
                      {"file_bytes", cost.file_bytes},
                      {"weight_bytes", cost.weight_bytes},
                      {"bytes_per_token", cost.bytes_per_token},
                      {"bits_per_weight", cost.bits},
                      {"load_seconds", m.load_seconds},
                      {"peak_bytes", m.peak_bytes},
                      {"prompt", {{"tokens_per_second", cost.prompt.mean}, {"deviation", cost.prompt.deviation}}},
                      {"decode", {{"tokens_per_second", cost.decode.mean}, {"deviation", cost.decode.deviation}}},
                      {"share_of_bandwidth", share}});
  }
  const Json result = {{"device", device.Describe()},       {"threads", Threads()},
                       {"prompt_tokens", prompt},           {"generated_tokens", generated},
                       {"read_bytes_per_second", bandwidth}, {"models", std::move(models)}};
  std::vector<FileResult> files;
  if (!out.empty()) files.push_back({out, JsonText(result)});
  WriteResults(files, options.common.json
                          ? JsonText(result)
                          : fmt::format("{}\n{}, {} threads; memory is read at {}/s\n", AlignedTable(rows),
                                        device.Describe(), Threads(), FormatBytes(bandwidth)));
}

}  // namespace

Subcommand BenchCommand() {
  auto options = std::make_shared<BenchOptions>();
  return {.name = "bench",
          .help = "Measure how fast models read a prompt and generate text, side by side",
          .arguments = {{"model", nullptr, "Checkpoint directories or GGUF files", true, &options->models}},
          .flags = {{BenchOptionTable(), &options->given}, CommonFlags(options->common)},
          .run = [options] { Bench(*options); }};
}

}  // namespace mica
