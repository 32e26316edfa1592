#include <concepts>
#include <limits>
#include <utility>

#include "io/container/pickle.h"
#include "io/container/pickle_format.h"

namespace mica {
namespace {

// Appends opcodes and little-endian operands.
class PickleWriter {
 public:
  PickleWriter& Op(uint8_t opcode) {
    text_ += static_cast<char>(opcode);
    return *this;
  }
  template <std::integral T>
  PickleWriter& Number(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  PickleWriter& Integer(uint64_t value) {
    if (value <= std::numeric_limits<int32_t>::max()) return Op(kBinInt).Number(static_cast<int32_t>(value));
    return Op(kLong1).Number(uint8_t{8}).Number(value);
  }
  PickleWriter& Text(std::string_view text) {
    Op(kBinUnicode).Number(static_cast<uint32_t>(text.size()));
    text_ += text;
    return *this;
  }
  PickleWriter& Class(std::string_view path) {
    const size_t dot = path.rfind('.');
    Op(kGlobal);
    text_.append(path.substr(0, dot)).append("\n").append(path.substr(dot + 1)).append("\n");
    return *this;
  }
  PickleWriter& Tuple(const std::vector<uint64_t>& values) {
    Op(kMark);
    for (const uint64_t value : values) Integer(value);
    return Op(kTuple);
  }
  std::string& text() { return text_; }

 private:
  std::string text_;
};

}  // namespace

std::string WriteStateDict(const std::vector<PickledTensor>& tensors) {
  PickleWriter out;
  out.Op(kProto).Number(uint8_t{2}).Op(kEmptyDict).Op(kMark);
  for (const PickledTensor& tensor : tensors) {
    out.Text(tensor.name).Class(kRebuildTensorClass).Op(kMark);
    out.Op(kMark).Text("storage");
    for (const StorageClass& storage : kStorages) {
      if (storage.dtype == tensor.dtype) out.Class(storage.name);
    }
    out.Text(tensor.storage).Text("cpu").Integer(tensor.storage_elements).Op(kTuple).Op(kBinPersId);
    out.Integer(tensor.offset).Tuple(tensor.shape).Tuple(tensor.strides).Op(kNewFalse);
    out.Class(kOrderedDictClass).Op(kEmptyTuple).Op(kReduce).Op(kTuple).Op(kReduce);
  }
  out.Op(kSetItems).Op(kStop);
  return std::move(out.text());
}

}  // namespace mica
