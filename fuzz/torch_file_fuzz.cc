// Any bytes either parse as a PyTorch checkpoint, whose tensors then lie inside them and can be read, or
// throw Error.
#include <algorithm>

#include "base/error.h"
#include "io/container/torch_file.h"
#include "seeds.h"

using namespace mica;

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  WriteSeeds(*argc, *argv, {MadeBy([](const std::string& path) {
    TorchWriter writer(path,
                       {{"a.weight", DType::kF16, {2, 3}}, {"b", DType::kI64, {}}, {"c", DType::kF32, {0}}});
    writer.Write(std::as_bytes(std::span("0123456789abcdefghi", 20)));
    writer.Commit();
  })});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  try {
    for (const TensorView& tensor : ParseTorchFile(bytes, "fuzz").tensors) {
      MICA_CHECK(tensor.data.size() == tensor.elements() * DTypeBytes(tensor.dtype));
      if (tensor.dtype != DType::kF32 && tensor.dtype != DType::kF16 && tensor.dtype != DType::kBF16)
        continue;
      std::vector<float> values(std::min<uint64_t>(tensor.elements(), 64));
      ReadFloats(tensor, tensor.elements() - values.size(), values);
    }
  } catch (const Error&) {
  }
  return 0;
}
