#include "record/options.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>

#include "base/error.h"
#include "base/units.h"

namespace mica {
namespace {

constexpr double kMostWindows = 1 << 24, kMostTokens = 1 << 24;  // their product fits 64 bits
constexpr double kMostExactInteger = 9007199254740991;  // 2^53 - 1: beyond it a double is several integers
constexpr double kAllWindows = 65536;                   // more than anybody calibrates on

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
       .help = "Added to the moments, times their mean diagonal",
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
      {.name = "drift-damping",
       .kind = OptionKind::kNumber,
       .group = "Drift",
       .help = "As --damping, where weights make up for drift",
       .value = 0.03,
       .most = 1,
       .idle = {without_drift},
       .english = "damping of drift",
       .chinese = "漂移阻尼"},
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
      {.name = "calib-seqlen",
       .kind = OptionKind::kInteger,
       .group = "Calibration",
       .help = "Tokens a window",
       .value = 2048,
       .least = 8,
       .most = kMostTokens,
       .unit = "tokens",
       .key = "seqlen"},
      Seed(OptionPlace::kKey),
      {.name = "calib",
       .kind = OptionKind::kSources,
       .group = "Calibration",
       .help = "Calibration text KIND=FILE[:WEIGHT]; may be given several times",
       .words = {"kind", "path", "weight"},
       .required = true},
      {.name = "statistics",
       .kind = OptionKind::kText,
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
       .kind = OptionKind::kText,
       .group = "Evaluation",
       .help = "Checkpoint that the model was compressed from: measures how far its predictions have moved",
       .place = OptionPlace::kFlag},
      {.name = "convention",
       .kind = OptionKind::kChoice,
       .group = "Evaluation",
       .help = "gptq scores whole windows, llamacpp puts BOS in each window and scores its second half",
       .value = "gptq",
       .words = {"gptq", "llamacpp"}},
      {.name = "seqlen",
       .kind = OptionKind::kInteger,
       .group = "Evaluation",
       .help = "Tokens of a window [the smaller of 2048 and the model's positions]",
       .least = 2,
       .most = kMostTokens,
       .unit = "tokens"},
      {.name = "dtype",
       .kind = OptionKind::kChoice,
       .group = "Evaluation",
       .help = "Arithmetic; auto: the fastest here",
       .value = "auto",
       .words = {"auto", "fp32", "bf16"}},
      {.name = "max-windows",
       .kind = OptionKind::kInteger,
       .group = "Evaluation",
       .help = "Windows of each text at most; 0: all",
       .value = 0,
       .most = kMostExactInteger},
      {.name = "special-tokens",
       .kind = OptionKind::kSwitch,
       .group = "Evaluation",
       .help = "\"<unk>\" and the like in a text become control tokens, as Hugging Face's tokenizer does it",
       .value = false,
       .place = OptionPlace::kFlag},
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
       .value = "f16",
       .words = {"f16", "bf16", "f32"},
       .place = OptionPlace::kFlag},
      {.name = "shard-bytes",
       .kind = OptionKind::kBytes,
       .group = "Files",
       .help = "Tensor data of one file at most, such as 5GB; 0: one file [10GB]",
       .most = kMostExactInteger,
       .unit = "bytes",
       .place = OptionPlace::kFlag},
      {.name = "tokenizer",
       .kind = OptionKind::kText,
       .group = "Files",
       .help = "Copy the tokenizer of this checkpoint or this tokenizer.model",
       .place = OptionPlace::kFlag},
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
       .kind = OptionKind::kText,
       .group = "General",
       .help = "Where to compute: cpu",
       .value = "cpu",
       .place = OptionPlace::kFlag},
      {.name = "json",
       .kind = OptionKind::kSwitch,
       .group = "General",
       .help = "Print the result as JSON on stdout",
       .value = false,
       .place = OptionPlace::kFlag},
  };
}

// "2, 3 or 4".
template <typename T>
std::string Alternatives(const std::vector<T>& items) {
  std::string text;
  for (size_t i = 0; i < items.size(); ++i)
    text += fmt::format("{}{}", i == 0 ? "" : i + 1 == items.size() ? " or " : ", ", items[i]);
  return text;
}

std::string WithUnit(const std::string& text, const Option& option) {
  return *option.unit != '\0' ? text + " " + option.unit : text;
}

// The option as a refusal names it: where it was given.
std::string Spelled(const Option& option, const std::string& where) {
  if (where.empty()) return fmt::format("--{}", option.name);
  if (*option.one_of != '\0') return fmt::format("{}, \"{}\": \"{}\"", where, option.one_of, option.name);
  return fmt::format("{}: \"{}\"", where, KeyOf(option));
}

std::string ShownValue(const Json& value, const std::string& where) {
  if (value.is_number_float()) return fmt::format("{}", value.get<double>());  // NaN has no JSON
  if (value.is_string() && where.empty()) return "'" + value.get<std::string>() + "'";
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

[[noreturn]] void Refuse(const Option& option, const Json& value, const std::string& where,
                         const char* kind = "") {
  Fail("{} is {}, expected {}{}", Spelled(option, where), ShownValue(value, where), kind,
       ExpectedText(option));
}

[[noreturn]] void RefuseType(const Option& option, const Json& value, const std::string& where,
                             const char* kind = "") {
  Fail("{} is {}, {}expected {}{}", Spelled(option, where), ShownValue(value, where),
       where.empty() ? "" : "which is not of the right type, ", kind, ExpectedText(option));
}

bool IsWhole(const Json& value) {
  if (value.is_number_integer()) return true;
  const double number = value.get<double>();
  return std::trunc(number) == number && std::fabs(number) <= kMostExactInteger;
}

Json WholeOf(const Json& value) {
  return value.is_number_integer() ? value : Json(static_cast<int64_t>(value.get<double>()));
}

bool InRange(const Option& option, const Json& value) {
  const double number = value.get<double>();
  const bool above = option.above_least ? number > option.least : number >= option.least;
  const bool below = option.below_most ? number < option.most : number <= option.most;
  return above && below;
}

Json CheckedInteger(const Option& option, const Json& value, const std::string& where) {
  if (!value.is_number()) RefuseType(option, value, where, "a whole number, ");
  if (!IsWhole(value)) Refuse(option, value, where, "a whole number, ");
  const Json whole = WholeOf(value);
  const bool allowed = option.integers.empty() ? InRange(option, whole)
                                               : std::any_of(option.integers.begin(), option.integers.end(),
                                                             [&](int one) { return whole == one; });
  if (!allowed) Refuse(option, whole, where);
  return whole;
}

Json CheckedIntegers(const Option& option, const Json& value, const std::string& where) {
  if (!value.is_array()) RefuseType(option, value, where, "a list, ");
  if (value.empty()) Fail("{} is empty, expected {}", Spelled(option, where), ExpectedText(option));
  Json checked = Json::array();
  for (const Json& item : value) {
    const bool allowed =
        item.is_number() && IsWhole(item) &&
        std::any_of(option.integers.begin(), option.integers.end(), [&](int one) { return item == one; });
    if (!allowed) {
      Fail("{} has {}, expected {}", Spelled(option, where), ShownValue(item, where), ExpectedText(option));
    }
    const Json whole = WholeOf(item);
    if (std::find(checked.begin(), checked.end(), whole) != checked.end()) {
      Fail("{} has {} twice, expected {}, each once", Spelled(option, where), whole.dump(),
           ExpectedText(option));
    }
    checked.push_back(whole);
  }
  return checked;
}

Json CheckedSources(const Option& option, const Json& value, const std::string& where) {
  if (!value.is_array()) RefuseType(option, value, where);
  const std::string inside =
      where.empty() ? "--" + std::string(option.name) : where + ", \"" + KeyOf(option) + "\"";
  for (const Json& source : value) {
    if (!source.is_object()) Fail("{}: is {}, expected an object", inside, source.type_name());
    for (const auto& [key, item] : source.items()) {
      if (std::none_of(option.words.begin(), option.words.end(),
                       [&](const char* word) { return key == word; }))
        Fail("{}: unknown key \"{}\", expected one of {}", inside, key, fmt::join(option.words, ", "));
      const bool number = key == "weight";
      if (number ? !item.is_number() : !item.is_string()) {
        Fail("{}: \"{}\" is {}, which is not of the right type, expected {}", inside, key, item.dump(),
             number ? "a positive number" : "text");
      }
      if (number && !(item.get<double>() > 0 && std::isfinite(item.get<double>())))
        Fail("{}: \"{}\" is {}, expected a positive number", inside, key, ShownValue(item, inside));
    }
  }
  return value;
}

// The number that all of `text` stands for; the text itself when it stands for none.
Json ParseNumber(const std::string& text) {
  const auto parse = [&]<typename T>(T number) -> Json {
    const char* end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, number);
    return read.ec == std::errc() && read.ptr == end ? Json(number) : Json(nullptr);
  };
  for (const Json& number : {parse(int64_t{}), parse(uint64_t{}), parse(double{})}) {
    if (!number.is_null()) return number;
  }
  return text;
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

std::span<const Option> CommonOptionTable() {
  static const std::vector<Option> options = MakeCommonOptions();
  return options;
}

const Option& FindOption(std::span<const Option> options, const std::string& name) {
  const auto found =
      std::find_if(options.begin(), options.end(), [&](const Option& option) { return name == option.name; });
  MICA_CHECK(found != options.end());
  return *found;
}

const Option* OptionOfKey(std::span<const Option> options, const std::string& key) {
  const auto found = std::find_if(options.begin(), options.end(), [&](const Option& option) {
    return *option.one_of != '\0' ? key == option.one_of : key == KeyOf(option);
  });
  return found == options.end() ? nullptr : &*found;
}

std::string KeyOf(const Option& option) {
  if (*option.key != '\0') return option.key;
  std::string key = option.name;
  std::replace(key.begin(), key.end(), '-', '_');
  return key;
}

Json DefaultOf(const Option& option, const std::string& preset, const std::string& coding) {
  if (preset == "fast" && !option.fast.is_null()) return option.fast;
  if (preset == "best" && !option.best.is_null()) return option.best;
  return coding == "entropy" && !option.entropy.is_null() ? option.entropy : option.value;
}

const Json* ValueIn(const Json& values, const Option& option) {
  const auto found = values.find(*option.one_of != '\0' ? std::string(option.one_of) : KeyOf(option));
  if (found == values.end()) return nullptr;
  if (*option.one_of == '\0') return &*found;
  if (!found->is_object()) return nullptr;
  const auto kind = found->find("kind"), value = found->find("value");
  return kind != found->end() && *kind == option.name && value != found->end() ? &*value : nullptr;
}

Json ValueOf(const Json& values, const Option& option) {
  const Json* given = ValueIn(values, option);
  return given != nullptr ? *given : option.value;
}

void SetValue(Json& values, const Option& option, Json value) {
  if (*option.one_of != '\0') {
    values[option.one_of] = {{"kind", option.name}, {"value", std::move(value)}};
  } else {
    values[KeyOf(option)] = std::move(value);
  }
}

const IdleRule* IdleIn(const Option& option, const Json& settings) {
  for (const IdleRule& rule : option.idle) {
    const Json* value = ValueIn(settings, FindOption(CompressionOptionTable(), rule.option));
    if (value != nullptr && *value == rule.value) return &rule;
  }
  return nullptr;
}

void EraseIdle(Json& settings, const std::string& option) {
  const Json before = settings;
  for (const Option& other : CompressionOptionTable()) {
    const IdleRule* rule = IdleIn(other, before);
    if (rule != nullptr && rule->option == option) settings.erase(KeyOf(other));
  }
}

std::string ExpectedText(const Option& option) {
  switch (option.kind) {
    case OptionKind::kNumber:
    case OptionKind::kBytes:
    case OptionKind::kInteger:
      if (!option.integers.empty()) return WithUnit(Alternatives(option.integers), option);
      if (option.above_least)
        return WithUnit(fmt::format("more than {} and at most {}", option.least, option.most), option);
      if (option.below_most)
        return WithUnit(fmt::format("{} or more and less than {}", option.least, option.most), option);
      return WithUnit(fmt::format("{} to {}", option.least, option.most), option);
    case OptionKind::kIntegers:
      return fmt::format("some of {}", fmt::join(option.integers, ", "));
    case OptionKind::kBool:
    case OptionKind::kSwitch:
      return "true or false";
    case OptionKind::kChoice:
      return Alternatives(option.words);
    case OptionKind::kText:
      return "text";
    case OptionKind::kSources:
      return "an array of texts";
  }
  return "";
}

std::string ValueText(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_array()) {
    std::string list;
    for (const Json& item : value) {
      if (!list.empty()) list += ",";
      list += ValueText(item);
    }
    return list;
  }
  return value.is_number_float() ? fmt::format("{:g}", value.get<double>()) : value.dump();
}

Json CheckedValue(const Option& option, const Json& value, const std::string& where) {
  switch (option.kind) {
    case OptionKind::kNumber:
    case OptionKind::kBytes:
      if (!value.is_number()) RefuseType(option, value, where, "a number, ");
      if (!InRange(option, value)) Refuse(option, value, where);
      return value;
    case OptionKind::kInteger:
      return CheckedInteger(option, value, where);
    case OptionKind::kIntegers:
      return CheckedIntegers(option, value, where);
    case OptionKind::kBool:
    case OptionKind::kSwitch:
      if (!value.is_boolean()) RefuseType(option, value, where);
      return value;
    case OptionKind::kChoice:
      if (!value.is_string()) RefuseType(option, value, where);
      if (std::none_of(option.words.begin(), option.words.end(),
                       [&](const char* word) { return value == word; }))
        Refuse(option, value, where);
      return value;
    case OptionKind::kText:
      if (!value.is_string()) RefuseType(option, value, where);
      return value;
    case OptionKind::kSources:
      return CheckedSources(option, value, where);
  }
  return value;
}

Json ParseValue(const Option& option, const std::vector<std::string>& texts) {
  MICA_CHECK(option.kind == OptionKind::kIntegers || texts.size() == 1);
  switch (option.kind) {
    case OptionKind::kNumber:
    case OptionKind::kInteger:
      return CheckedValue(option, ParseNumber(texts[0]));
    case OptionKind::kIntegers: {
      Json list = Json::array();
      for (const std::string& text : texts) list.push_back(ParseNumber(text));
      return CheckedValue(option, list);
    }
    case OptionKind::kBytes:
      if (option.least == 0 && ParseNumber(texts[0]) == 0) return 0.0;
      return CheckedValue(option, static_cast<double>(ParseBytes(texts[0], "--" + std::string(option.name))));
    case OptionKind::kBool:
    case OptionKind::kSwitch:
      return CheckedValue(option, texts[0] == "true"    ? Json(true)
                                  : texts[0] == "false" ? Json(false)
                                                        : Json(texts[0]));
    case OptionKind::kChoice:
    case OptionKind::kText:
      return CheckedValue(option, texts[0]);
    case OptionKind::kSources:
      break;
  }
  MICA_CHECK(false);
}

Json ReadOptions(std::span<const Option> options, const Json& json, const std::string& where) {
  if (!json.is_object()) Fail("{}: is {}, expected an object", where, json.type_name());
  std::vector<std::string> known;
  for (const Option& option : options) {
    if (option.place == OptionPlace::kFlag && !where.empty()) continue;
    const std::string key = *option.one_of != '\0' ? std::string(option.one_of) : KeyOf(option);
    if (std::find(known.begin(), known.end(), key) == known.end()) known.push_back(key);
  }
  Json values = Json::object();
  for (const auto& [key, value] : json.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end())
      Fail("{}: unknown key \"{}\", expected one of {}", where, key, fmt::join(known, ", "));
    const Option* option = OptionOfKey(options, key);
    if (*option->one_of == '\0') {
      SetValue(values, *option, CheckedValue(*option, value, where));
      continue;
    }
    // {"kind": which of them, "value": its value}; what is left out is that of the first.
    const std::string inside = fmt::format("{}, \"{}\"", where, key);
    if (!value.is_object()) Fail("{}: is {}, expected an object", inside, value.type_name());
    std::vector<const char*> kinds;
    for (const Option& other : options) {
      if (std::string(other.one_of) == key) kinds.push_back(other.name);
    }
    Json kind = option->name, number = option->value;
    for (const auto& [part, given] : value.items()) {
      if (part != "kind" && part != "value")
        Fail("{}: unknown key \"{}\", expected one of kind, value", inside, part);
      (part == "kind" ? kind : number) = given;
    }
    if (std::none_of(kinds.begin(), kinds.end(), [&](const char* one) { return kind == one; }))
      Fail("{}: {} kind is {}, expected {}", where, key, ShownValue(kind, where), Alternatives(kinds));
    const Option& chosen = FindOption(options, kind.get<std::string>());
    SetValue(values, chosen, CheckedValue(chosen, number, where));
  }
  return values;
}

}  // namespace mica
