#include "experiment/sweep/sweep_plan.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "base/context.h"
#include "base/error.h"
#include "experiment/quality/quality_budget.h"
#include "experiment/sweep/axis.h"
#include "record/options.h"

namespace mica {
namespace {

constexpr size_t kMostPoints = 1000;
constexpr size_t kMostNameBytes = 100;

bool IsOf(const Ordered<Json>& values, const char* option) { return Find(values, option) != nullptr; }

void SetOption(Json& compress, const std::string& option, const Json& value) {
  if (BudgetOfKind(option) != nullptr) {
    compress["budget"] = {{"kind", option}, {"value", value}};
  } else {
    SetValue(compress, FindOption(CompressionOptionTable(), option), value);
  }
}
// The key of "compress" that an option, or a kind of budget, is given under.
std::string KeyOfValue(const std::string& option) {
  return BudgetOfKind(option) != nullptr ? "budget" : KeyOf(FindOption(CompressionOptionTable(), option));
}

// The experiment's "compress" with the values of a point in it. Shares of zeros and where they may be go
// together: a pattern n:m or none has its own share.
Json CompressOf(const Json& base, const Ordered<Json>& values) {
  Json compress = base;
  const Json* const pattern = Find(values, "pattern");
  if (IsOf(values, "sparsity") && pattern == nullptr) compress.erase("pattern");
  if (pattern != nullptr && *pattern != "unstructured" && !IsOf(values, "sparsity"))
    compress.erase("sparsity");
  for (const auto& [option, value] : values) SetOption(compress, option, value);
  return compress;
}

std::string NameOf(const Ordered<Json>& values) {
  std::string name;
  for (const auto& [option, value] : values) {
    if (!name.empty()) name += '-';
    for (const char c : option + "-" + ValueText(value))
      name += std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' ? c : '-';
  }
  return name.substr(0, kMostNameBytes);
}

// Collects points, one of each kind.
class Points {
 public:
  Points(const Experiment& experiment, std::string where)
      : experiment_(experiment), base_(experiment.json.at("compress")), where_(std::move(where)) {}

  void Add(Ordered<Json> values) {
    SweepPoint point;
    const std::string where = fmt::format("{}, point {}", where_, LabelOf(values));
    Json compress = CompressOf(base_, values);
    std::optional<QualityBudget> quality;
    const CompressionSettings settings = InContext(where, [&] { return Settings(compress, quality); });
    const Json effective = SettingsToJson(settings);
    const Json merged = std::exchange(compress, Json::object());
    for (const auto& [key, value] : merged.items()) {
      const bool works = key == "preset" || key == "calib" || effective.contains(key);
      (works ? effective_ : idle_).insert(key);
      if (works) compress[key] = value;
    }
    for (auto& [option, value] : values) {
      if (compress.contains(KeyOfValue(option))) point.values.emplace_back(option, std::move(value));
    }
    point.settings = InContext(where, [&] { return Settings(compress, point.quality); });
    point.compress = std::move(compress);
    Json identity = SettingsToJson(point.settings);
    if (point.quality) identity["budget"] = point.compress.at("budget");
    if (!seen_.insert(identity.dump()).second) return;
    point.name = NameOf(point.values);
    if (point.name.empty()) point.name = "point";
    std::string name = point.name;
    for (size_t copy = 2; !names_.insert(name).second; ++copy) name = fmt::format("{}-{}", point.name, copy);
    point.name = name;
    points_.push_back(std::move(point));
    if (points_.size() > kMostPoints)
      Fail("{}: has more than {} points; give fewer values", where_, kMostPoints);
  }

  std::vector<SweepPoint> Take() {
    for (const std::string& key : idle_) {
      if (effective_.contains(key)) continue;
      // Which says why it changes nothing; what a point says for itself is that of one of the points.
      RefuseIdleOptions(points_.front().settings, [&](const std::string& name) {
        return KeyOf(FindOption(CompressionOptionTable(), name)) == key;
      });
      Fail("{}: \"{}\" changes nothing at any point; leave it out", where_, key);
    }
    if (points_.empty()) Fail("{}: has no points; give axes, or \"points\"", where_);
    return std::move(points_);
  }

 private:
  CompressionSettings Settings(const Json& compress, std::optional<QualityBudget>& quality) const {
    return CompressionFromJson(compress, "\"compress\"", experiment_.base, &quality);
  }

  const Experiment& experiment_;
  const Json base_;
  const std::string where_;
  std::vector<SweepPoint> points_;
  std::set<std::string> seen_, names_, effective_, idle_;
};

KeptFiles ReadKeep(const Json& keep, const std::string& where) {
  if (keep == "front") return KeptFiles::kFront;
  if (keep == "all") return KeptFiles::kAll;
  if (keep == "none") return KeptFiles::kNone;
  Fail("{}: \"keep\" is {}, expected \"front\", \"all\" or \"none\"", where, ShownJson(keep));
}

std::vector<SweepOther> ReadOthers(const Json& others, const std::string& where,
                                   const std::filesystem::path& base) {
  const std::string inside = where + ", \"others\"";
  if (!others.is_array()) Fail("{}: is {}, expected a list of files", inside, others.type_name());
  std::vector<SweepOther> read;
  std::set<std::string> names;
  for (const Json& item : others) {
    const Json object = item.is_string() ? Json::object({{"path", item}}) : item;
    SweepOther other;
    std::string path;
    JsonReader reader(object, inside);
    reader.Read("path", path);
    reader.Read("name", other.name);
    reader.Read("bytes", other.bytes);
    reader.Read("bits_per_weight", other.bits);
    reader.Finish();
    if (path.empty()) Fail("{}: a file has no \"path\"", inside);
    for (const auto& [key, value] :
         {std::pair{"bytes", other.bytes}, std::pair{"bits_per_weight", other.bits}}) {
      if (object.contains(key) && !(value > 0 && std::isfinite(value)))
        Fail("{}: \"{}\" is {}, expected a positive number", inside, key, value);
    }
    other.path = (base / path).lexically_normal();
    if (!std::filesystem::exists(other.path)) Fail("{}: {} does not exist", inside, other.path.string());
    if (other.name.empty()) other.name = other.path.stem().string();
    if (!names.insert(other.name).second)
      Fail("{}: two files are called {}; give each a \"name\"", inside, other.name);
    read.push_back(std::move(other));
  }
  return read;
}

void AddGrid(const std::vector<Axis>& axes, Points& points, const std::string& where) {
  size_t count = 1;
  for (const Axis& axis : axes) {
    count *= axis.values.size();
    if (count > kMostPoints)
      Fail("{}: the grid has more than {} points; give fewer values", where, kMostPoints);
  }
  for (size_t index = 0; index < count; ++index) {
    Ordered<Json> values;
    size_t rest = count, place = index;
    for (const Axis& axis : axes) {
      rest /= axis.values.size();
      values.push_back(axis.values[place / rest]);
      place %= rest;
    }
    points.Add(std::move(values));
  }
}

}  // namespace

std::string LabelOf(const Ordered<Json>& values) {
  std::string label;
  for (const auto& [option, value] : values)
    label += (label.empty() ? "" : ", ") + option + " " + ValueText(value);
  return label.empty() ? "all defaults" : label;
}

SweepPlan PlanSweep(const Experiment& experiment) {
  const std::string file = experiment.file.string(), where = file + ", \"sweep\"";
  const Json& sweep = experiment.sweep;
  if (sweep.is_null()) Fail("{}: has no \"sweep\"; give one, or run it with mica run", file);
  SweepPlan plan;
  std::vector<Axis> axes;
  const Json* given = nullptr;
  for (const auto& [key, value] : sweep.items()) {
    if (key == "keep") {
      plan.keep = ReadKeep(value, where);
    } else if (key == "others") {
      plan.others = ReadOthers(value, where, experiment.base);
    } else if (key == "points") {
      given = &value;
    } else {
      axes.push_back(ReadAxis(key, value, where));
    }
  }
  if (given != nullptr && !axes.empty())
    Fail("{}: has both axes ({}) and \"points\"; give one of them", where, axes.front().key);
  Points points(experiment, where);
  if (given != nullptr) {
    if (!given->is_array())
      Fail("{}, \"points\": is {}, expected a list of objects", where, given->type_name());
    std::vector<Ordered<Json>> before;
    for (const Json& point : *given) {
      Ordered<Json> values = ReadPoint(point, where + ", \"points\"");
      if (std::ranges::find(before, values) != before.end())
        Fail("{}, \"points\": has {} twice", where, ShownJson(point));
      before.push_back(values);
      points.Add(std::move(values));
    }
  } else if (!axes.empty()) {
    AddGrid(axes, points, where);
  }
  plan.points = points.Take();
  return plan;
}

}  // namespace mica
