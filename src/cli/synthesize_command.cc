#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/output.h"
#include "base/progress.h"
#include "base/system.h"
#include "base/units.h"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "compress/settings.h"
#include "io/text/tokenizer.h"
#include "model/family/family.h"
#include "model/synthesize.h"

namespace mica {
namespace {

struct SynthesizeOptions {
  CommonOptions common;
  std::filesystem::path out;
  std::string preset = "tiny";
  std::string format = "safetensors";
  std::string dtype = "f16";
  std::string shard_bytes;
  std::optional<size_t> layers, hidden, heads, kv_heads, head_dim, ffn, vocab, max_positions;
  RandomCheckpointSpec spec;
};

// The preset's shape with what the flags change. Heads without KV heads mean as many of both.
RandomCheckpointSpec Spec(const SynthesizeOptions& options) {
  RandomCheckpointSpec spec = options.spec;
  ApplyPreset(options.preset, spec);
  if (options.heads) spec.heads = spec.kv_heads = *options.heads;
  const auto set = [](const std::optional<size_t>& given, size_t& value) { value = given.value_or(value); };
  set(options.layers, spec.layers);
  set(options.hidden, spec.hidden);
  set(options.kv_heads, spec.kv_heads);
  set(options.head_dim, spec.head_dim);
  set(options.ffn, spec.ffn);
  set(options.max_positions, spec.max_positions);
  if (options.vocab) {
    spec.vocab = *options.vocab;
  } else if (!spec.tokenizer.empty()) {
    spec.vocab = std::max(spec.vocab, static_cast<size_t>(Tokenizer::Open(spec.tokenizer).vocab_size()));
  }
  spec.format = options.format == "bin" ? CheckpointFormat::kTorch : CheckpointFormat::kSafetensors;
  spec.dtype = options.dtype == "f32" ? DType::kF32 : options.dtype == "bf16" ? DType::kBF16 : DType::kF16;
  if (options.shard_bytes == "0") {
    spec.shard_bytes = 0;
  } else if (!options.shard_bytes.empty()) {
    spec.shard_bytes = ParseBytes(options.shard_bytes, "--shard-bytes");
  }
  spec.seed = options.common.seed;
  return spec;
}

void Synthesize(const SynthesizeOptions& options) {
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
                            options.out.string(), facts.parameters, facts.shards,
                            facts.shards == 1 ? "" : "s", FormatBytes(static_cast<double>(facts.file_bytes)),
                            FormatDuration(seconds), FormatBytes(static_cast<double>(PeakResidentBytes()))));
  }
}

}  // namespace

void AddSynthesizeCommand(CLI::App& app) {
  auto options = std::make_shared<SynthesizeOptions>();
  CLI::App& command = *app.add_subcommand(
      "synthesize", "Write a checkpoint of any shape with random weights, to test scale and memory");
  RandomCheckpointSpec& spec = options->spec;
  command.add_option("out", options->out, "Directory to write, absent or empty")->required();
  command.add_option("--preset", options->preset, "Shape to start from: tiny, llama-7b or vicuna-13b")
      ->check(CLI::IsMember({"tiny", "llama-7b", "vicuna-13b"}))
      ->capture_default_str();
  command.add_option("--layers", options->layers, "Decoder layers");
  command.add_option("--hidden", options->hidden, "Width of the residual stream");
  command.add_option("--heads", options->heads, "Attention heads; also KV heads unless those are given");
  command.add_option("--kv-heads", options->kv_heads, "Key and value heads: fewer is GQA, 1 is MQA");
  command.add_option("--head-dim", options->head_dim, "Width of a head [hidden / heads]");
  command.add_option("--ffn", options->ffn, "Inner width of the MLP");
  command.add_option("--vocab", options->vocab, "Vocabulary [the preset's, at least the tokenizer's]");
  command.add_option("--max-positions", options->max_positions, "Positions the model claims");
  command.add_option("--rope-theta", spec.rope_theta, "Base of the rotary embedding")->capture_default_str();
  std::vector<std::string> types;
  for (const ModelType* type : ModelTypes()) types.emplace_back(type->name);
  command.add_option("--model-type", spec.model_type, JoinNames(ModelTypes(), "or", &ModelType::note))
      ->check(CLI::IsMember(types))
      ->capture_default_str();
  command.add_flag("--tied", spec.tied, "The output head is the embedding");
  command.add_flag("--attention-bias", spec.attention_bias, "Biases on q, k, v and o (model type llama)");
  command.add_option("--format", options->format, "safetensors or bin (PyTorch)")
      ->check(CLI::IsMember({"safetensors", "bin"}))
      ->capture_default_str();
  command.add_option("--dtype", options->dtype, "f16, bf16 or f32")
      ->check(CLI::IsMember({"f16", "bf16", "f32"}))
      ->capture_default_str();
  command.add_option("--shard-bytes", options->shard_bytes,
                     "Tensor data of one file at most, such as 5GB; 0: one file [10GB]");
  command.add_option("--tokenizer", spec.tokenizer,
                     "Copy the tokenizer of this checkpoint or this tokenizer.model");
  AddCommonOptions(command, options->common);
  command.callback([options] { Synthesize(*options); });
}

}  // namespace mica
