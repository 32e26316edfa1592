#include "io/container/torch_file.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "base/error.h"
#include "base/file_kind.h"
#include "base/text.h"
#include "io/container/pickle.h"

namespace mica {
namespace {

constexpr std::string_view kPickleName = "/data.pkl";

std::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Row-major without gaps; the stride of an extent of one does not matter.
bool IsContiguous(const PickledTensor& tensor) {
  uint64_t expected = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != expected) return false;
    expected *= tensor.shape[i];
  }
  return true;
}

TensorView View(const PickledTensor& tensor, const ZipEntry& storage, const std::string& file) {
  const std::string name = Printable(tensor.name);
  const size_t element_bytes = DTypeBytes(tensor.dtype);
  const std::optional<uint64_t> bytes = ShapeBytes(tensor.shape, element_bytes);
  if (!bytes)
    Fail("{}: tensor {} has shape {}, which is more than a file can hold", file, name,
         ShapeText(tensor.shape));
  const std::optional<uint64_t> storage_bytes = ShapeBytes({tensor.storage_elements}, element_bytes);
  if (!storage_bytes || storage.data.size() != *storage_bytes) {
    Fail("{}: storage {} holds {} bytes, expected {} elements of {}", file, Printable(storage.name),
         storage.data.size(), tensor.storage_elements, DTypeName(tensor.dtype));
  }
  const uint64_t elements = *bytes / element_bytes;
  if (tensor.offset > tensor.storage_elements || elements > tensor.storage_elements - tensor.offset) {
    Fail("{}: tensor {} with shape {} at offset {} lies outside its storage of {} elements", file, name,
         ShapeText(tensor.shape), tensor.offset, tensor.storage_elements);
  }
  if (elements > 0 && !IsContiguous(tensor)) {
    Fail(
        "{}: tensor {} with shape {} has strides {}; only contiguous tensors are read, so save it with "
        ".contiguous()",
        file, name, ShapeText(tensor.shape), ShapeText(tensor.strides));
  }
  return {tensor.name, tensor.dtype, tensor.shape,
          storage.data.subspan(tensor.offset * element_bytes, *bytes), file};
}

}  // namespace

TorchFile ParseTorchFile(std::span<const std::byte> bytes, const std::string& file) {
  if (!AsText(bytes).starts_with("PK")) {
    RefuseOtherKind(AsText(bytes.first(std::min(bytes.size(), kRecognisedBytes))), file, kTorchFile);
    Fail("{}: is not {}: it does not begin as a zip archive", file, kTorchFile);
  }
  const std::vector<ZipEntry> entries = ReadZip(bytes, file);
  std::unordered_map<std::string_view, const ZipEntry*> by_name;
  const ZipEntry* pickle = nullptr;
  for (const ZipEntry& entry : entries) {
    by_name[entry.name] = &entry;
    if (!entry.name.ends_with(kPickleName)) continue;
    if (pickle != nullptr)
      Fail("{}: has two dictionaries, {} and {}", file, Printable(pickle->name), Printable(entry.name));
    pickle = &entry;
  }
  if (pickle == nullptr)
    Fail("{}: is a zip archive without a data.pkl; this is not a PyTorch checkpoint", file);
  CheckCrc(*pickle, file);
  const std::string prefix = pickle->name.substr(0, pickle->name.size() - kPickleName.size() + 1);
  if (const auto order = by_name.find(prefix + "byteorder");
      order != by_name.end() && AsText(order->second->data) != "little") {
    Fail("{}: byte order is '{}', expected 'little'", file, Printable(AsText(order->second->data), 20));
  }

  TorchFile result;
  for (const ZipEntry& entry : entries) {
    if (entry.name.starts_with(prefix + "data/")) result.storages.push_back(entry);
  }
  for (const PickledTensor& tensor : ReadStateDict(pickle->data, file + ": data.pkl")) {
    const auto storage = by_name.find(prefix + "data/" + tensor.storage);
    if (storage == by_name.end()) {
      Fail("{}: tensor {} is in storage {}data/{}, which the file lacks", file, Printable(tensor.name),
           Printable(prefix), Printable(tensor.storage));
    }
    result.tensors.push_back(View(tensor, *storage->second, file));
  }
  return result;
}

TorchFile OpenTorchFile(const std::filesystem::path& path) {
  std::shared_ptr<MappedFile> map = MappedFile::Open(path);
  TorchFile result = ParseTorchFile(map->bytes(), path.string());
  result.map = std::move(map);
  return result;
}

TorchWriter::TorchWriter(const std::filesystem::path& path, std::vector<TensorSpec> specs)
    : archive_(path), prefix_(path.stem().string() + "/"), specs_(std::move(specs)) {
  std::vector<PickledTensor> tensors;
  for (const TensorSpec& spec : specs_) {
    if (spec.dtype == DType::kU32 || spec.dtype == DType::kU16) {
      Fail("{}: tensor {} has dtype {}, which PyTorch files cannot hold", path.string(), Printable(spec.name),
           DTypeName(spec.dtype));
    }
    PickledTensor& tensor = tensors.emplace_back();
    tensor.name = spec.name;
    tensor.dtype = spec.dtype;
    tensor.storage = std::to_string(tensors.size() - 1);
    tensor.storage_elements = SpecBytes(spec) / DTypeBytes(spec.dtype);
    tensor.shape = spec.shape;
    tensor.strides.resize(spec.shape.size());
    uint64_t stride = 1;
    for (size_t i = spec.shape.size(); i-- > 0;) {
      tensor.strides[i] = stride;
      stride *= spec.shape[i];
    }
  }
  archive_.Add(prefix_ + "data.pkl", WriteStateDict(tensors));
  archive_.Add(prefix_ + "byteorder", "little");
  BeginNext();
}

// Begins the next tensor and every empty one on the way.
void TorchWriter::BeginNext() {
  while (begun_ < specs_.size() && archive_.remaining() == 0) {
    archive_.Begin(prefix_ + "data/" + std::to_string(begun_), SpecBytes(specs_[begun_]));
    ++begun_;
  }
}

void TorchWriter::Write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t count = std::min<uint64_t>(bytes.size(), archive_.remaining());
    MICA_CHECK(count > 0);
    archive_.Write(bytes.first(count));
    bytes = bytes.subspan(count);
    BeginNext();
  }
}

void TorchWriter::Commit() {
  MICA_CHECK(begun_ == specs_.size());
  MICA_CHECK(archive_.remaining() == 0);
  archive_.Add(prefix_ + "version", "3\n");
  archive_.Commit();
}

}  // namespace mica
