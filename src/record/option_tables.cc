// The tables of options: data alone; options.cc has what is done with them.
#include <cstdint>

#include "record/options.h"

namespace mica {
namespace {

constexpr double kMostWindows = 1 << 24, kMostTokens = 1 << 24;  // their product fits 64 bits
constexpr double kAllWindows = 65536;                            // more than anybody calibrates on

Option Seed(OptionPlace place) {
  return {.name = "seed",
          .kind = OptionKind::kInteger,
          .group = "General",
          .help = "Seed of every random choice",
          .value = 0,
          .most = kMostExactInteger,
          .place = place,
          .english = "seed",
          .chinese = "随机种子"};
}

// Types of numbers as other programs name them, too.
std::vector<Spelling> DTypeSpellings() {
  return {{"f16", "fp16"},  {"f32", "fp32"},      {"float16", "fp16"},
          {"half", "fp16"}, {"bfloat16", "bf16"}, {"float32", "fp32"}};
}

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

// Tokens of a window, of calibration and of evaluation.
Option Window(const char* group, double least) {
  return {.name = "seqlen",
          .kind = OptionKind::kInteger,
          .group = group,
          .help = "Tokens of a window [the smaller of 2048 and the model's positions]",
          .least = least,
          .most = kMostTokens,
          .unit = "tokens"};
}

Option CalibrationWindow() {
  Option option = Window("Calibration", 8);
  option.old_names = {"calib-seqlen"};
  return option;
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

std::vector<Option> MakeCompressionOptions() {
  const IdleRule with_fixed = {"coding", "fixed", "--coding entropy"};
  const IdleRule with_entropy = {"coding", "entropy", "--coding fixed"};
  const IdleRule without_zeros = {"sparsity", 0, "--sparsity 0.5 or --pattern 2:4"};
  const IdleRule without_groups = {"grouping", "waterfill", "--grouping spectral, hierarchical or kmeans",
                                   ", which forms no groups"};
  const IdleRule without_drift = {"drift-compensation", 0, "--drift-compensation 0.5"};
  const IdleRule without_fisher = {"fisher-windows", 0, "--fisher-windows 16"};
  return {
      {.name = "preset",
       .kind = OptionKind::kChoice,
       .group = "Coding",
       .help = "Defaults of the flags that cost time",
       .value = "balanced",
       .words = {"fast", "balanced", "best"},
       .english = "preset",
       .chinese = "预设"},
      {.name = "coding",
       .kind = OptionKind::kChoice,
       .group = "Coding",
       .help = "Integer widths, or a uniform grid that is entropy-coded",
       .value = "fixed",
       .words = {"fixed", "entropy"},
       .english = "coding",
       .chinese = "编码"},
      {.name = "bits",
       .kind = OptionKind::kNumber,
       .group = "Budget",
       .help = "Mean code bits of the compressed matrices; 16: prune only",
       .value = 4.0,
       .most = 16,
       .above_least = true,
       .unit = "bits",
       .one_of = "budget",
       .english = "budget",
       .chinese = "预算"},
      {.name = "bpw",
       .kind = OptionKind::kNumber,
       .group = "Budget",
       .help = "Instead: all stored bits per weight of the compressed matrices",
       .most = 16,
       .above_least = true,
       .unit = "bits",
       .one_of = "budget",
       .english = "budget",
       .chinese = "预算"},
      {.name = "size",
       .kind = OptionKind::kBytes,
       .group = "Budget",
       .help = "Instead: bytes of the weight files, such as 40MB",
       .least = 1,
       .most = kMostExactInteger,
       .unit = "bytes",
       .one_of = "budget",
       .english = "budget",
       .chinese = "预算"},
      {.name = "sparsity",
       .kind = OptionKind::kNumber,
       .group = "Pruning",
       .help = "Share of zeros over all compressed weights",
       .value = 0.0,
       .most = 1,
       .below_most = true,
       .english = "sparsity",
       .chinese = "稀疏度"},
      {.name = "pattern",
       .kind = OptionKind::kChoice,
       .group = "Pruning",
       .help = "Where the zeros may be; 2:4 and 4:8 prune exactly half",
       .value = "unstructured",
       .words = {"none", "unstructured", "2:4", "4:8"},
       .english = "pattern",
       .chinese = "稀疏模式"},
      {.name = "grouping",
       .kind = OptionKind::kChoice,
       .group = "Information",
       .help = "How channels are grouped; spectral where --groups or --estimator is given",
       .value = "waterfill",
       .words = {"waterfill", "spectral", "hierarchical", "kmeans"},
       .idle = {with_entropy},
       .english = "grouping",
       .chinese = "分组方法"},
      {.name = "groups",
       .kind = OptionKind::kInteger,
       .group = "Information",
       .help = "Groups of channels a matrix; 0 chooses by silhouette",
       .value = 0,
       .most = 4096,
       .idle = {with_entropy, without_groups},
       .english = "groups",
       .chinese = "组数"},
      {.name = "estimator",
       .kind = OptionKind::kChoice,
       .group = "Information",
       .help = "Of the information between two channels",
       .value = "gaussian",
       .words = {"gaussian", "copula", "histogram", "knn"},
       .idle = {with_entropy, without_groups},
       .english = "information estimator",
       .chinese = "互信息估计"},
      {.name = "bit-options",
       .kind = OptionKind::kIntegers,
       .group = "Coding fixed",
       .help = "Widths to choose from; 16 alone where --bits is 16",
       .value = {2, 3, 4, 6, 8},
       .integers = {0, 2, 3, 4, 6, 8, 16},
       .idle = {with_entropy},
       .english = "widths allowed",
       .chinese = "可选位宽"},
      {.name = "group-size",
       .kind = OptionKind::kInteger,
       .group = "Coding fixed",
       .help = "Columns that share a scale",
       .value = 128,
       .least = 8,
       .most = 65536,
       .english = "weights per scale",
       .chinese = "每个缩放因子的权重数"},
      {.name = "damping",
       .kind = OptionKind::kNumber,
       .group = "Calibration",
       .help = "Added to the moments of each channel, times its own energy",
       .value = 0.01,
       .most = 1,
       .english = "damping",
       .chinese = "阻尼"},
      {.name = "energy-weight",
       .kind = OptionKind::kNumber,
       .group = "Coding fixed",
       .help = "Exponent of a column's energy in its sensitivity; 0 ignores the inputs",
       .value = 1.0,
       .most = 100,
       .idle = {with_entropy},
       .english = "weight of energy",
       .chinese = "能量权重"},
      {.name = "information-weight",
       .kind = OptionKind::kNumber,
       .group = "Coding fixed",
       .help = "a in energy * exp(-2 a I); 0 ignores information",
       .value = 1.0,
       .most = 100,
       .idle = {with_entropy},
       .english = "weight of information",
       .chinese = "互信息权重"},
      {.name = "saliency-exponent",
       .kind = OptionKind::kNumber,
       .group = "Pruning",
       .help = "a in the pruning score: 0 Wanda, 1 SparseGPT",
       .value = 1.0,
       .most = 100,
       .idle = {with_entropy, without_zeros},
       .english = "information in the pruning score",
       .chinese = "剪枝评分中的互信息指数"},
      {.name = "trellis",
       .kind = OptionKind::kBool,
       .group = "Coding entropy",
       .help = "Dependent quantisers along a trellis",
       .value = true,
       .fast = false,
       .idle = {with_fixed},
       .english = "trellis quantiser",
       .chinese = "网格量化"},
      {.name = "lambda",
       .kind = OptionKind::kNumber,
       .group = "Coding entropy",
       .help = "Weight of bits against loss when an integer is chosen; 0: the nearest",
       .value = 0.25,
       .most = 4,
       // Without drift compensation the dead zone shrinks what reaches later layers.
       .fast = 0.0,
       .idle = {with_fixed},
       .english = "weight of bits against loss",
       .chinese = "比特对损失的权重"},
      {.name = "row-feedback",
       .kind = OptionKind::kBool,
       .group = "Coding entropy",
       .help = "Errors are absorbed by later rows as well",
       .value = true,
       .fast = false,
       .idle = {with_fixed, without_fisher},
       .english = "feedback over rows",
       .chinese = "行间误差反馈"},
      {.name = "token-weights",
       .kind = OptionKind::kBool,
       .group = "Fisher information",
       .help = "Tokens count by the norm of their gradients; needs --fisher-windows for all",
       .value = false,
       .english = "tokens weighted by gradient",
       .chinese = "按梯度加权 token"},
      {.name = "sampled-labels",
       .kind = OptionKind::kBool,
       .group = "Fisher information",
       .help = "Labels are drawn from the model instead of the text's own",
       .value = false,
       .idle = {without_fisher},
       .english = "labels drawn from the model",
       .chinese = "由模型采样标签"},
      {.name = "refine-passes",
       .kind = OptionKind::kInteger,
       .group = "Coding fixed",
       .help = "Coordinate descent after the feedback; 0: plain GPTQ",
       .value = 4,
       .most = 100,
       .fast = 2,
       .best = 8,
       .idle = {with_entropy},
       .english = "refining passes",
       .chinese = "精修轮数"},
      {.name = "statistics-windows",
       .kind = OptionKind::kInteger,
       .group = "Information",
       .help = "Windows that allocation is based on",
       .value = 16,
       .least = 1,
       .most = kMostWindows,
       .fast = 8,
       .best = 32,
       .english = "windows for allocation",
       .chinese = "位宽分配所用窗口数"},
      {.name = "drift-compensation",
       .kind = OptionKind::kNumber,
       .group = "Drift",
       .help = "Share of the inputs' drift that weights make up for; 0 saves a pass",
       .value = 0.5,
       .most = 1,
       .fast = 0.0,
       .english = "compensation of input drift",
       .chinese = "输入漂移补偿"},
      {.name = "drift-windows",
       .kind = OptionKind::kInteger,
       .group = "Drift",
       .help = "Windows that the drift is measured on",
       .value = 32,
       .least = 1,
       .most = kMostWindows,
       .best = static_cast<int>(kAllWindows),
       .idle = {without_drift},
       .english = "windows for drift",
       .chinese = "漂移测量窗口数"},
      {.name = "fisher-windows",
       .kind = OptionKind::kInteger,
       .group = "Fisher information",
       .help = "Windows of the backward pass; 0: all matrices weigh alike",
       .value = 8,
       .most = kMostWindows,
       .fast = 4,
       .best = 32,
       // Widths need the rows' Fisher information alone, feedback over rows its products as well.
       .entropy = 16,
       .english = "windows for Fisher information",
       .chinese = "Fisher 信息窗口数"},
      {.name = "embedding-bits",
       .kind = OptionKind::kInteger,
       .group = "Budget",
       .help = "Bits of embedding and output head",
       .value = 8,
       .integers = {2, 3, 4, 6, 8, 16},
       .unit = "bits",
       .english = "bits of embedding and head",
       .chinese = "词嵌入与输出头位宽"},
      {.name = "dtype",
       .kind = OptionKind::kChoice,
       .group = "Calibration",
       .help = "Arithmetic of the calibration passes",
       .value = "bf16",
       .words = {"bf16", "fp32"},
       .spellings = DTypeSpellings(),
       .english = "arithmetic",
       .chinese = "计算精度"},
      {.name = "samples",
       .kind = OptionKind::kInteger,
       .group = "Calibration",
       .help = "Calibration windows",
       .value = 128,
       .least = 1,
       .most = kMostWindows,
       .unit = "windows"},
      CalibrationWindow(),
      Seed(OptionPlace::kKey),
      {.name = "calib",
       .kind = OptionKind::kSources,
       .group = "Calibration",
       .help = "Calibration text KIND=FILE[:WEIGHT]; may be given several times",
       .words = {"kind", "path", "weight"},
       .required = true},
      {.name = "statistics",
       .kind = OptionKind::kPath,
       .group = "Calibration",
       .help = "Keep the statistics in this file and use them again",
       .place = OptionPlace::kFlag},
  };
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
      {.name = "convention",
       .kind = OptionKind::kChoice,
       .group = "Evaluation",
       .help = "gptq scores whole windows, llamacpp puts BOS in each window and scores its second half",
       .value = "gptq",
       .words = {"gptq", "llamacpp"}},
      Window("Evaluation", 2),
      {.name = "dtype",
       .kind = OptionKind::kChoice,
       .group = "Evaluation",
       .help = "Arithmetic; auto: the fastest here",
       .value = "auto",
       .words = {"auto", "fp32", "bf16"},
       .spellings = DTypeSpellings()},
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
      {.name = "model-type",
       .kind = OptionKind::kText,  // the command knows the model families
       .group = "Shape",
       .help = "qwen2 has biases on q, k, v",
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
      {.name = "to",
       .kind = OptionKind::kChoice,
       .group = "Files",
       .help = "Layout; hf: safetensors as Hugging Face's programs read them",
       .value = "hf",
       .words = {"hf"},
       .place = OptionPlace::kFlag},
      {.name = "dtype",
       .kind = OptionKind::kChoice,
       .group = "Files",
       .help = "Of the weights; fp32: the decoded weights exactly",
       .value = "fp16",
       .words = {"fp16", "fp32"},
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

std::vector<Option> MakeCommonOptions() {
  return {
      {.name = "threads",
       .kind = OptionKind::kInteger,
       .group = "General",
       .help = "Threads; 0 is one per processor",
       .value = 0,
       .most = 1024,
       .place = OptionPlace::kFlag},
      Seed(OptionPlace::kFlag),
      {.name = "log-level",
       .kind = OptionKind::kChoice,
       .group = "General",
       .help = "What is said on stderr",
       .value = "info",
       .words = {"error", "warning", "info", "debug"},
       .place = OptionPlace::kFlag},
      {.name = "device",
       .kind = OptionKind::kChoice,
       .group = "General",
       .help = "Where to compute; auto: on the best device of this build",
       .value = "cpu",
       .words = {"cpu", "auto"},
       .place = OptionPlace::kFlag},
      JsonSwitch(),
  };
}

}  // namespace

std::span<const Option> CompressionOptionTable() {
  static const std::vector<Option> options = MakeCompressionOptions();
  return options;
}

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

std::span<const Option> CommonOptionTable() {
  static const std::vector<Option> options = MakeCommonOptions();
  return options;
}

}  // namespace mica
