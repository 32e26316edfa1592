#include "record/compression.h"

#include <algorithm>

#include "base/error.h"
#include "base/system.h"
#include "record/fields.h"

namespace mica {
namespace {

// What Totals and a run that goes on take from each matrix.
bool Complete(const LayerRecord& layer) {
  return layer.layer && layer.matrix_bytes &&
         std::all_of(layer.linears.begin(), layer.linears.end(), [](const auto& linear) {
           const MatrixRecord& matrix = linear.second;
           return matrix.rows && matrix.cols && matrix.mean_code_bits && matrix.bits_per_weight &&
                  matrix.zero_share;
         });
}

}  // namespace

Program ThisProgram() { return {Version(), Commit(), {}}; }

Host ThisHost() { return {HostName(), ProcessorName(), {}}; }

std::optional<std::string> SettingsRecord::Text(const std::string& key) const {
  const auto found = values.find(key);
  return found != values.end() && found->is_string() ? std::optional(found->get<std::string>())
                                                     : std::nullopt;
}

std::optional<double> SettingsRecord::Number(const std::string& key) const {
  const auto found = values.find(key);
  return found != values.end() && found->is_number() ? std::optional(found->get<double>()) : std::nullopt;
}

BudgetRecord SettingsRecord::Budget() const {
  const auto found = values.find("budget");
  if (found == values.end() || !found->is_object()) return {};
  const SettingsRecord budget{*found};
  return {budget.Text("kind"), budget.Number("value")};
}

std::vector<CalibrationSource> SettingsRecord::Sources() const {
  std::vector<CalibrationSource> sources;
  const auto found = values.find("calib");
  if (found == values.end() || !found->is_array()) return sources;
  for (const Json& source : *found)
    sources.push_back(FieldReader::Read<CalibrationSource>(source, "calib", WrongTypes::kSkip));
  return sources;
}

BitTotals Totals(const std::vector<LayerRecord>& layers) {
  double weights = 0, code_bits = 0, stored_bits = 0, zeros = 0;
  BitTotals totals;
  for (const LayerRecord& layer : layers) {
    for (const auto& [name, matrix] : layer.linears) {
      MICA_CHECK(matrix.rows);
      MICA_CHECK(matrix.cols);
      MICA_CHECK(matrix.mean_code_bits);
      MICA_CHECK(matrix.bits_per_weight);
      MICA_CHECK(matrix.zero_share);
      const double count = static_cast<double>(*matrix.rows) * static_cast<double>(*matrix.cols);
      weights += count;
      code_bits += count * *matrix.mean_code_bits;
      stored_bits += count * *matrix.bits_per_weight;
      zeros += count * *matrix.zero_share;
      for (const auto& [width, of_width] : matrix.histogram) totals.histogram[width] += of_width;
    }
  }
  totals.compressed_weights = static_cast<uint64_t>(weights);
  totals.mean_code_bits = code_bits / weights;
  totals.bits_per_weight = stored_bits / weights;
  totals.zero_share = zeros / weights;
  return totals;
}

std::filesystem::path RecordOf(const std::filesystem::path& model) {
  std::error_code code;
  if (model.extension() != ".gguf" || std::filesystem::is_directory(model, code)) return model / kCompressionFile;
  std::filesystem::path record = model;
  return record += ".json";
}

CompressionRecord CompressionFromJson(const Json& json, const std::string& where, WrongTypes wrong_types) {
  return FieldReader::Read<CompressionRecord>(json, where, wrong_types);
}

Json ToJson(const CompressionRecord& record) { return FieldWriter::Write(record); }
Json ToJson(const CalibrationRecord& record) { return FieldWriter::Write(record); }
Json ToJson(const Program& record) { return FieldWriter::Write(record); }

ShardRecord ShardFromJson(const Json& json, const std::string& where) {
  ShardRecord record;
  JsonReader reader(json, where);
  for (const char* key : {"tensors", "bytes", "facts"}) {
    if (!json.contains(key)) Fail("{}: has no \"{}\"", where, key);
  }
  reader.Read("tensors", record.tensors);
  reader.Read("bytes", record.bytes);
  if (const Json& facts = *reader.Find("facts"); !facts.empty()) {
    record.layer = FieldReader::Read<LayerRecord>(facts, where + ", \"facts\"", WrongTypes::kRefuse);
    if (!Complete(*record.layer)) Fail("{}: \"facts\" do not say all of a layer", where);
  }
  return record;
}

Json ToJson(const ShardRecord& record) {
  return {{"tensors", record.tensors},
          {"bytes", record.bytes},
          {"facts", record.layer ? FieldWriter::Write(*record.layer) : Json::object()}};
}

}  // namespace mica
