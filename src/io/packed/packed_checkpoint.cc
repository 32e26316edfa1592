#include "io/packed/packed_checkpoint.h"

#include <utility>

#include "base/error.h"
#include "io/packed/facts.h"

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
  if (method == "compressed-tensors") return false;
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
    Fail(
        "{}: quantization_config.version is {}, this program reads version {}; compress the original again "
        "with "
        "this program, or read it with the one that wrote it",
        where, version.dump(), kPackedVersion);
  }
  if (version > kPackedVersion) {
    Fail("{}: quantization_config.version is {}, this program reads version {}; use a newer mica", where,
         version.dump(), kPackedVersion);
  }
  return true;
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

void VerifyPlain(const Checkpoint& checkpoint, const TensorView& tensor) {
  const auto found = checkpoint.metadata().find(PlainKey(tensor.name));
  if (found == checkpoint.metadata().end()) return;
  const std::string crc = Crc32Text(Crc32(tensor.data));
  if (crc != found->second) {
    Fail("{}: tensor {}: checksum is {}, the file says {}; the file is damaged, fetch it again", tensor.file,
         tensor.name, crc, found->second);
  }
}

std::vector<PackedTensor> NamedTensors(const std::string& name, PackedMatrix matrix) {
  std::vector<PackedTensor> tensors;
  for (PackedPart& part : matrix.parts) {
    tensors.push_back(
        {{name + "." + PartName(part.kind), part.dtype, std::move(part.shape)}, std::move(part.bytes)});
  }
  return tensors;
}

void PackedShard::Add(const std::string& name, PackedMatrix matrix) {
  std::map<std::string, uint32_t> crc32;
  for (const PackedPart& part : matrix.parts) crc32[PartName(part.kind)] = Crc32(part.bytes);
  metadata_[MatrixKey(name)] = FactsText(FactsJson(matrix.facts), crc32);
  for (PackedTensor& tensor : NamedTensors(name, std::move(matrix))) tensors_.push_back(std::move(tensor));
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

uint64_t PackedShard::header_bytes() const {
  std::vector<TensorSpec> specs;
  for (const PackedTensor& tensor : tensors_) specs.push_back(tensor.spec);
  return SafetensorsHeaderBytes(specs, metadata_);
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
