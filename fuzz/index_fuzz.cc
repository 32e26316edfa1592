// Any bytes either are the index of a sharded checkpoint, all of whose tensors are then there, or throw
// Error.
#include "base/error.h"
#include "base/file.h"
#include "io/container/checkpoint.h"
#include "io/container/safetensors.h"
#include "seeds.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

constexpr const char* kIndex = "model.safetensors.index.json";

const std::filesystem::path& Directory() {
  static const TemporaryDirectory place(MemoryPlace());
  if (!std::filesystem::exists(place.path() / "b.safetensors")) {
    for (const char* name : {"a", "b"}) {
      SafetensorsWriter writer(place.path() / (std::string(name) + ".safetensors"),
                               {{name, DType::kF16, {1}}});
      writer.Write(std::as_bytes(std::span("xy", 2)));
      writer.Commit();
    }
  }
  return place.path();
}

}  // namespace
}  // namespace mica

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  mica::WriteSeeds(*argc, *argv,
                   {R"({"metadata":{"total_size":4},"weight_map":{"a":"a.safetensors","b":"b.safetensors"}})",
                    R"({"weight_map":{"a":"../a.safetensors"}})", R"({"weight_map":{}})"});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    mica::WriteFileAtomically(mica::Directory() / mica::kIndex, {reinterpret_cast<const char*>(data), size});
    const mica::Checkpoint checkpoint = mica::Checkpoint::Open(mica::Directory());
    for (const mica::TensorView& tensor : checkpoint.tensors()) MICA_CHECK(tensor.data.size() == 2);
  } catch (const mica::Error&) {
  }
  return 0;
}
