#include "ops/packed_product/device_forms.h"

#include <utility>

#include "base/error.h"
#include "ops/cuda_ops.h"

namespace mica {

std::unique_ptr<const ResidentForm> LevelsOnCuda(const EntropyParts& parts, Device device) {
  MICA_CHECK(device.is_cuda());
  return Cuda().LevelsOnCuda(parts, device);
}

std::unique_ptr<const ResidentForm> FixedOnCuda(const FixedParts& parts, Device device) {
  MICA_CHECK(device.is_cuda());
  return Cuda().FixedOnCuda(parts, device);
}

std::unique_ptr<const ResidentForm> ValuesOnCuda(Array values) {
  MICA_CHECK(values.device().is_cuda());
  return Cuda().ValuesOnCuda(std::move(values));
}

void MultiplyOnCuda(const ProductInputs& x, std::span<const FormProduct> products) {
  MICA_CHECK(x.device().is_cuda());
  Cuda().MultiplyOnCuda(x, products);
}

}  // namespace mica
