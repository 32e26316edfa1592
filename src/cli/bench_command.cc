#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/output.h"
#include "base/system.h"
#include "base/threads.h"
#include "base/units.h"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/opened_model.h"
#include "device/cuda.h"
#include "model/key_cache.h"
#include "ops/packed_product/read_speed.h"
#include "record/options.h"

namespace mica {
namespace {

struct BenchOptions {
  CommonOptions common;
  std::vector<std::filesystem::path> models;
  Json given = Json::object();
};

struct Speed {
  double mean = 0, deviation = 0;  // tokens/s
};

Speed SpeedOf(const std::vector<double>& samples) {
  Speed speed;
  for (const double sample : samples) speed.mean += sample / static_cast<double>(samples.size());
  for (const double sample : samples) speed.deviation += (sample - speed.mean) * (sample - speed.mean);
  if (samples.size() > 1) speed.deviation = std::sqrt(speed.deviation / static_cast<double>(samples.size() - 1));
  return speed;
}

struct Measured {
  std::string model;
  uint64_t file_bytes = 0, weight_bytes = 0, bytes_per_token = 0, peak_bytes = 0;
  double load_seconds = 0, bits = 0;
  Speed prompt, decode;
};

// Tokens that mean nothing: how fast a model is does not depend on them.
std::vector<int32_t> SomeTokens(const ModelConfig& config, size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % config.vocab);
  return ids;
}

template <typename Work>
Speed Repeat(size_t repetitions, size_t tokens, Device device, const Work& work) {
  std::vector<double> samples;
  for (size_t i = 0; i <= repetitions; ++i) {
    ThrowIfInterrupted();
    const double began = MonotonicSeconds();
    work();
    Synchronize(device);
    if (i > 0) samples.push_back(static_cast<double>(tokens) / (MonotonicSeconds() - began));
  }
  return SpeedOf(samples);
}

Measured Measure(const std::filesystem::path& path, const BenchOptions& options) {
  const auto value = [&](const char* name) { return ValueOf(options.given, FindOption(BenchOptionTable(), name)); };
  const size_t prompt_tokens = value("prompt-tokens"), generated = value("generated-tokens"),
               repetitions = value("repetitions");
  const int bits = std::stoi(value("kv-bits").get<std::string>());
  const size_t context = std::max<size_t>({2, prompt_tokens, generated});
  OpenedModel opened(path, context, bits, options.common.device);
  opened.Load();
  const RunningModel& model = opened.running();
  Measured measured = {.model = path.string(),
                       .file_bytes = 0,
                       .weight_bytes = model.weight_bytes(),
                       .bytes_per_token = model.bytes_per_token(),
                       .peak_bytes = 0,
                       .load_seconds = opened.load_seconds(),
                       .bits = 8.0 * static_cast<double>(model.bytes_per_token()) /
                               static_cast<double>(model.weights_per_token()),
                       .prompt = {},
                       .decode = {}};
  for (const TensorView& tensor : opened.weights().checkpoint().tensors()) measured.file_bytes += tensor.stored_bytes();
  KeyCache cache(model.config(), context, bits, model.device());
  const std::vector<int32_t> ids = SomeTokens(model.config(), context, options.common.seed);
  if (prompt_tokens > 0) {
    measured.prompt = Repeat(repetitions, prompt_tokens, model.device(), [&] {
      cache.Truncate(0);
      model.Continue(std::span(ids).first(prompt_tokens), cache);
    });
  }
  if (generated > 0) {
    measured.decode = Repeat(repetitions, generated, model.device(), [&] {
      cache.Truncate(0);
      for (size_t t = 0; t < generated; ++t) {
        ThrowIfInterrupted();
        model.Continue(std::span(ids).subspan(t, 1), cache);
      }
    });
  }
  measured.peak_bytes = opened.PeakBytes();
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
    const double share = m.decode.mean * static_cast<double>(m.bytes_per_token) / bandwidth;
    rows.push_back({m.model, FormatBytes(static_cast<double>(m.file_bytes)),
                    FormatBytes(static_cast<double>(m.weight_bytes)), fmt::format("{:.2f}", m.bits),
                    SpeedText(m.prompt), SpeedText(m.decode), fmt::format("{:.0f} %", 100 * share),
                    FormatBytes(static_cast<double>(m.peak_bytes))});
    models.push_back({{"model", m.model},
                      {"file_bytes", m.file_bytes},
                      {"weight_bytes", m.weight_bytes},
                      {"bytes_per_token", m.bytes_per_token},
                      {"bits_per_weight", m.bits},
                      {"load_seconds", m.load_seconds},
                      {"peak_bytes", m.peak_bytes},
                      {"prompt", {{"tokens_per_second", m.prompt.mean}, {"deviation", m.prompt.deviation}}},
                      {"decode", {{"tokens_per_second", m.decode.mean}, {"deviation", m.decode.deviation}}},
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
