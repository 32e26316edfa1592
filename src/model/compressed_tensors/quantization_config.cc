#include "model/compressed_tensors/quantization_config.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace mica {
namespace {

constexpr size_t kLongestPattern = 1000;

std::string Shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

// Null and absent are the same.
const Json* Find(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

void CheckObject(const Json& json, const std::string& where) {
  if (!json.is_object()) Fail("{}: is {}, expected an object", where, Shown(json));
}

void RefuseOthers(const Json& object, const std::string& where, std::initializer_list<const char*> known) {
  for (const auto& [key, value] : object.items()) {
    if (std::ranges::find(known, key) == known.end())
      Fail("{}: \"{}\" is not a key that is known; remove it if it changes nothing", where, Printable(key));
  }
}

// What must not be there, or must be empty.
void RefuseFeature(const Json& object, const std::string& where, const char* key, const char* what) {
  const Json* value = Find(object, key);
  if (value == nullptr || (value->is_object() && value->empty())) return;
  Fail("{}: {} is {}, but {} is not supported; supported are weights in packed integers alone", where, key,
       Shown(*value), what);
}

void CheckFormat(const Json& object, const std::string& where, bool of_all) {
  const Json* format = Find(object, "format");
  if (format == nullptr ? !of_all : *format == kPackQuantized || (of_all && *format == "mixed-precision"))
    return;
  Fail("{}: format is {}, supported is \"{}\"", where, format == nullptr ? "absent" : Shown(*format),
       kPackQuantized);
}

bool Flag(const Json& object, const std::string& where, const char* key, bool otherwise) {
  const Json* value = Find(object, key);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) Fail("{}: {} is {}, expected true or false", where, key, Shown(*value));
  return value->get<bool>();
}

IntegerScheme ReadScheme(const Json& weights, const std::string& where, std::string name) {
  CheckObject(weights, where);
  RefuseOthers(weights, where,
               {"num_bits", "type", "symmetric", "group_size", "strategy", "block_structure", "dynamic",
                "actorder", "scale_dtype", "zp_dtype", "observer", "observer_kwargs"});
  IntegerScheme scheme;
  scheme.name = std::move(name);
  const Json* bits = Find(weights, "num_bits");
  if (bits == nullptr || !bits->is_number_integer() || *bits < 2 || *bits > 8) {
    Fail("{}: num_bits is {}, expected 2 to 8", where, bits == nullptr ? "absent" : Shown(*bits));
  }
  scheme.bits = bits->get<int>();
  if (const Json* type = Find(weights, "type"); type != nullptr && *type != "int")
    Fail("{}: type is {}, supported is \"int\"", where, Shown(*type));
  if (const Json* dynamic = Find(weights, "dynamic"); dynamic != nullptr && *dynamic != false)
    Fail("{}: dynamic is {}, supported is false", where, Shown(*dynamic));
  if (const Json* block = Find(weights, "block_structure"))
    Fail("{}: block_structure is {}, supported is null", where, Shown(*block));
  if (const Json* order = Find(weights, "actorder")) {
    const bool known = order->is_boolean() || *order == "group" || *order == "weight" || *order == "static" ||
                       *order == "dynamic";
    if (!known)
      Fail("{}: actorder is {}, supported are null, \"group\" and \"weight\"", where, Shown(*order));
  }
  scheme.symmetric = Flag(weights, where, "symmetric", true);
  const Json *size = Find(weights, "group_size"), *strategy = Find(weights, "strategy");
  const bool whole_rows = size == nullptr || *size == -1;
  if (!whole_rows && (!size->is_number_integer() || *size < 1 || *size > (1 << 24)))
    Fail("{}: group_size is {}, expected null, -1 or a number of columns", where, Shown(*size));
  if (!whole_rows) scheme.group = size->get<size_t>();
  const bool names_rows = strategy == nullptr ? size != nullptr && whole_rows : *strategy == "channel";
  const bool names_groups = strategy == nullptr ? !whole_rows : *strategy == "group";
  if (!(names_rows && whole_rows) && !(names_groups && !whole_rows)) {
    Fail("{}: strategy is {} with group_size {}, supported are \"group\" with a size and \"channel\"", where,
         strategy == nullptr ? "absent" : Shown(*strategy), size == nullptr ? "null" : Shown(*size));
  }
  return scheme;
}

}  // namespace

bool CompressedTensorsConfig::Target::Names(std::string_view module) const {
  if (!pattern) return text == module;
  return std::regex_search(module.begin(), module.end(), *pattern, std::regex_constants::match_continuous);
}

std::vector<CompressedTensorsConfig::Target> CompressedTensorsConfig::ParseTargets(const Json& list,
                                                                                   const std::string& where,
                                                                                   const char* key,
                                                                                   size_t scheme) {
  if (!list.is_array()) Fail("{}: {} is {}, expected a list of names", where, key, Shown(list));
  std::vector<Target> targets;
  for (const Json& entry : list) {
    if (!entry.is_string()) Fail("{}: {} holds {}, expected names", where, key, Shown(entry));
    Target target{entry.get<std::string>(), {}, scheme};
    if (target.text.starts_with("re:")) {
      try {
        if (target.text.size() > kLongestPattern)
          throw std::regex_error(std::regex_constants::error_complexity);
        target.pattern.emplace(target.text.substr(3));
      } catch (const std::regex_error&) {
        Fail("{}: {} holds {}, which is not a regular expression that is supported", where, key,
             Shown(entry));
      }
    }
    targets.push_back(std::move(target));
  }
  return targets;
}

CompressedTensorsConfig CompressedTensorsConfig::Parse(const Json& quantization, const std::string& where) {
  CheckObject(quantization, where);
  RefuseOthers(
      quantization, where,
      {"quant_method", "format", "quantization_status", "ignore", "config_groups", "global_compression_ratio",
       "kv_cache_scheme", "sparsity_config", "transform_config", "version", "run_compressed"});
  CheckFormat(quantization, where, true);
  RefuseFeature(quantization, where, "kv_cache_scheme", "a quantised cache");
  RefuseFeature(quantization, where, "transform_config", "a transform");
  if (const Json* sparsity = Find(quantization, "sparsity_config");
      sparsity != nullptr && !(sparsity->is_object() && sparsity->value("format", Json()) == "dense"))
    RefuseFeature(quantization, where, "sparsity_config", "a sparse format");
  if (const Json* status = Find(quantization, "quantization_status");
      status != nullptr && *status != "compressed" && *status != "frozen")
    Fail("{}: quantization_status is {}, expected \"compressed\"", where, Shown(*status));

  CompressedTensorsConfig config;
  const Json* groups = Find(quantization, "config_groups");
  if (groups == nullptr || !groups->is_object() || groups->empty())
    Fail("{}: config_groups is {}, expected an object of groups", where,
         groups == nullptr ? "absent" : Shown(*groups));
  for (const auto& [name, group] : groups->items()) {
    const std::string of_group = fmt::format("{}: config_groups.{}", where, Printable(name));
    CheckObject(group, of_group);
    RefuseOthers(group, of_group,
                 {"targets", "weights", "input_activations", "output_activations", "format"});
    CheckFormat(group, of_group, false);
    RefuseFeature(group, of_group, "input_activations", "activations that are quantised");
    RefuseFeature(group, of_group, "output_activations", "activations that are quantised");
    const Json* targets = Find(group, "targets");
    std::vector<Target> of_scheme =
        ParseTargets(targets == nullptr ? Json() : *targets, of_group, "targets", config.schemes_.size());
    for (Target& target : of_scheme) config.targets_.push_back(std::move(target));
    const Json* weights = Find(group, "weights");
    config.schemes_.push_back(
        ReadScheme(weights == nullptr ? Json() : *weights, of_group + ".weights", name));
  }
  std::ranges::stable_sort(config.targets_, {}, [](const Target& target) {
    return std::pair(target.pattern.has_value(), target.text);
  });
  if (const Json* ignore = Find(quantization, "ignore"))
    config.ignored_ = ParseTargets(*ignore, where, "ignore", 0);
  return config;
}

bool CompressedTensorsConfig::Ignores(std::string_view module, std::string_view class_name) const {
  return std::ranges::any_of(ignored_, [&](const Target& target) {
    return target.Names(module) || (!target.pattern && target.text == class_name);
  });
}

const IntegerScheme* CompressedTensorsConfig::SchemeOf(std::string_view module,
                                                       std::string_view class_name) const {
  if (Ignores(module, class_name)) return nullptr;
  for (const Target& target : targets_) {
    if (target.Names(module)) return &schemes_[target.scheme];
  }
  for (const Target& target : targets_) {
    if (!target.pattern && target.text == class_name) return &schemes_[target.scheme];
  }
  return nullptr;
}

bool IsCompressedTensors(const Json& config) {
  if (!config.is_object()) return false;
  const auto found = config.find("quantization_config");
  return found != config.end() && found->is_object() &&
         found->value("quant_method", Json()) == kCompressedTensorsMethod;
}

}  // namespace mica
