// A group of GPUs, one a process.
#pragma once

#include <string>

#include "device/group.h"

namespace mica {

// Values of the devices go by NCCL directly, those of the processor by way of the devices.
class NcclGroup final : public Group {
 public:
  // name: as NcclNewGroup gave it to the first rank. Waits for all ranks.
  NcclGroup(Device device, const std::string& name, size_t rank, size_t size);

  void End(bool well) const override;
  // That began the processes, where another group did: it hears of the end.
  void StartedBy(const Group& group) { started_by_ = &group; }

 protected:
  void ExchangeBytes(Device device, std::span<const ConstBytes> to,
                     std::span<const Bytes> from) const override;
  void BroadcastBytes(Device device, size_t root, Bytes bytes) const override;

 private:
  const Device device_;
  void* const communicator_;
  const Group* started_by_ = nullptr;
};

}  // namespace mica
