// quantization_config of config.json where its quant_method is "compressed-tensors".
#pragma once

#include <cstddef>
#include <optional>
#include <regex>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace mica {

inline constexpr const char* kCompressedTensorsMethod = "compressed-tensors";
inline constexpr const char* kPackQuantized = "pack-quantized";  // its format

// How the matrices of some modules are stored.
struct IntegerScheme {
  std::string name;  // of its group, "group_0"
  int bits = 4;
  bool symmetric = true;
  std::optional<size_t> group;  // columns that share a scale; none: all of a row
};

class CompressedTensorsConfig {
 public:
  // quantization: the object. Throws Error that names `where`, the key and what is supported: integers alone,
  // packed, of 2 to 8 bits, with scales for groups of columns or for rows. Unknown keys are refused.
  static CompressedTensorsConfig Parse(const Json& quantization, const std::string& where);

  // Of a module ("model.layers.0.mlp.up_proj") of a class ("Linear"): none when it is ignored, or when no
  // target names it. An exact name comes before a pattern, that before a class, as compressed-tensors reads
  // it.
  const IntegerScheme* SchemeOf(std::string_view module, std::string_view class_name) const;
  bool Ignores(std::string_view module, std::string_view class_name) const;

 private:
  // "model.layers.0.mlp.up_proj", "re:.*down_proj$", which matches from the beginning of a name, or "Linear".
  struct Target {
    std::string text;
    std::optional<std::regex> pattern;
    size_t scheme = 0;
    bool Names(std::string_view module) const;
  };
  static std::vector<Target> ParseTargets(const Json& list, const std::string& where, const char* key,
                                          size_t scheme);

  std::vector<IntegerScheme> schemes_;
  std::vector<Target> targets_;  // exact names and classes before patterns, by text
  std::vector<Target> ignored_;
};

// Whether a config.json is of such a checkpoint.
bool IsCompressedTensors(const Json& config);

}  // namespace mica
