#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/json.h"
#include "base/output.h"
#include "base/progress.h"
#include "base/system.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "io/text/tokenizer.h"
#include "model/family/family.h"
#include "model/synthesize.h"
#include "record/options.h"

namespace mica {
namespace {

// The options, with the model types that there are.
std::vector<Option> SynthesisTable() {
  std::vector<Option> table(SynthesisOptionTable().begin(), SynthesisOptionTable().end());
  for (Option& option : table) {
    if (std::string_view(option.name) != "architecture") continue;
    option.kind = OptionKind::kChoice;
    for (const ModelType* type : ModelTypes()) option.words.push_back(type->name.data());
  }
  return table;
}

struct SynthesizeOptions {
  CommonOptions common;
  std::filesystem::path out;
  std::vector<Option> table = SynthesisTable();
  Json given = Json::object();
};

// The preset's shape with what the flags change. Heads without KV heads mean as many of both.
RandomCheckpointSpec Spec(const SynthesizeOptions& options) {
  const auto value = [&](const char* name) {
    return ValueOf(options.given, FindOption(SynthesisOptionTable(), name));
  };
  const auto set = [&](const char* name, auto& member) {
    if (const Json given = value(name); !given.is_null())
      member = given.get<std::remove_reference_t<decltype(member)>>();
  };
  RandomCheckpointSpec spec;
  ApplyPreset(value("preset").get<std::string>(), spec);
  set("heads", spec.heads);
  set("heads", spec.kv_heads);
  set("kv-heads", spec.kv_heads);
  set("layers", spec.layers);
  set("hidden", spec.hidden);
  set("head-dim", spec.head_dim);
  set("ffn", spec.ffn);
  set("max-positions", spec.max_positions);
  set("rope-theta", spec.rope_theta);
  set("architecture", spec.model_type);
  if (const Json tied = value("tied"); tied == true) spec.tied = true;
  set("attention-bias", spec.attention_bias);
  set("shard-bytes", spec.shard_bytes);
  set("tokenizer", spec.tokenizer);
  set("vocab", spec.vocab);
  if (value("vocab").is_null() && !spec.tokenizer.empty())
    spec.vocab =
        std::max(spec.vocab, static_cast<size_t>(Tokenizer::Open(spec.tokenizer).vocab_size_with_added()));
  spec.format = value("format") == "bin" ? CheckpointFormat::kTorch : CheckpointFormat::kSafetensors;
  const Json dtype = value("dtype");
  spec.dtype = dtype == "fp32" ? DType::kF32 : dtype == "bf16" ? DType::kBF16 : DType::kF16;
  spec.seed = options.common.seed;
  return spec;
}

void Synthesize(SynthesizeOptions& options) {
  ApplyCommonOptions(options.common);
  const double began = MonotonicSeconds();
  Progress progress(!options.common.json);
  const RandomCheckpointFacts facts = WriteRandomCheckpoint(Spec(options), options.out, progress);
  const double seconds = MonotonicSeconds() - began;
  if (options.common.json) {
    WriteStdout(JsonText({{"model", options.out.string()},
                          {"parameters", facts.parameters},
                          {"file_bytes", facts.file_bytes},
                          {"shards", facts.shards},
                          {"seconds", seconds},
                          {"peak_memory_bytes", PeakResidentBytes()}}));
  } else {
    WriteStdout(fmt::format("{}: {} parameters in {} file{}, {}, written in {} with {} of memory\n",
                            Printable(options.out.string(), std::string::npos), facts.parameters,
                            facts.shards, facts.shards == 1 ? "" : "s",
                            FormatBytes(static_cast<double>(facts.file_bytes)), FormatDuration(seconds),
                            FormatBytes(static_cast<double>(PeakResidentBytes()))));
  }
}

}  // namespace

Subcommand SynthesizeCommand() {
  auto options = std::make_shared<SynthesizeOptions>();
  return {.name = "synthesize",
          .help = "Write a checkpoint of any shape with random weights, to test scale and memory",
          .arguments = {{"out", &options->out, "Directory to write, absent or empty"}},
          .flags = {{options->table, &options->given}, CommonFlags(options->common)},
          .run = [options] { Synthesize(*options); }};
}

}  // namespace mica
