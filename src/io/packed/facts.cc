#include "io/packed/facts.h"

#include <zlib.h>

#include <algorithm>

#include "base/error.h"

namespace mica {

uint32_t Crc32(std::span<const std::byte> bytes, uint32_t seed) {
  return static_cast<uint32_t>(crc32_z(seed, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

std::string Crc32Text(uint32_t crc) { return fmt::format("{:08x}", crc); }

std::string MatrixKey(const std::string& name) { return "mica.matrix." + name; }
std::string PlainKey(const std::string& tensor_name) { return "mica.crc32." + tensor_name; }

std::string FactsText(Json facts, const std::map<std::string, uint32_t>& part_crc32) {
  const std::string text = facts.dump();
  Json crc = {{"facts", Crc32Text(Crc32(std::as_bytes(std::span(text))))}};
  for (const auto& [part, value] : part_crc32) crc[part] = Crc32Text(value);
  facts["crc32"] = crc;
  return facts.dump();
}

PackedParts::PackedParts(const Checkpoint& checkpoint, const std::string& name, bool verify)
    : checkpoint_(&checkpoint), name_(name), verify_(verify) {
  const auto found = checkpoint.metadata().find(MatrixKey(name));
  if (found == checkpoint.metadata().end()) {
    Fail("{}: the metadata have no entry {}; the checkpoint is incomplete or was not written by mica",
         checkpoint.directory().string(), MatrixKey(name));
  }
  const std::string where = fmt::format("{}: metadata of {}", checkpoint.directory().string(), name);
  facts_ = ParseJson(found->second, where);
  if (!facts_.is_object() || !facts_.contains("crc32") || !facts_["crc32"].is_object()) {
    Fail("{} hold no checksums; the file is damaged", where);
  }
  Json bare = facts_;
  bare.erase("crc32");
  const std::string text = bare.dump();
  const std::string crc = Crc32Text(Crc32(std::as_bytes(std::span(text))));
  const Json stored = facts_["crc32"].value("facts", Json());
  if (stored != crc)
    Fail("{}: checksum is {}, the file says {}; the file is damaged, fetch it again", where, crc,
         stored.dump());
}

void PackedParts::FailFact(const char* key, const std::string& expected) const {
  Fail("{}: metadata of {}: {} is {}, expected {}", checkpoint_->directory().string(), name_, key,
       facts_.contains(key) ? facts_[key].dump() : "absent", expected);
}

uint64_t PackedParts::Number(const char* key, uint64_t low, uint64_t high) const {
  const auto found = facts_.find(key);
  if (found == facts_.end() || !found->is_number_unsigned() || found->get<uint64_t>() < low ||
      found->get<uint64_t>() > high) {
    FailFact(key, fmt::format("a number from {} to {}", low, high));
  }
  return found->get<uint64_t>();
}

int PackedParts::Integer(const char* key, int low, int high) const {
  const auto found = facts_.find(key);
  if (found == facts_.end() || !found->is_number_integer() || *found < low || *found > high)
    FailFact(key, fmt::format("a number from {} to {}", low, high));
  return found->get<int>();
}

std::string PackedParts::Text(const char* key) const {
  const auto found = facts_.find(key);
  if (found == facts_.end() || !found->is_string()) FailFact(key, "text");
  return found->get<std::string>();
}

const TensorView& PackedParts::AnyPart(const std::string& part, DType dtype) {
  const TensorView* tensor = checkpoint_->Find(name_ + "." + part);
  if (tensor == nullptr) {
    Fail("{}: tensor {}.{} is missing; the packed matrix is incomplete", checkpoint_->directory().string(),
         name_, part);
  }
  if (tensor->dtype != dtype) {
    Fail("{}: tensor {} has type {}, expected {}", tensor->file, tensor->name, DTypeName(tensor->dtype),
         DTypeName(dtype));
  }
  used_.push_back(tensor);
  if (!verify_) return *tensor;
  const std::string crc = Crc32Text(Crc32(tensor->data));
  const Json stored = facts_["crc32"].value(part, Json());
  if (stored != crc) {
    Fail("{}: tensor {}: checksum is {}, the file says {}; the file is damaged, fetch it again", tensor->file,
         tensor->name, crc, stored.dump());
  }
  return *tensor;
}

const TensorView* PackedParts::Part(const std::string& part, DType dtype,
                                    const std::vector<uint64_t>& shape) {
  if (std::find(shape.begin(), shape.end(), uint64_t{0}) != shape.end()) return nullptr;
  const TensorView& tensor = AnyPart(part, dtype);
  if (tensor.shape != shape) {
    Fail("{}: tensor {} has shape {}, expected {}; the file does not match its metadata", tensor.file,
         tensor.name, ShapeText(tensor.shape), ShapeText(shape));
  }
  return &tensor;
}

}  // namespace mica
