#include "io/container/checkpoint.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "base/sha256.h"
#include "base/text.h"
#include "base/threads.h"

namespace mica {
namespace {

constexpr size_t kHashedBytes = size_t{16}
                                << 20;  // hashed, then released: bounds the resident set of a thread

}  // namespace

void Checkpoint::SortTensors() {
  std::sort(tensors_.begin(), tensors_.end(),
            [](const TensorView& a, const TensorView& b) { return a.name < b.name; });
  by_name_.clear();
  for (size_t i = 0; i < tensors_.size(); ++i) by_name_[tensors_[i].name] = i;
}

void Checkpoint::Adopt(std::vector<TensorView> tensors) {
  tensors_ = std::move(tensors);
  SortTensors();
  MICA_CHECK(by_name_.size() == tensors_.size());
}

std::span<const std::byte> Checkpoint::Keep(std::vector<std::byte> bytes) {
  kept_.push_back(std::make_shared<const std::vector<std::byte>>(std::move(bytes)));
  return *kept_.back();
}

const TensorView* Checkpoint::Find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

const TensorView& Checkpoint::Get(const std::string& name) const {
  const TensorView* tensor = Find(name);
  if (tensor == nullptr) {
    Fail("{}: tensor {} is missing; the checkpoint does not match its config.json", directory_.string(),
         Printable(name));
  }
  return *tensor;
}

void Checkpoint::Verify(const TensorView& tensor) const {
  auto found = storages_.upper_bound(tensor.data.data());
  if (tensor.data.empty() || found == storages_.begin()) return;
  Storage& storage = *std::prev(found)->second;
  std::call_once(storage.verified, [&] { CheckCrc(storage.entry, storage.file); });
}

const MappedFile* Checkpoint::MapOf(std::span<const std::byte> part) const {
  const auto holds = [&](const std::shared_ptr<MappedFile>& map) {
    const std::byte* begin = map->bytes().data();
    return part.data() >= begin && part.data() < begin + map->size();
  };
  const auto map = std::ranges::find_if(maps_, holds);
  return map == maps_.end() ? nullptr : map->get();
}

void Checkpoint::Read(std::span<const std::byte> part, std::byte* out) const {
  if (const MappedFile* map = MapOf(part)) return map->Read(part, out);
  std::copy(part.begin(), part.end(), out);
}

void Checkpoint::Release(const TensorView& tensor) const {
  for (const std::span<const std::byte> part : tensor.stored()) {
    const MappedFile* map = MapOf(part);
    if (map == nullptr) continue;
    map->Release(part);
    map->CheckUnchanged();
  }
}

std::vector<std::string> Checkpoint::Hashes(
    const std::vector<const TensorView*>& tensors,
    const std::function<bool(const TensorView&)>& must_be_finite) const {
  std::vector<std::string> hashes(tensors.size());
  ParallelFor(tensors.size(), [&](size_t i) {
    const TensorView& tensor = *tensors[i];
    const bool finite = must_be_finite && must_be_finite(tensor);
    if (tensor.integers != nullptr) {
      Sha256 of_all;
      for (const std::span<const std::byte> stored : tensor.stored()) of_all.Update(stored);
      if (finite) CheckFinite(tensor, 0, tensor.elements());
      Release(tensor);
      hashes[i] = of_all.Hex();
      return;
    }
    TensorView part = tensor;
    const size_t unit = tensor.blocks != nullptr ? tensor.blocks->block_bytes : DTypeBytes(part.dtype);
    const size_t values = tensor.blocks != nullptr ? tensor.blocks->block_cols : 1;  // of a unit
    uint64_t first = 0;
    Verify(tensor);
    Sha256 hash;
    for (std::span<const std::byte> left = part.data; !left.empty(); left = left.subspan(part.data.size())) {
      part.data = left.first(std::min(left.size(), kHashedBytes / unit * unit));
      hash.Update(part.data);
      // Rows in another order are as many; all are looked at in the end.
      const uint64_t count = part.data.size() / unit * values;
      if (finite) CheckFinite(tensor, first, count);
      first += count;
      Release(part);
    }
    hashes[i] = hash.Hex();
  });
  return hashes;
}

}  // namespace mica
