// How records become JSON and come back: each record names its keys once, in the order of the file, in a
// function Fields(archive, record), which serves the reader and the writer. For the files of this folder
// only.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "record/compression.h"
#include "record/samples.h"

namespace mica {

// Reads one object. Null is absent; for a plain number in a file of our own it is NaN, which was written so.
class FieldReader {
 public:
  template <typename Record>
  using Of = Record;

  FieldReader(const Json& json, std::string where, WrongTypes wrong_types)
      : reader_(json, std::move(where)), wrong_types_(wrong_types) {}

  template <typename T>
  void operator()(const char* key, T& value) {
    const Json* found = reader_.Find(key);
    if (found == nullptr) return;
    T read{};
    if (Take(*found, key, read)) {
      value = std::move(read);
    } else if (wrong_types_ == WrongTypes::kRefuse) {
      reader_.RefuseType(key, *found, TypeText(value));
    }
  }
  // The writer's concern.
  template <typename T>
  void OrNull(const char* key, std::optional<T>& value) {
    (*this)(key, value);
  }
  template <typename T>
  void UnlessEmpty(const char* key, T& value) {
    (*this)(key, value);
  }
  // Last of a record's fields: what no field is named after.
  void Other(Json& other) { other = reader_.Rest(); }

  // The record that `json` holds; an empty one when it is no object and wrong types are skipped.
  template <typename Record>
  static Record Read(const Json& json, const std::string& where, WrongTypes wrong_types) {
    Record record;
    if (!json.is_object() && wrong_types == WrongTypes::kSkip) return record;
    FieldReader reader(json, where, wrong_types);
    Fields(reader, record);
    return record;
  }

 private:
  template <typename T>
  static std::string TypeText(const std::optional<T>&) {
    return TypeText(T());
  }
  template <typename T>
  static std::string TypeText(const Ordered<T>&) {
    return "an object";
  }
  // A list whose items may be what is wrong.
  template <typename T>
  static std::string TypeText(const std::vector<T>&) {
    return "an array, each item " + TypeText(T());
  }
  static std::string TypeText(const NumberLine&) { return "text of whole numbers"; }
  template <typename T>
  static std::string TypeText(const T&) {
    return JsonTypeText<T>();
  }
  std::string Below(const std::string& key) const { return reader_.where() + ", \"" + key + "\""; }

  template <typename T>
  static constexpr bool kIsRecord = requires(FieldReader& reader, T& record) {
    Fields(reader, record);
  };

  // Each returns false, or refuses, when `json` is of another type than `value`.
  bool Take(const Json& json, const std::string&, bool& value) {
    if (!json.is_boolean()) return false;
    value = json.get<bool>();
    return true;
  }
  bool Take(const Json& json, const std::string&, double& value) {
    if (!json.is_number() && !(json.is_null() && wrong_types_ == WrongTypes::kRefuse)) return false;
    value = json.is_null() ? std::numeric_limits<double>::quiet_NaN() : json.get<double>();
    return true;
  }
  bool Take(const Json& json, const std::string&, uint64_t& value) { return ReadWhole(json, value); }
  bool Take(const Json& json, const std::string&, std::string& value) {
    if (!json.is_string()) return false;
    value = json.get<std::string>();
    return true;
  }
  bool Take(const Json& json, const std::string&, Json& value) {
    value = json;
    return true;
  }
  bool Take(const Json& json, const std::string&, SettingsRecord& value) {
    if (!json.is_object()) return false;
    value.values = json;
    return true;
  }
  bool Take(const Json& json, const std::string&, NumberLine& value) {
    if (!json.is_string()) return false;
    const auto& text = json.get_ref<const std::string&>();
    const char* const end = text.data() + text.size();
    for (const char* at = text.data(); at != end;) {
      uint64_t number = 0;
      const auto [next, error] = std::from_chars(at, end, number);
      if (error != std::errc() || (next != end && (*next != ' ' || next + 1 == end))) return false;
      value.values.push_back(number);
      at = next == end ? end : next + 1;
    }
    return true;
  }
  bool Take(const Json& json, const std::string& key, PhaseTimes& value) {
    if (!Take(json, key, value.phases)) return false;
    const auto total = std::find_if(value.phases.begin(), value.phases.end(),
                                    [](const auto& phase) { return phase.first == "total"; });
    if (total == value.phases.end()) return true;
    value.total = total->second;
    value.phases.erase(total);
    return true;
  }
  template <typename T>
  bool Take(const Json& json, const std::string& key, std::optional<T>& value) {
    if (json.is_null()) return true;
    T read{};
    if (!Take(json, key, read)) return false;
    value = std::move(read);
    return true;
  }
  // Lists and maps keep the places of records that are none. A list of values must have no others.
  template <typename T>
  bool Take(const Json& json, const std::string& key, std::vector<T>& value) {
    if (!json.is_array()) return false;
    for (const Json& item : json) {
      T read{};
      if (!Take(item, key, read) && !kIsRecord<T>) return false;
      value.push_back(std::move(read));
    }
    return true;
  }
  template <typename T>
  bool Take(const Json& json, const std::string& key, Ordered<T>& value) {
    if (!json.is_object()) return false;
    for (const auto& item : json.items()) {
      T read{};
      if (Take(item.value(), key + "/" + item.key(), read) || kIsRecord<T>) {
        value.emplace_back(item.key(), std::move(read));
      } else if (wrong_types_ == WrongTypes::kRefuse) {
        return false;
      }
    }
    return true;
  }
  bool Take(const Json& json, const std::string& key, WidthHistogram& value) {
    Ordered<uint64_t> widths;
    if (!Take(json, key, widths)) return false;
    for (const auto& [width, weights] : widths) value[std::atoi(width.c_str())] += weights;
    return true;
  }
  template <typename Record>
  requires kIsRecord<Record>
  bool Take(const Json& json, const std::string& key, Record& value) {
    if (!json.is_object() && wrong_types_ == WrongTypes::kSkip) return false;
    value = Read<Record>(json, Below(key), wrong_types_);
    return true;
  }

  JsonReader reader_;
  WrongTypes wrong_types_;
};

// Writes one object; what is absent is not written, nor is a record all of which is absent.
class FieldWriter {
 public:
  template <typename Record>
  using Of = const Record;

  template <typename T>
  void operator()(const char* key, const T& value) {
    json_[key] = Put(value);
  }
  template <typename T>
  void operator()(const char* key, const std::optional<T>& value) {
    if (value) json_[key] = Put(*value);
  }
  template <typename Record>
  requires requires(FieldWriter& writer, const Record& record) { Fields(writer, record); }
  void operator()(const char* key, const Record& value) {
    Json json = Put(value);
    if (!json.empty()) json_[key] = std::move(json);
  }
  template <typename T>
  void OrNull(const char* key, const std::optional<T>& value) {
    json_[key] = value ? Put(*value) : Json(nullptr);
  }
  template <typename T>
  void UnlessEmpty(const char* key, const T& value) {
    if (!value.empty()) json_[key] = Put(value);
  }
  void Other(const Json& other) {
    for (const auto& item : other.items()) json_[item.key()] = item.value();
  }

  template <typename Record>
  static Json Write(const Record& record) {
    FieldWriter writer;
    Fields(writer, record);
    return std::move(writer.json_);
  }

 private:
  template <typename T>
  static Json Put(const T& value) {
    return value;
  }
  static Json Put(const SettingsRecord& value) { return value.values; }
  static Json Put(const NumberLine& value) {
    std::string line;
    for (const uint64_t number : value.values) {
      if (!line.empty()) line += ' ';
      line += std::to_string(number);
    }
    return line;
  }
  static Json Put(const PhaseTimes& value) {
    Json json = Put(value.phases);
    if (value.total) json["total"] = *value.total;
    return json;
  }
  template <typename T>
  static Json Put(const std::vector<T>& value) {
    Json json = Json::array();
    for (const T& item : value) json.push_back(Put(item));
    return json;
  }
  template <typename T>
  static Json Put(const Ordered<T>& value) {
    Json json = Json::object();
    for (const auto& [key, item] : value) json[key] = Put(item);
    return json;
  }
  static Json Put(const WidthHistogram& value) {
    Json json = Json::object();
    for (const auto& [width, weights] : value) json[std::to_string(width)] = weights;
    return json;
  }
  template <typename Record>
  requires requires(FieldWriter& writer, const Record& record) { Fields(writer, record); }
  static Json Put(const Record& value) { return Write(value); }

  Json json_ = Json::object();
};

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<Program>& record) {
  archive("version", record.version);
  archive("commit", record.commit);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<Host>& record) {
  archive("name", record.name);
  archive("processor", record.processor);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<GpuRecord>& record) {
  archive("name", record.name);
  archive("cuda", record.cuda);
  archive("memory_bytes", record.memory_bytes);
  archive("peak_bytes", record.peak_bytes);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<CalibrationSource>& record) {
  archive("kind", record.kind);
  archive("path", record.path);
  archive("sha256", record.sha256);
  archive("content_sha256", record.content_sha256);
  archive("weight", record.weight);
  archive("windows", record.windows);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<CalibrationRecord>& record) {
  archive("sources", record.sources);
  archive("tokenizer", record.tokenizer);
  archive("bos", record.bos);
  archive("samples", record.samples);
  archive("seqlen", record.seqlen);
  archive("tokens", record.tokens);
  archive("seed", record.seed);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<OriginalModel>& record) {
  archive("path", record.path);
  archive("fingerprint", record.fingerprint);
  archive("file_bytes", record.file_bytes);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<ControlRecord>& record) {
  archive("bits", record.bits);
  archive("zeros", record.zeros);
  archive("log2_c", record.log2_c);
  archive("zero_price", record.zero_price);
  archive("predicted_bits", record.predicted_bits);
  archive("predicted_zeros", record.predicted_zeros);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<MatrixRecord>& record) {
  archive("rows", record.rows);
  archive("cols", record.cols);
  archive("type", record.type);
  archive("mean_code_bits", record.mean_code_bits);
  archive("bits_per_weight", record.bits_per_weight);
  archive("zero_share", record.zero_share);
  archive("histogram", record.histogram);
  archive("relative_error", record.relative_error);
  archive("predicted_loss", record.predicted_loss);
  archive("measured_loss", record.measured_loss);
  archive("dead_channels", record.dead_channels);
  archive("damping_doublings", record.damping_doublings);
  archive("groups", record.groups);
  archive("silhouette", record.silhouette);
  archive("mean_information", record.mean_information);
  archive("control", record.control);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<LayerRecord>& record) {
  archive("layer", record.layer);
  archive("matrix_bytes", record.matrix_bytes);
  archive("linears", record.linears);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<BitTotals>& record) {
  archive("compressed_weights", record.compressed_weights);
  archive("mean_code_bits", record.mean_code_bits);
  archive("bits_per_weight", record.bits_per_weight);
  archive("zero_share", record.zero_share);
  archive("histogram", record.histogram);
  archive("breakdown_bytes", record.breakdown_bytes);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<ShardFile>& record) {
  archive("bytes", record.bytes);
  archive("header_sha256", record.header_sha256);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<FileSizes>& record) {
  archive("bytes_before", record.bytes_before);
  archive("bytes_after", record.bytes_after);
  archive("ratio", record.ratio);
  archive.UnlessEmpty("shards", record.shards);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<QualityTrial>& record) {
  archive("budget", record.budget);
  archive("bytes", record.bytes);
  archive("predicted", record.predicted);
  archive("measured", record.measured);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<QualityRecord>& record) {
  archive("kind", record.kind);
  archive("aimed", record.aimed);
  archive("measured", record.measured);
  archive("set", record.set);
  archive("predicted", record.predicted);
  archive.UnlessEmpty("trials", record.trials);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<CompressionRecord>& record) {
  archive("mica", record.program);
  archive("created", record.created);
  archive("settings", record.settings);
  archive("model", record.model);
  archive("calibration", record.calibration);
  archive("quality", record.quality);
  archive("bits", record.bits);
  archive("layers", record.layers);
  archive("file", record.file);
  archive("time", record.time);
  archive("peak_memory_bytes", record.peak_memory_bytes);
  archive("gpu", record.gpu);
  archive("host", record.host);
  archive.Other(record.other);
}

}  // namespace mica
