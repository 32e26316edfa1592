#include "eval/measure/follow_evaluation.h"

#include <cstring>
#include <filesystem>
#include <optional>
#include <string>

#include "base/error.h"
#include "model/weights.h"

namespace mica {

void ShareEvaluation(const EvaluationRequest& request, const Windows& windows, const PerplexitySettings& settings) {
  const Group& group = *request.group;
  if (group.alone()) return;
  const auto named = [](const std::filesystem::path& path) {
    return path.empty() ? std::string() : std::filesystem::absolute(path).string();
  };
  Json task = {{"task", "evaluate"},
               {"model", named(request.model)},
               {"reference", named(request.reference)},
               {"window", windows.window},
               {"first_scored", windows.first_scored},
               {"dtype", static_cast<int>(settings.arithmetic.precision)},
               {"as_running", settings.as_running}};
  if (settings.activation_bytes) task["activation_bytes"] = *settings.activation_bytes;
  group.Broadcast(0, task.dump());
  const auto* ids = reinterpret_cast<const char*>(windows.ids.data());
  group.Broadcast(0, std::string(ids, windows.ids.size() * sizeof(int32_t)));
}

void FollowEvaluation(const Json& task, Device device, const Group& group) {
  const std::string ids = group.Broadcast(0, std::string());
  Windows windows;
  windows.window = task.at("window");
  windows.first_scored = task.at("first_scored");
  windows.ids.resize(ids.size() / sizeof(int32_t));
  std::memcpy(windows.ids.data(), ids.data(), ids.size());
  PerplexitySettings settings;
  settings.arithmetic = {static_cast<Precision>(task.at("dtype").get<int>()), device, group};
  settings.as_running = task.at("as_running");
  if (task.contains("activation_bytes")) settings.activation_bytes = task.at("activation_bytes").get<uint64_t>();
  const ModelWeights model = ModelWeights::Open(task.at("model").get<std::string>());
  std::optional<ModelWeights> reference;
  if (const std::string path = task.at("reference"); !path.empty()) reference.emplace(ModelWeights::Open(path));
  EvaluatePerplexity(model, windows, settings, {}, reference ? &*reference : nullptr);
}

}  // namespace mica
