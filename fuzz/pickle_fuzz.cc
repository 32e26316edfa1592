// Any bytes either parse as a pickled dictionary of tensors, which then survives being written and read
// again, or throw Error. Apart from torch_file_fuzz because there a checksum keeps most changes of the pickle
// from its interpreter.
#include "base/error.h"
#include "io/pickle.h"
#include "seeds.h"

using namespace mica;

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  // An OrderedDict with memo, shared storage, parameter and attributes, as PyTorch writes it, and the plain
  // form of our own.
  const std::string tensor = "ctorch._utils\n_rebuild_tensor_v2\nq\x03((X\x07" + std::string(3, '\0') +
                             "storagectorch\nHalfStorage\nX\x01" + std::string(3, '\0') + "0X\x03" +
                             std::string(3, '\0') + "cputQK";
  const std::string pytorch =
      std::string("\x80\x02") + "ccollections\nOrderedDict\nq" + '\0' + ")Rq\x01(\x8c\x01w" +
      "ctorch._utils\n_rebuild_parameter\n" + tensor.substr(0, tensor.size() - 3) + "K\x06tQK" + '\0' +
      "K\x02K\x03\x86K\x03K\x01\x86\x89h" + '\0' + ")RtR\x88h" + '\0' + ")R\x87Ru}\x8c\x09_metadatah" + '\0' +
      ")RsbN\x94\x8a\x02\xff\x01G" + std::string(8, '\0') + "]e.";
  WriteSeeds(*argc, *argv,
             {pytorch, WriteStateDict({{"a", DType::kF16, "0", 6, 0, {2, 3}, {3, 1}},
                                       {"b", DType::kI64, "1", uint64_t{1} << 40, 3, {}, {}}})});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const std::vector<PickledTensor> tensors = ReadStateDict(std::as_bytes(std::span(data, size)), "fuzz");
    for (const PickledTensor& tensor : tensors) {
      MICA_CHECK(tensor.shape.size() == tensor.strides.size());
    }
    const std::string again = WriteStateDict(tensors);
    MICA_CHECK(ReadStateDict(std::as_bytes(std::span(again.data(), again.size())), "again").size() ==
               tensors.size());
  } catch (const Error&) {
  }
  return 0;
}
