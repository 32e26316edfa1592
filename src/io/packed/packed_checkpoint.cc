#include "io/packed/packed_checkpoint.h"

#include <algorithm>

#include "base/error.h"
#include "io/packed/entropy.h"
#include "io/packed/facts.h"
#include "io/packed/fixed.h"

namespace mica {
namespace {

constexpr char kMethod[] = "mica";

}  // namespace

Json PackedQuantizationConfig() { return {{"quant_method", kMethod}, {"version", kPackedVersion}}; }

bool IsPacked(const Json& config, const std::string& where) {
  if (!config.is_object()) return false;
  const auto found = config.find("quantization_config");
  if (found == config.end() || found->is_null()) return false;
  const Json method = found->is_object() ? found->value("quant_method", Json()) : Json();
  if (method != kMethod) {
    Fail(
        "{}: quantization_config.quant_method is {}, expected \"{}\"; give the checkpoint as it was before "
        "it was quantised",
        where, method.dump(), kMethod);
  }
  const Json version = found->value("version", Json());
  if (!version.is_number_integer() || version < 1) {
    Fail("{}: quantization_config.version is {}, expected {}", where, version.dump(), kPackedVersion);
  }
  if (version < kPackedVersion) {
    Fail("{}: quantization_config.version is {}, this program reads version {}; compress the original again",
         where, version.dump(), kPackedVersion);
  }
  if (version > kPackedVersion) {
    Fail("{}: quantization_config.version is {}, this program reads version {}; use a newer mica", where,
         version.dump(), kPackedVersion);
  }
  return true;
}

void PackedReader::Decode(size_t first_row, MatrixView<float> out) const {
  if (out.cols != cols_ || first_row > rows_ || out.rows > rows_ - first_row) {
    Fail(
        "packed matrix {} is {}, cannot give {} columns of rows {} to {}; the checkpoint does not match its "
        "config.json",
        name_, ShapeText({rows_, cols_}), out.cols, first_row, first_row + out.rows);
  }
  if (out.rows > 0) DecodeRows(first_row, out);
}

bool HasPacked(const Checkpoint& checkpoint, const std::string& name) {
  return checkpoint.metadata().contains(MatrixKey(name));
}

std::vector<std::string> PackedNames(const Checkpoint& checkpoint) {
  const std::string prefix = MatrixKey("");
  std::vector<std::string> names;
  for (const auto& [key, value] : checkpoint.metadata()) {
    if (key.starts_with(prefix)) names.push_back(key.substr(prefix.size()));
  }
  return names;
}

std::unique_ptr<PackedReader> OpenPacked(const Checkpoint& checkpoint, const std::string& name, bool verify) {
  PackedParts parts(checkpoint, name, verify);
  const std::string coding = parts.Text("coding");
  if (coding == "fixed") return OpenFixed(std::move(parts));
  if (coding == "entropy") return OpenEntropy(std::move(parts));
  Fail("{}: metadata of {}: coding is \"{}\", expected \"fixed\" or \"entropy\"",
       checkpoint.directory().string(), name, coding);
}

void DecodePacked(const Checkpoint& checkpoint, const std::string& name, size_t first_row,
                  MatrixView<float> out) {
  const std::unique_ptr<PackedReader> reader = OpenPacked(checkpoint, name);
  reader->Decode(first_row, out);
  for (const TensorView* tensor : reader->tensors()) checkpoint.Release(*tensor);
}

void VerifyPlain(const Checkpoint& checkpoint, const TensorView& tensor) {
  const auto found = checkpoint.metadata().find(PlainKey(tensor.name));
  if (found == checkpoint.metadata().end()) return;
  const std::string crc = Crc32Text(Crc32(tensor.data));
  if (crc != found->second) {
    Fail("{}: tensor {}: checksum is {}, the file says {}; the file is damaged, fetch it again", tensor.file,
         tensor.name, crc, found->second);
  }
}

void PackedShard::AddPacked(const std::string& name, Json facts, std::vector<PackedTensor> tensors) {
  std::map<std::string, uint32_t> crc32;
  for (PackedTensor& tensor : tensors) {
    crc32[tensor.spec.name.substr(name.size() + 1)] = Crc32(tensor.bytes);
    tensors_.push_back(std::move(tensor));
  }
  metadata_[MatrixKey(name)] = FactsText(std::move(facts), crc32);
}

void PackedShard::Add(const std::string& name, const FixedMatrix& matrix) {
  AddPacked(name, FixedFacts(matrix), PackFixed(name, matrix));
}

void PackedShard::Add(const std::string& name, const EntropyMatrix& matrix) {
  AddPacked(name, EntropyFacts(matrix), PackEntropy(name, matrix));
}

void PackedShard::AddPlain(const TensorSpec& spec, std::vector<std::byte> bytes) {
  metadata_[PlainKey(spec.name)] = Crc32Text(Crc32(bytes));
  tensors_.push_back({spec, std::move(bytes)});
}

std::vector<std::string> PackedShard::tensor_names() const {
  std::vector<std::string> names;
  for (const PackedTensor& tensor : tensors_) names.push_back(tensor.spec.name);
  return names;
}

uint64_t PackedShard::data_bytes() const {
  uint64_t bytes = 0;
  for (const PackedTensor& tensor : tensors_) bytes += tensor.bytes.size();
  return bytes;
}

uint64_t PackedShard::Write(const std::filesystem::path& path) const {
  std::vector<TensorSpec> specs;
  for (const PackedTensor& tensor : tensors_) specs.push_back(tensor.spec);
  SafetensorsWriter writer(path, std::move(specs), metadata_);
  for (const PackedTensor& tensor : tensors_) writer.Write(tensor.bytes);
  const uint64_t bytes = writer.file_bytes();
  writer.Commit();
  return bytes;
}

}  // namespace mica
