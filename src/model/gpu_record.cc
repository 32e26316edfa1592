#include "model/gpu_record.h"

#include "device/cuda.h"

namespace mica {

std::optional<GpuRecord> GpuOf(Device device) {
  if (!device.is_cuda()) return std::nullopt;
  const CudaProperties properties = PropertiesOf(device);
  return GpuRecord{properties.name, properties.driver, properties.memory_bytes, MemoryOf(device).peak_bytes, {}};
}

}  // namespace mica
