#include "compress/pipeline.h"

#include "base/error.h"
#include "base/output.h"
#include "compress/compression.h"
#include "compress/output_place.h"
#include "device/device.h"
#include "record/compression.h"
#include "record/identity.h"

namespace mica {
namespace fs = std::filesystem;

void CheckCompression(const CompressionPaths& paths, const CompressionSettings& settings,
                      Progress& progress) {
  Compression(paths, settings, progress).Check();
}

Identity IdentityOfCompression(const CompressionPaths& paths, const CompressionSettings& settings,
                               Progress& progress) {
  return Compression(paths, settings, progress).Which();
}

BudgetReach ReachOfBudget(const CompressionPaths& paths, const CompressionSettings& settings, Progress& progress) {
  return Compression(paths, settings, progress).Reaching();
}

CompressionNeeds NeedsOfCompression(const CompressionPaths& paths, const CompressionSettings& settings,
                                    Progress& progress) {
  return Compression(paths, settings, progress).Needs();
}

void FollowCompression(const Json& task, Device device, const Group& group) {
  CompressionPaths paths;
  paths.model = task.at("model").get<std::string>();
  paths.out = task.at("out").get<std::string>();
  paths.statistics = task.at("statistics").get<std::string>();
  CompressionSettings settings = SettingsFromJson(task.at("settings"), "settings of the leading rank");
  MICA_CHECK(SettingsToJson(settings) == task.at("settings"));
  settings.arithmetic.device = device;
  settings.arithmetic.group = &group;
  Progress progress(false);
  Compression(paths, settings, progress).Run();
}

CompressionRecord CompressModel(const CompressionPaths& paths, const CompressionSettings& settings,
                                Progress& progress) {
  const OutputPlace place = PlaceOf(paths.out, settings.coding);
  CommandFiles files{
      .inputs = {paths.model}, .outputs = {paths.statistics}, .directories = {place.directory}};
  if (place.one_file) files.outputs.insert(files.outputs.end(), {place.gguf, place.record});
  for (const DataSpec& source : settings.calibration.sources) {
    if (source.kind != DataKind::kBuiltIn) files.inputs.push_back(source.path);
  }
  CheckFiles(files);
  Compression compression(paths, settings, progress);
  const Group& group = *settings.arithmetic.group;
  if (!group.alone()) {
    const auto named = [](const fs::path& path) { return path.empty() ? "" : fs::absolute(path).string(); };
    const Json task = {{"task", "compress"},
                       {"model", named(paths.model)},
                       {"out", named(paths.out)},
                       {"statistics", named(paths.statistics)},
                       {"settings", SettingsToJson(settings)}};
    group.Broadcast(0, task.dump());
  }
  return compression.Run();
}

}  // namespace mica
