#include "device/nccl_group.h"

#include <vector>

#include "base/error.h"
#include "device/array.h"
#include "device/cuda.h"
#include "device/nccl.h"

namespace mica {

NcclGroup::NcclGroup(Device device, const std::string& name, size_t rank, size_t size)
    : Group(rank, size), device_(device), communicator_(NcclJoin(device, name, rank, size)) {}

void NcclGroup::End(bool well) const {
  if (started_by_ != nullptr) started_by_->End(well);
}

void NcclGroup::ExchangeBytes(Device device, std::span<const ConstBytes> to,
                              std::span<const Bytes> from) const {
  if (device == device_) return NcclExchange(device_, communicator_, to, from);
  MICA_CHECK(!device.is_cuda());
  std::vector<Array> arrays;
  std::vector<ConstBytes> sent(size());
  std::vector<Bytes> received(size());
  const auto there = [&](size_t bytes) {
    return reinterpret_cast<std::byte*>(arrays.emplace_back(1, bytes, DType::kU8, device_).view().data);
  };
  for (size_t r = 0; r < size(); ++r) {
    if (!to[r].empty()) {
      std::byte* const copy = there(to[r].size());
      CopyBytes(device_, copy, to[r].size(), Device::Cpu(), to[r].data(), to[r].size(), to[r].size(), 1);
      sent[r] = {copy, to[r].size()};
    }
    if (!from[r].empty()) received[r] = {there(from[r].size()), from[r].size()};
  }
  NcclExchange(device_, communicator_, sent, received);
  for (size_t r = 0; r < size(); ++r)
    CopyBytes(Device::Cpu(), from[r].data(), from[r].size(), device_, received[r].data(), from[r].size(),
              from[r].size(), 1);
}

void NcclGroup::BroadcastBytes(Device device, size_t root, Bytes bytes) const {
  if (device == device_) return NcclBroadcast(device_, communicator_, root, bytes);
  MICA_CHECK(!device.is_cuda());
  Array copy(1, bytes.size(), DType::kU8, device_);
  std::byte* const there = copy.view().data;
  const size_t count = bytes.size();
  if (rank() == root) CopyBytes(device_, there, count, Device::Cpu(), bytes.data(), count, count, 1);
  NcclBroadcast(device_, communicator_, root, {there, count});
  if (rank() != root) CopyBytes(Device::Cpu(), bytes.data(), count, device_, there, count, count, 1);
}

}  // namespace mica
