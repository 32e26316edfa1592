// What an experiment file says of the model and the texts that it was written for, so that others are refused
// before hours are spent on them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "io/text/datasets.h"
#include "model/weights.h"

namespace mica {

struct Expectations {
  std::optional<uint64_t> layers, hidden, vocabulary, parameters;
  std::optional<std::string> dtype;                               // of the weights: "fp16", "bf16", "fp32"
  std::vector<std::pair<std::filesystem::path, uint64_t>> lines;  // of texts, by their paths

  bool OfModel() const { return layers || hidden || vocabulary || parameters || dtype; }
};

// Reads an experiment file's "expect" object; `base`: what its paths are relative to. Throws Error naming
// `where` for unknown keys, values of another type, and an object that is empty.
Expectations ExpectationsFromJson(const Json& json, const std::string& where,
                                  const std::filesystem::path& base);

// Type of the weights, that of the first matrix: "fp16", or as safetensors calls it where it is none of the
// three.
std::string DTypeOfWeights(const ModelWeights& weights);

// Throws Error naming all that differs.
void CheckExpected(const Expectations& expected, const ModelWeights& weights);
// The same for the lines of the text at this path; nothing when none are expected.
void CheckExpected(const Expectations& expected, const std::filesystem::path& path, uint64_t lines);

}  // namespace mica
