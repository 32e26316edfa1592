#include "experiment/expectations.h"

#include "base/error.h"
#include "record/identity.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr const char* kDTypes[][2] = {{"F16", "fp16"}, {"BF16", "bf16"}, {"F32", "fp32"}};

}  // namespace

Expectations ExpectationsFromJson(const Json& json, const std::string& where, const fs::path& base) {
  JsonReader reader(json, where);
  Expectations expected;
  const auto read = [&](const char* key, auto& member) {
    if (!json.contains(key)) return;
    member.emplace();
    reader.Read(key, *member);
  };
  read("layers", expected.layers);
  read("hidden", expected.hidden);
  read("vocabulary", expected.vocabulary);
  read("parameters", expected.parameters);
  read("dtype", expected.dtype);
  const Json* lines = reader.Find("lines");
  reader.Finish();
  if (json.empty()) Fail("{}: is empty; say what is expected, or leave it out", where);
  if (expected.dtype && *expected.dtype != "fp16" && *expected.dtype != "bf16" && *expected.dtype != "fp32")
    Fail("{}: \"dtype\" is {}, expected fp16, bf16 or fp32", where, ShownJson(json["dtype"]));
  if (lines == nullptr) return expected;
  if (!lines->is_object() || lines->empty())
    Fail("{}: \"lines\" is {}, expected an object: lines by the path of a text", where, ShownJson(*lines));
  for (const auto& [path, count] : lines->items()) {
    uint64_t number = 0;
    if (!ReadWhole(count, number))
      Fail("{}: \"lines\" has {} for \"{}\", expected a whole number", where, ShownJson(count), path);
    expected.lines.emplace_back(base / path, number);
  }
  return expected;
}

std::string DTypeOfWeights(const ModelWeights& weights) {
  const std::string name = LinearTensorName(*weights.config().family, 0, LinearKind::kQ);
  const TensorView* tensor = weights.checkpoint().Find(WeightName(name));
  if (tensor == nullptr) return "packed";
  const std::string dtype = TypeName(*tensor);
  for (const auto& [stored, word] : kDTypes) {
    if (dtype == stored) return word;
  }
  return dtype;
}

void CheckExpected(const Expectations& expected, const ModelWeights& weights) {
  const ModelConfig& config = weights.config();
  std::vector<std::string> differences;
  const auto compare = [&](const char* what, const auto& wanted, const auto& found) {
    if (wanted && *wanted != found)
      differences.push_back(fmt::format("{} {} instead of {}", what, found, *wanted));
  };
  compare("layers", expected.layers, config.layers);
  compare("hidden", expected.hidden, config.hidden);
  compare("vocabulary", expected.vocabulary, config.vocab);
  compare("parameters", expected.parameters, ParameterCount(config));
  compare("dtype", expected.dtype, DTypeOfWeights(weights));
  if (differences.empty()) return;
  Fail("{}: is not the model that the experiment expects: {}; give that model, or change \"expect\"",
       weights.checkpoint().directory().string(), JoinClauses(differences));
}

void CheckExpected(const Expectations& expected, const fs::path& path, uint64_t lines) {
  for (const auto& [text, wanted] : expected.lines) {
    if (text != path || wanted == lines) continue;
    Fail(
        "{}: has {} lines, the experiment expects {}; fetch the file as it was published, or change "
        "\"expect\"",
        path.string(), lines, wanted);
  }
}

}  // namespace mica
