#include "io/packed/facts.h"

#include <zlib.h>

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "format/gguf/decode.h"

namespace mica {
namespace {

constexpr uint64_t kMaxExtent = uint64_t{1} << 24;
constexpr uint64_t kMaxWeights = uint64_t{1} << 36;

}  // namespace

uint32_t Crc32(std::span<const std::byte> bytes, uint32_t seed) {
  return static_cast<uint32_t>(crc32_z(seed, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

std::string Crc32Text(uint32_t crc) { return fmt::format("{:08x}", crc); }

std::string MatrixKey(const std::string& name) { return "mica.matrix." + name; }
std::string PlainKey(const std::string& tensor_name) { return "mica.crc32." + tensor_name; }

const char* PartName(PartKind kind) {
  switch (kind) {
    case PartKind::kCodes:
      return "codes";
    case PartKind::kScales:
      return "scales";
    case PartKind::kZeros:
      return "zeros";
    case PartKind::kOrder:
      return "order";
    case PartKind::kRuns:
      return "runs";
    case PartKind::kColExponents:
      return "col_exponents";
    case PartKind::kMask:
      return "mask";
    case PartKind::kTiles:
      return "tiles";
    case PartKind::kTables:
      return "tables";
    case PartKind::kSide:
      return "side";
    case PartKind::kBlocks:
      return "blocks";
    case PartKind::kWeightPacked:
      return "weight_packed";
    case PartKind::kWeightScale:
      return "weight_scale";
    case PartKind::kWeightShape:
      return "weight_shape";
  }
  MICA_CHECK(false);
}

Json FactsJson(const FixedFacts& facts) {
  return {{"coding", "fixed"},          {"rows", facts.rows},
          {"cols", facts.cols},         {"group_size", facts.group_size},
          {"exponent", facts.exponent}, {"mask", facts.mask.name}};
}

Json FactsJson(const EntropyFacts& facts) {
  return {{"coding", "entropy"},
          {"rows", facts.rows},
          {"cols", facts.cols},
          {"states", facts.states},
          {"lanes", facts.lanes},
          {"tile_rows", facts.tile_rows},
          {"row_resolution", facts.row_resolution},
          {"first_knot", facts.first_knot}};
}

Json FactsJson(const GgufFacts& facts) {
  return {{"coding", "gguf"}, {"rows", facts.rows}, {"cols", facts.cols}, {"type", FactsOf(facts.type).name}};
}

Json FactsJson(const CompressedTensorsFacts& facts) {
  return {{"coding", "compressed-tensors"},
          {"rows", facts.rows},
          {"cols", facts.cols},
          {"bits", facts.bits},
          {"group", facts.group},
          {"scales", DTypeName(facts.scale_dtype)}};
}

Json FactsJson(const MatrixFacts& facts) {
  return std::visit([](const auto& of_coding) { return FactsJson(of_coding); }, facts);
}

std::string FactsText(Json facts, const std::map<std::string, uint32_t>& part_crc32) {
  const std::string text = facts.dump();
  Json crc = {{"facts", Crc32Text(Crc32(std::as_bytes(std::span(text))))}};
  for (const auto& [part, value] : part_crc32) crc[part] = Crc32Text(value);
  facts["crc32"] = crc;
  return facts.dump();
}

PartReader::PartReader(const Checkpoint& checkpoint, const std::string& name, bool verify)
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

void PartReader::FailFact(const char* key, const std::string& expected) const {
  Fail("{}: metadata of {}: {} is {}, expected {}", checkpoint_->directory().string(), name_, key,
       facts_.contains(key) ? facts_[key].dump() : "absent", expected);
}

uint64_t PartReader::Number(const char* key, uint64_t low, uint64_t high) const {
  const auto found = facts_.find(key);
  if (found == facts_.end() || !found->is_number_unsigned() || found->get<uint64_t>() < low ||
      found->get<uint64_t>() > high) {
    FailFact(key, fmt::format("a number from {} to {}", low, high));
  }
  return found->get<uint64_t>();
}

int PartReader::Integer(const char* key, int low, int high) const {
  const auto found = facts_.find(key);
  if (found == facts_.end() || !found->is_number_integer() || *found < low || *found > high)
    FailFact(key, fmt::format("a number from {} to {}", low, high));
  return found->get<int>();
}

std::string PartReader::Text(const char* key) const {
  const auto found = facts_.find(key);
  if (found == facts_.end() || !found->is_string()) FailFact(key, "text");
  return found->get<std::string>();
}

FixedFacts PartReader::Fixed() const {
  FixedFacts facts;
  facts.rows = Number("rows", 1, kMaxExtent);
  facts.cols = Number("cols", 1, std::min(kMaxExtent, kMaxWeights / facts.rows));
  facts.group_size = Number("group_size", 1, kMaxExtent);
  facts.exponent = Integer("exponent", -kMaxExponent, kMaxExponent);
  if (const std::string mask = Text("mask"); !MaskKind::Parse(mask, facts.mask))
    Fail("metadata of {}: mask is \"{}\", expected {}", name_, mask, MaskNames());
  return facts;
}

EntropyFacts PartReader::Entropy() const {
  EntropyFacts facts;
  facts.rows = Number("rows", 1, kMaxExtent);
  facts.cols = Number("cols", 1, std::min(kMaxExtent, kMaxWeights / facts.rows));
  facts.states = static_cast<int>(Number("states", 1, 8));
  if (facts.states != 1 && facts.states != 4 && facts.states != 8)
    Fail("metadata of {}: states is {}, expected 1, 4 or 8", name_, facts.states);
  facts.lanes = Number("lanes", 1, kMostLanes);
  if (!IsLaneCount(facts.lanes))
    Fail("metadata of {}: lanes is {}, expected 1, 2, 4, 8, 16 or 32", name_, facts.lanes);
  facts.tile_rows = Number("tile_rows", 1, kMostTileRows);
  facts.row_resolution = static_cast<int>(Number("row_resolution", kStepResolution, kFineStepResolution));
  if (facts.row_resolution != kStepResolution && facts.row_resolution != kFineStepResolution) {
    Fail("metadata of {}: row_resolution is {}, expected {} or {}", name_, facts.row_resolution,
         kStepResolution, kFineStepResolution);
  }
  facts.first_knot = static_cast<int>(Number("first_knot", 0, kLastFirstKnot));
  return facts;
}

GgufFacts PartReader::Gguf() const {
  GgufFacts facts;
  facts.rows = Number("rows", 1, kMaxExtent);
  facts.cols = Number("cols", 1, std::min(kMaxExtent, kMaxWeights / facts.rows));
  const GgmlTypeFacts* type = FindGgmlType(Text("type"));
  if (type == nullptr || !CanDecode(type->type) || facts.cols % type->block_cols != 0)
    FailFact("type", "a type of GGUF whose blocks fill the rows");
  facts.type = type->type;
  return facts;
}

CompressedTensorsFacts PartReader::CompressedTensors() const {
  CompressedTensorsFacts facts;
  facts.rows = Number("rows", 1, kMaxExtent);
  facts.cols = Number("cols", 1, std::min(kMaxExtent, kMaxWeights / facts.rows));
  facts.bits = Integer("bits", 2, 8);
  facts.group = Number("group", 1, facts.cols);
  if (facts.cols % facts.group != 0) FailFact("group", fmt::format("a divisor of {}", facts.cols));
  const std::optional<DType> scales = DTypeFromName(Text("scales"));
  if (scales != DType::kF16 && scales != DType::kBF16) FailFact("scales", "F16 or BF16");
  facts.scale_dtype = *scales;
  return facts;
}

const TensorView& PartReader::AnyPart(PartKind part, DType dtype) {
  const TensorView* tensor = checkpoint_->Find(TensorName(part));
  if (tensor == nullptr) {
    Fail("{}: tensor {} is missing; the packed matrix is incomplete", checkpoint_->directory().string(),
         TensorName(part));
  }
  if (tensor->dtype != dtype) {
    Fail("{}: tensor {} has type {}, expected {}", tensor->file, tensor->name, DTypeName(tensor->dtype),
         DTypeName(dtype));
  }
  used_.push_back(tensor);
  if (!verify_) return *tensor;
  const std::string crc = Crc32Text(Crc32(tensor->data));
  const Json stored = facts_["crc32"].value(PartName(part), Json());
  if (stored != crc) {
    Fail("{}: tensor {}: checksum is {}, the file says {}; the file is damaged, fetch it again", tensor->file,
         tensor->name, crc, stored.dump());
  }
  return *tensor;
}

const TensorView* PartReader::Part(PartKind part, DType dtype, const std::vector<uint64_t>& shape) {
  if (std::find(shape.begin(), shape.end(), uint64_t{0}) != shape.end()) return nullptr;
  const TensorView& tensor = AnyPart(part, dtype);
  if (tensor.shape != shape) {
    Fail("{}: tensor {} has shape {}, expected {}; the file does not match its metadata", tensor.file,
         tensor.name, ShapeText(tensor.shape), ShapeText(shape));
  }
  return &tensor;
}

}  // namespace mica
