// Any bytes either parse as a pickled dictionary of tensors, which then survives being written and read
// again, or throw Error. Apart from torch_file_fuzz because there a checksum keeps most changes of the pickle
// from its interpreter.
#include "base/error.h"
#include "io/container/pickle.h"
#include "seeds.h"

using namespace mica;

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  // The opcodes of PyTorch's own pickles: memo, OrderedDict, parameter, attributes of the dictionary with one
  // value of each kind.
  using namespace std::string_literals;
  const std::string pytorch =
      "\x80\x02"
      "ccollections\nOrderedDict\nq\x00)Rq\x01(\x8c\x01w"
      "ctorch._utils\n_rebuild_parameter\nctorch._utils\n_rebuild_tensor_v2\nq\x02("
      "(\x8c\x07storagectorch\nHalfStorage\n\x8c\x01"
      "0\x8c\x03"
      "cpuK\x06tQK\x00K\x02K\x03\x86K\x03K\x01\x86\x89h\x00)RtR\x88h\x00)R\x87Ru"
      "}(\x8c\x09_metadatah\x00)R\x8c\x01"
      "aN\x8c\x01"
      "b\x8a\x02\xff\x01\x8c\x01"
      "cG01234567\x8c\x01"
      "d]Na\x8c\x01"
      "e](NeM\x01\x01)ub."s;
  const std::string own = WriteStateDict(
      {{"a", DType::kF16, "0", 6, 0, {2, 3}, {3, 1}}, {"b", DType::kI64, "1", uint64_t{1} << 40, 3, {}, {}}});
  for (const std::string& seed : {pytorch, own})
    ReadStateDict(std::as_bytes(std::span(seed.data(), seed.size())), "seed");
  WriteSeeds(*argc, *argv, {pytorch, own});
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
