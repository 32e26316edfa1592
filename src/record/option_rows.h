// Rows that several tables of options have. For the tables of this folder only.
#pragma once

#include <vector>

#include "record/options.h"

namespace mica {

inline constexpr double kMostTokens = 1 << 24;  // of a window; times as many windows it fits 64 bits

inline Option SeedRow(OptionPlace place) {
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
inline std::vector<Spelling> DTypeSpellings() {
  return {{"f16", "fp16"},  {"f32", "fp32"},      {"float16", "fp16"},
          {"half", "fp16"}, {"bfloat16", "bf16"}, {"float32", "fp32"}};
}

// Tokens of a window, of calibration and of evaluation.
inline Option WindowRow(const char* group, double least) {
  return {.name = "seqlen",
          .kind = OptionKind::kInteger,
          .group = group,
          .help = "Tokens of a window [the smaller of 2048 and the model's positions]",
          .least = least,
          .most = kMostTokens,
          .unit = "tokens"};
}

// Where windows have BOS, of calibration and of evaluation.
inline Option BosRow(const char* group) {
  return {
      .name = "bos",
      .kind = OptionKind::kChoice,
      .group = group,
      .help =
          "Token that begins a text (BOS): in front of it, in each window, or none [what suits the model]",
      .words = {"text", "window", "none"}};
}

}  // namespace mica
