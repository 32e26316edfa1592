// The tables of the options of all commands but compression: data alone; options.cc has what is done with
// them.
#include <utility>

#include "record/option_rows.h"
#include "record/options.h"

namespace mica {
namespace {

Option JsonSwitch() {
  return {.name = "json",
          .kind = OptionKind::kSwitch,
          .group = "General",
          .help = "Print the result as JSON on stdout",
          .value = false,
          .place = OptionPlace::kFlag};
}

// The file that a result goes to.
Option Output(const char* group, const char* help) {
  return {.name = "output",
          .kind = OptionKind::kPath,
          .group = group,
          .help = help,
          .place = OptionPlace::kFlag,
          .letter = "o"};
}

Option SpecialTokens(const char* group) {
  return {
      .name = "special-tokens",
      .kind = OptionKind::kSwitch,
      .group = group,
      .help = "\"<unk>\" and the like in a text become control tokens, as Hugging Face's tokenizer does it",
      .value = false,
      .place = OptionPlace::kFlag};
}

std::vector<Option> MakeEvaluationOptions() {
  return {
      {.name = "data",
       .kind = OptionKind::kSources,
       .group = "Evaluation",
       .help = "Text to measure on, KIND=FILE or NAME:KIND=FILE; KIND is wikitext2, ptb, c4 or text; may "
               "be given several times",
       .words = {"kind", "name", "path"},
       .required = true},
      {.name = "reference",
       .kind = OptionKind::kPath,
       .group = "Evaluation",
       .help = "Checkpoint that the model was compressed from: measures how far its predictions have moved",
       .place = OptionPlace::kFlag},
      {.name = "tokenizer",
       .kind = OptionKind::kPath,
       .group = "Evaluation",
       .help = "Its tokenizer: a directory, tokenizer.model, tokenizer.json or a GGUF file [beside the model, or inside]",
       .place = OptionPlace::kFlag},
      {.name = "convention",
       .kind = OptionKind::kChoice,
       .group = "Evaluation",
       .help = "gptq scores whole windows, llamacpp puts BOS in each window and scores its second half",
       .value = "gptq",
       .words = {"gptq", "llamacpp"}},
      BosRow("Evaluation"),
      WindowRow("Evaluation", 2),
      {.name = "dtype",
       .kind = OptionKind::kChoice,
       .group = "Evaluation",
       .help = "Arithmetic; auto: the fastest here",
       .value = "auto",
       .words = {"auto", "fp32", "bf16"},
       .spellings = DTypeSpellings()},
      {.name = "as-running",
       .kind = OptionKind::kSwitch,
       .group = "Evaluation",
       .help = "Compute as `mica generate` does, packed weights as integers, instead of decoding them",
       .value = false,
       .place = OptionPlace::kFlag},
      {.name = "max-windows",
       .kind = OptionKind::kInteger,
       .group = "Evaluation",
       .help = "Windows of each text at most; 0: all",
       .value = 0,
       .most = kMostExactInteger},
      SpecialTokens("Evaluation"),
      {.name = "activation-memory",
       .kind = OptionKind::kBytes,
       .group = "Evaluation",
       .help = "Memory for activations between layers, such as 2GB; more of it reads the weights less "
               "often [512 MiB]",
       .least = 1,
       .most = kMostExactInteger,
       .unit = "bytes",
       .place = OptionPlace::kFlag},
      {.name = "force",
       .kind = OptionKind::kSwitch,
       .group = "Evaluation",
       .help = "Measure a packed model even on a text it was calibrated on",
       .value = false,
       .place = OptionPlace::kFlag},
      {.name = "divergence",
       .kind = OptionKind::kSwitch,
       .group = "Evaluation",
       .help = "Compressed models are measured against the original one, too",
       .value = false,
       .place = OptionPlace::kKey},
      Output("Evaluation", "Write the result (JSON) to this file"),
  };
}

std::vector<Option> MakeQualityOptions() {
  Option texts = FindOption(EvaluationOptionTable(), "data");
  texts.group = "Budget";
  texts.help =
      "With --max-kl or --min-retention: text to measure on, KIND=FILE or NAME:KIND=FILE; may be given several times";
  texts.required = false;
  texts.place = OptionPlace::kFlag;
  Option windows = FindOption(EvaluationOptionTable(), "max-windows");
  windows.group = "Budget";
  windows.help = "With those: windows of each text at most; 0: all";
  windows.place = OptionPlace::kFlag;
  return {
      {.name = "max-kl",
       .kind = OptionKind::kNumber,
       .group = "Budget",
       .help = "Instead: the smallest file whose KL divergence from the original (nats a token) is no larger on the texts of --data",
       .most = 100,
       .above_least = true,
       .place = OptionPlace::kFlag,
       .one_of = "budget",
       .english = "budget",
       .chinese = "预算"},
      {.name = "min-retention",
       .kind = OptionKind::kNumber,
       .group = "Budget",
       .help = "Instead: the smallest file that keeps so much on each text of --data, percent",
       .most = 100,
       .below_most = true,
       .place = OptionPlace::kFlag,
       .one_of = "budget",
       .english = "budget",
       .chinese = "预算"},
      std::move(texts),
      std::move(windows),
  };
}

// A dimension of a random checkpoint; without it the preset's.
Option Shape(const char* name, double most, const char* help, double least = 1) {
  return {.name = name,
          .kind = OptionKind::kInteger,
          .group = "Shape",
          .help = help,
          .least = least,
          .most = most,
          .place = OptionPlace::kFlag};
}

std::vector<Option> MakeSynthesisOptions() {
  return {
      {.name = "preset",
       .kind = OptionKind::kChoice,
       .group = "Shape",
       .help = "Shape to start from",
       .value = "tiny",
       .words = {"tiny", "llama-7b", "vicuna-13b"},
       .place = OptionPlace::kFlag},
      Shape("layers", 4096, "Decoder layers"),
      Shape("hidden", 1 << 20, "Width of the residual stream"),
      Shape("heads", 1 << 14, "Attention heads; also KV heads unless those are given"),
      Shape("kv-heads", 1 << 14, "Key and value heads: fewer is GQA, 1 is MQA"),
      Shape("head-dim", 4096, "Width of a head; 0: hidden / heads", 0),
      Shape("ffn", 1 << 20, "Inner width of the MLP"),
      Shape("vocab", 1 << 24, "Vocabulary [the preset's, at least the tokenizer's]"),
      Shape("max-positions", 1 << 30, "Positions the model claims"),
      {.name = "rope-theta",
       .kind = OptionKind::kNumber,
       .group = "Shape",
       .help = "Base of the rotary embedding",
       .value = 10000.0,
       .most = 1e12,
       .above_least = true,
       .place = OptionPlace::kFlag},
      {.name = "architecture",
       .kind = OptionKind::kText,  // the command knows the model families
       .group = "Shape",
       .help = "Model type whose layers and names it has",
       .value = "llama",
       .place = OptionPlace::kFlag},
      {.name = "tied",
       .kind = OptionKind::kSwitch,
       .group = "Shape",
       .help = "The output head is the embedding",
       .value = false,
       .place = OptionPlace::kFlag},
      {.name = "attention-bias",
       .kind = OptionKind::kSwitch,
       .group = "Shape",
       .help = "Biases on q, k, v and o (model type llama)",
       .value = false,
       .place = OptionPlace::kFlag},
      {.name = "format",
       .kind = OptionKind::kChoice,
       .group = "Files",
       .help = "Of the weight files; bin: PyTorch's",
       .value = "safetensors",
       .words = {"safetensors", "bin"},
       .place = OptionPlace::kFlag},
      {.name = "dtype",
       .kind = OptionKind::kChoice,
       .group = "Files",
       .help = "Of the weights",
       .value = "fp16",
       .words = {"fp16", "bf16", "fp32"},
       .place = OptionPlace::kFlag,
       .spellings = DTypeSpellings()},
      {.name = "shard-bytes",
       .kind = OptionKind::kBytes,
       .group = "Files",
       .help = "Tensor data of one file at most, such as 5GB; 0: one file [10GB]",
       .most = kMostExactInteger,
       .unit = "bytes",
       .place = OptionPlace::kFlag},
      {.name = "tokenizer",
       .kind = OptionKind::kPath,
       .group = "Files",
       .help = "Copy the tokenizer of this checkpoint or this tokenizer.model",
       .place = OptionPlace::kFlag},
  };
}

std::vector<Option> MakeComparisonOptions() {
  return {
      {.name = "format",
       .kind = OptionKind::kChoice,
       .group = "Report",
       .help = "Of the report [what the name of -o says, else text]",
       .words = {"text", "json", "markdown", "html"},
       .place = OptionPlace::kFlag},
      Output("Report", "Write the report to this file instead of stdout"),
      {.name = "html",
       .kind = OptionKind::kPath,
       .group = "Report",
       .help = "Also write the report as an HTML page to this file",
       .place = OptionPlace::kFlag},
      {.name = "lang",
       .kind = OptionKind::kChoice,
       .group = "Report",
       .help = "Language of the report",
       .value = "en",
       .words = {"en", "zh"},
       .place = OptionPlace::kFlag},
      {.name = "force",
       .kind = OptionKind::kSwitch,
       .group = "Report",
       .help = "Compare results that were not measured alike; the report says so",
       .value = false,
       .place = OptionPlace::kFlag},
      {.name = "json",
       .kind = OptionKind::kSwitch,
       .group = "Report",
       .help = "The same as --format json",
       .value = false,
       .place = OptionPlace::kFlag},
  };
}

std::vector<Option> MakeExportOptions() {
  return {
      Output("Files", "The same as OUT"),
      {.name = "to",
       .kind = OptionKind::kChoice,
       .group = "Files",
       .help = "Layout; hf: safetensors as Hugging Face's programs read them, gguf: one file as llama.cpp "
               "reads it",
       .value = "hf",
       .words = {"hf", "gguf"},
       .place = OptionPlace::kFlag},
      {.name = "dtype",
       .kind = OptionKind::kChoice,
       .group = "Files",
       .help = "Of the weights; fp32: the decoded weights exactly [fp16; gguf: that of a plain checkpoint]",
       .words = {"fp16", "bf16", "fp32"},
       .place = OptionPlace::kFlag,
       .spellings = DTypeSpellings()},
  };
}

std::vector<Option> MakeStatusOptions() {
  Option json = JsonSwitch();
  json.help = "Print the status as JSON, with \"state\": running, done, stopped or unknown (another host's)";
  return {
      {.name = "watch",
       .kind = OptionKind::kSwitch,
       .group = "General",
       .help = "Show it anew each second until the run ends",
       .value = false,
       .place = OptionPlace::kFlag},
      json,
  };
}

std::vector<Option> MakeTokenizingOptions() {
  Option special = SpecialTokens("Text");
  special.old_names = {"special"};
  return {
      {.name = "bos",
       .kind = OptionKind::kSwitch,
       .group = "Text",
       .help = "Put the token that begins a text in front; as the tokenizer's files say where it is left out",
       .value = true,
       .place = OptionPlace::kFlag},
      special,
  };
}

Option Sampling(const char* name, const char* help, double value, double least, double most) {
  return {.name = name,
          .kind = OptionKind::kNumber,
          .group = "Sampling",
          .help = help,
          .value = value,
          .least = least,
          .most = most,
          .place = OptionPlace::kFlag};
}

Option Whole(const char* name, const char* group, const char* help, Json value, double least, double most,
             const char* unit = "") {
  return {.name = name,
          .kind = OptionKind::kInteger,
          .group = group,
          .help = help,
          .value = std::move(value),
          .least = least,
          .most = most,
          .unit = unit,
          .place = OptionPlace::kFlag};
}

Option KeyBits() {
  return {.name = "kv-bits",
          .kind = OptionKind::kChoice,
          .group = "Generation",
          .help = "Bits of keys and values",
          .value = "16",
          .words = {"16", "8"},
          .place = OptionPlace::kFlag};
}

std::vector<Option> MakeGenerationOptions() {
  return {
      Whole("max-tokens", "Generation", "Tokens to generate at most; 0: until the model ends or the context is full",
            0, 0, kMostTokens, "tokens"),
      Whole("ctx", "Generation",
            "Tokens of the context, prompt and answer together [the smaller of 4096 and the model's positions]",
            nullptr, 2, kMostTokens, "tokens"),
      KeyBits(),
      {.name = "stop",
       .kind = OptionKind::kTexts,
       .group = "Generation",
       .help = "Text that ends the answer and is not shown; may be given several times",
       .place = OptionPlace::kFlag},
      Whole("top", "Generation", "With --json: likeliest tokens told of each place", 5, 0, 100),
      Sampling("temperature", "Randomness; 0: always the likeliest token", 0, 0, 100),
      Whole("top-k", "Sampling", "Draw among so many likeliest tokens; 0: all", 0, 0, kMostTokens),
      Sampling("top-p", "Draw among the likeliest tokens that together have this probability", 1, 0, 1),
      Sampling("min-p", "Draw among tokens with at least this share of the largest probability", 0, 0, 1),
      Sampling("repeat-penalty", "Divides the odds of tokens that the text has already; 1: not", 1, 0.1, 10),
  };
}

std::vector<Option> MakePromptOptions() {
  return {
      {.name = "prompt",
       .kind = OptionKind::kText,
       .group = "Prompt",
       .help = "The text to continue; an empty one begins a text, as the model has learnt texts to begin",
       .place = OptionPlace::kFlag,
       .may_be_empty = true,
       .letter = "p"},
      {.name = "file",
       .kind = OptionKind::kPath,
       .group = "Prompt",
       .help = "UTF-8 file with the text to continue, taken as it is; - for standard input",
       .place = OptionPlace::kFlag,
       .letter = "f"},
      {.name = "tokenizer",
       .kind = OptionKind::kPath,
       .group = "Prompt",
       .help = "Its tokenizer: a directory, tokenizer.model, tokenizer.json or a GGUF file [beside the model, or inside]",
       .place = OptionPlace::kFlag},
      SpecialTokens("Prompt"),
  };
}

std::vector<Option> MakeChatOptions() {
  return {
      {.name = "system",
       .kind = OptionKind::kText,
       .group = "Chat",
       .help = "What the model is told first, as the system's message",
       .place = OptionPlace::kFlag},
      {.name = "tokenizer",
       .kind = OptionKind::kPath,
       .group = "Chat",
       .help = "Its tokenizer: a directory, tokenizer.model, tokenizer.json or a GGUF file [beside the model, or inside]",
       .place = OptionPlace::kFlag},
  };
}

std::vector<Option> MakeBenchOptions() {
  return {
      Whole("prompt-tokens", "Bench", "Tokens of the prompt; 0: none is measured", 512, 0, 1 << 20, "tokens"),
      Whole("generated-tokens", "Bench", "Tokens that are generated one by one; 0: none", 128, 0, 1 << 20, "tokens"),
      Whole("repetitions", "Bench", "Of each measurement, behind one that does not count", 5, 1, 1000),
      KeyBits(),
      Output("Bench", "Write the result (JSON) to this file"),
  };
}

std::vector<Option> MakeSampleOptions() {
  Option count = Whole("count", "Samples", "Prompts that are cut from the texts; 0: no samples", 12, 0, 100),
         tokens = Whole("tokens", "Samples", "Of a continuation at most", 32, 1, 256, "tokens");
  count.place = tokens.place = OptionPlace::kKey;
  return {count, tokens,
          {.name = "prompts",
           .kind = OptionKind::kTexts,
           .group = "Samples",
           .help = "Texts to continue in place of those",
           .place = OptionPlace::kKey}};
}

std::vector<Option> MakeCommonOptions() {
  return {
      {.name = "threads",
       .kind = OptionKind::kInteger,
       .group = "General",
       .help = "Threads; 0 is one per processor",
       .value = 0,
       .most = 1024,
       .place = OptionPlace::kFlag},
      SeedRow(OptionPlace::kFlag),
      {.name = "log-level",
       .kind = OptionKind::kChoice,
       .group = "General",
       .help = "What is said on stderr",
       .value = "info",
       .words = {"error", "warning", "info", "debug"},
       .place = OptionPlace::kFlag},
      {.name = "device",
       .kind = OptionKind::kText,
       .group = "General",
       .help = "Where to compute: cpu, cuda, cuda:1 (the second GPU), several as in cuda:0-3, cuda:0,2 or all, or auto: on a "
               "GPU where there is one",
       .value = "auto",
       .place = OptionPlace::kFlag},
      {.name = "device-memory",
       .kind = OptionKind::kBytes,
       .group = "General",
       .help = "Memory of the GPU that may be used, such as 20GB [all that is free]",
       .least = 1,
       .most = kMostExactInteger,
       .unit = "bytes",
       .place = OptionPlace::kFlag},
      JsonSwitch(),
  };
}

}  // namespace

std::span<const Option> EvaluationOptionTable() {
  static const std::vector<Option> options = MakeEvaluationOptions();
  return options;
}

std::span<const Option> SynthesisOptionTable() {
  static const std::vector<Option> options = MakeSynthesisOptions();
  return options;
}

std::span<const Option> ComparisonOptionTable() {
  static const std::vector<Option> options = MakeComparisonOptions();
  return options;
}

std::span<const Option> RunOptionTable() {
  static const std::vector<Option> options = {
      {.name = "check",
       .kind = OptionKind::kSwitch,
       .group = "Run",
       .help = "Only say, in seconds, whether all that the experiment needs is there; writes nothing",
       .value = false,
       .place = OptionPlace::kFlag}};
  return options;
}

std::span<const Option> QualityOptionTable() {
  static const std::vector<Option> options = MakeQualityOptions();
  return options;
}

std::span<const Option> ExportOptionTable() {
  static const std::vector<Option> options = MakeExportOptions();
  return options;
}

std::span<const Option> InspectionOptionTable() {
  static const std::vector<Option> options = {JsonSwitch()};
  return options;
}

std::span<const Option> StatusOptionTable() {
  static const std::vector<Option> options = MakeStatusOptions();
  return options;
}

std::span<const Option> TokenizingOptionTable() {
  static const std::vector<Option> options = MakeTokenizingOptions();
  return options;
}

std::span<const Option> GenerationOptionTable() {
  static const std::vector<Option> options = MakeGenerationOptions();
  return options;
}

std::span<const Option> PromptOptionTable() {
  static const std::vector<Option> options = MakePromptOptions();
  return options;
}

std::span<const Option> ChatOptionTable() {
  static const std::vector<Option> options = MakeChatOptions();
  return options;
}

std::span<const Option> BenchOptionTable() {
  static const std::vector<Option> options = MakeBenchOptions();
  return options;
}

std::span<const Option> SampleOptionTable() {
  static const std::vector<Option> options = MakeSampleOptions();
  return options;
}

std::span<const Option> CommonOptionTable() {
  static const std::vector<Option> options = MakeCommonOptions();
  return options;
}

}  // namespace mica
