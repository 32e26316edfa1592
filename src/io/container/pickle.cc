#include "io/container/pickle.h"

#include <cstring>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "base/text.h"
#include "io/container/pickle_format.h"

namespace mica {
namespace {

constexpr size_t kMaxPickleBytes = size_t{64} << 20;
constexpr size_t kMaxValues =
    size_t{1} << 22;  // objects, stack and container slots: a model of 100,000 tensors needs 2.5 million
constexpr size_t kMaxRank = 16;

// Names of opcodes that are refused, for the message.
struct Refused {
  uint8_t opcode;
  const char* name;
};
constexpr Refused kRefused[] = {
    {'0', "POP"},
    {'1', "POP_MARK"},
    {'2', "DUP"},
    {'F', "FLOAT"},
    {'I', "INT"},
    {'L', "LONG"},
    {'P', "PERSID"},
    {'S', "STRING"},
    {'T', "BINSTRING"},
    {'U', "SHORT_BINSTRING"},
    {'V', "UNICODE"},
    {'d', "DICT"},
    {'g', "GET"},
    {'i', "INST"},
    {'l', "LIST"},
    {'o', "OBJ"},
    {'p', "PUT"},
    {0x81, "NEWOBJ"},
    {0x82, "EXT1"},
    {0x83, "EXT2"},
    {0x84, "EXT4"},
    {0x8b, "LONG4"},
    {0x8d, "BINUNICODE8"},
    {0x8e, "BINBYTES8"},
    {'B', "BINBYTES"},
    {'C', "SHORT_BINBYTES"},
    {0x8f, "EMPTY_SET"},
    {0x90, "ADDITEMS"},
    {0x91, "FROZENSET"},
    {0x92, "NEWOBJ_EX"},
    {0x96, "BYTEARRAY8"},
    {0x97, "NEXT_BUFFER"},
    {0x98, "READONLY_BUFFER"},
};

enum class Kind {
  kNone,
  kBool,
  kInt,
  kFloat,
  kText,
  kTuple,
  kList,
  kDict,
  kOrderedDict,
  kRebuildTensor,
  kRebuildParameter,
  kStorageClass,
  kStorage,
  kTensor
};

const char* KindName(Kind kind) {
  switch (kind) {
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return "a boolean";
    case Kind::kInt:
      return "an integer";
    case Kind::kFloat:
      return "a float";
    case Kind::kText:
      return "a string";
    case Kind::kTuple:
      return "a tuple";
    case Kind::kList:
      return "a list";
    case Kind::kDict:
      return "a dictionary";
    case Kind::kOrderedDict:
      return "the class collections.OrderedDict";
    case Kind::kRebuildTensor:
      return "the function torch._utils._rebuild_tensor_v2";
    case Kind::kRebuildParameter:
      return "the function torch._utils._rebuild_parameter";
    case Kind::kStorageClass:
      return "a storage class";
    case Kind::kStorage:
      return "a storage";
    case Kind::kTensor:
      return "a tensor";
  }
  return "unknown";
}

// One object. Objects refer to each other by index into one arena, so shared and cyclic objects cost nothing
// and nothing recurses.
using Ref = uint32_t;
struct Object {
  Kind kind = Kind::kNone;
  DType dtype = DType::kF32;    // storage class, storage
  int64_t integer = 0;          // bool, int; elements of a storage
  std::string text = {};        // text; key of a storage
  std::vector<Ref> items = {};  // tuple, list; dict: key, value, key, value, ...
  size_t tensor = 0;            // index into tensors_
};

class Interpreter {
 public:
  Interpreter(std::span<const std::byte> pickle, const std::string& where) : pickle_(pickle), where_(where) {}

  std::vector<PickledTensor> Run() {
    for (;;) {
      at_ = next_;
      const uint8_t opcode = ReadNumber<uint8_t>();
      if (opcode == kStop) break;
      Step(opcode);
      if (objects_.size() + slots_ > kMaxValues) Fault("more than {} objects", kMaxValues);
    }
    if (next_ != pickle_.size()) Fault("{} bytes follow the end of the pickle", pickle_.size() - next_);
    const Object& root = objects_[Pop()];
    if (!stack_.empty() || !marks_.empty()) Fault("{} objects are left over at the end", stack_.size());
    if (root.kind != Kind::kDict)
      Fault("the file holds {}, expected a dictionary of tensors", KindName(root.kind));
    return StateDict(root);
  }

 private:
  template <typename... Args>
  [[noreturn]] void Fault(fmt::format_string<Args...> format, Args&&... args) const {
    Fail("{}: byte {}: {}; only a plain dictionary of tensors is read", where_, at_,
         fmt::format(format, std::forward<Args>(args)...));
  }

  std::span<const std::byte> Take(size_t count) {
    if (count > pickle_.size() - next_) Fault("the pickle is cut short");
    next_ += count;
    return pickle_.subspan(next_ - count, count);
  }
  template <typename T>
  T ReadNumber() {
    T value;
    std::memcpy(&value, Take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string ReadText(size_t count) {
    const std::span<const std::byte> bytes = Take(count);
    std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (FirstInvalidUtf8(text) != std::string_view::npos) Fault("a string is not UTF-8");
    return text;
  }
  std::string ReadLine() {
    std::string line;
    for (char c; (c = ReadNumber<char>()) != '\n';) line += c;
    return line;
  }

  void Push(Ref ref) {
    stack_.push_back(ref);
    ++slots_;
  }
  Ref Make(Object object) {
    objects_.push_back(std::move(object));
    return static_cast<Ref>(objects_.size() - 1);
  }
  void PushNew(Object object) { Push(Make(std::move(object))); }
  Ref Pop() {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) Fault("the stack is empty");
    const Ref top = stack_.back();
    stack_.pop_back();
    return top;
  }
  Ref Top() {
    const Ref top = Pop();
    stack_.push_back(top);
    return top;
  }
  std::vector<Ref> PopMark() {
    if (marks_.empty()) Fault("there is no mark on the stack");
    const size_t mark = marks_.back();
    marks_.pop_back();
    std::vector<Ref> items(stack_.begin() + static_cast<ptrdiff_t>(mark), stack_.end());
    stack_.resize(mark);
    return items;
  }
  const Object& Expect(Ref ref, Kind kind, const char* what) const {
    if (objects_[ref].kind != kind)
      Fault("{} is {}, expected {}", what, KindName(objects_[ref].kind), KindName(kind));
    return objects_[ref];
  }

  void Step(uint8_t opcode);
  void PushGlobal(const std::string& module, const std::string& name);
  void PushTuple(size_t count);
  void Remember(uint64_t index);
  void Recall(uint64_t index);
  void AddItems(Ref target, Kind kind, const std::vector<Ref>& items);
  void Reduce();
  void LoadPersistent();
  void RebuildTensor(const std::vector<Ref>& arguments);
  std::vector<uint64_t> Extents(Ref ref, const char* what) const;
  std::vector<PickledTensor> StateDict(const Object& root) const;

  std::span<const std::byte> pickle_;
  const std::string& where_;
  size_t at_ = 0;    // of the opcode being interpreted
  size_t next_ = 0;  // next byte to read
  std::vector<Object> objects_;
  std::vector<PickledTensor> tensors_;
  std::vector<Ref> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint64_t, Ref> memo_;
  size_t slots_ = 0;  // pushed so far
};

void Interpreter::Step(uint8_t opcode) {
  switch (opcode) {
    case kProto: {
      const uint8_t protocol = ReadNumber<uint8_t>();
      if (protocol < 2 || protocol > 5) Fault("pickle protocol {} is not known", protocol);
      return;
    }
    case kFrame:
      if (ReadNumber<uint64_t>() > pickle_.size() - next_) Fault("a frame is longer than the pickle");
      return;
    case kMark:
      marks_.push_back(stack_.size());
      ++slots_;
      return;
    case kNone:
      return PushNew({.kind = Kind::kNone});
    case kNewTrue:
      return PushNew({.kind = Kind::kBool, .integer = 1});
    case kNewFalse:
      return PushNew({.kind = Kind::kBool});
    case kBinInt:
      return PushNew({.kind = Kind::kInt, .integer = ReadNumber<int32_t>()});
    case kBinInt1:
      return PushNew({.kind = Kind::kInt, .integer = ReadNumber<uint8_t>()});
    case kBinInt2:
      return PushNew({.kind = Kind::kInt, .integer = ReadNumber<uint16_t>()});
    case kLong1: {
      const size_t count = ReadNumber<uint8_t>();
      if (count > sizeof(int64_t)) Fault("an integer of {} bytes is too large", count);
      const std::span<const std::byte> bytes = Take(count);
      uint64_t value = 0;
      std::memcpy(&value, bytes.data(), count);
      const size_t unused = 64 - 8 * count;  // sign extension
      return PushNew(
          {.kind = Kind::kInt, .integer = count == 0 ? 0 : static_cast<int64_t>(value << unused) >> unused});
    }
    case kBinFloat:
      Take(8);
      return PushNew({.kind = Kind::kFloat});
    case kBinUnicode: {
      const uint32_t count = ReadNumber<uint32_t>();
      return PushNew({.kind = Kind::kText, .text = ReadText(count)});
    }
    case kShortBinUnicode: {
      const uint8_t count = ReadNumber<uint8_t>();
      return PushNew({.kind = Kind::kText, .text = ReadText(count)});
    }
    case kEmptyTuple:
      return PushNew({.kind = Kind::kTuple});
    case kEmptyList:
      return PushNew({.kind = Kind::kList});
    case kEmptyDict:
      return PushNew({.kind = Kind::kDict});
    case kTuple: {
      std::vector<Ref> items = PopMark();
      return PushNew({.kind = Kind::kTuple, .items = std::move(items)});
    }
    case kTuple1:
      return PushTuple(1);
    case kTuple2:
      return PushTuple(2);
    case kTuple3:
      return PushTuple(3);
    case kAppend: {
      const Ref item = Pop();
      return AddItems(Top(), Kind::kList, {item});
    }
    case kAppends: {
      const std::vector<Ref> items = PopMark();
      return AddItems(Top(), Kind::kList, items);
    }
    case kSetItem: {
      const Ref value = Pop();
      const Ref key = Pop();
      return AddItems(Top(), Kind::kDict, {key, value});
    }
    case kSetItems: {
      const std::vector<Ref> items = PopMark();
      if (items.size() % 2 != 0) Fault("a dictionary has a key without a value");
      return AddItems(Top(), Kind::kDict, items);
    }
    case kBinPut:
      return Remember(ReadNumber<uint8_t>());
    case kLongBinPut:
      return Remember(ReadNumber<uint32_t>());
    case kMemoize:
      return Remember(memo_.size());
    case kBinGet:
      return Recall(ReadNumber<uint8_t>());
    case kLongBinGet:
      return Recall(ReadNumber<uint32_t>());
    case kGlobal: {
      const std::string module = ReadLine();
      return PushGlobal(module, ReadLine());
    }
    case kStackGlobal: {
      const std::string name = Expect(Pop(), Kind::kText, "the name of a class").text;
      return PushGlobal(Expect(Pop(), Kind::kText, "the module of a class").text, name);
    }
    case kReduce:
      return Reduce();
    case kBinPersId:
      return LoadPersistent();
    case kBuild:  // attributes of the dictionary itself, such as the version of each module: not needed
      Expect(Pop(), Kind::kDict, "the state of an object");
      Expect(Top(), Kind::kDict, "an object with a state");
      return;
    default:
      for (const Refused& refused : kRefused) {
        if (refused.opcode == opcode) Fault("opcode {} is not allowed", refused.name);
      }
      Fault("opcode 0x{:02x} is unknown", opcode);
  }
}

void Interpreter::PushGlobal(const std::string& module, const std::string& name) {
  const std::string path = module + "." + name;
  if (path == kOrderedDictClass) return PushNew({.kind = Kind::kOrderedDict});
  if (path == kRebuildTensorClass) return PushNew({.kind = Kind::kRebuildTensor});
  if (path == kRebuildParameterClass) return PushNew({.kind = Kind::kRebuildParameter});
  for (const StorageClass& storage : kStorages) {
    if (path == storage.name) return PushNew({.kind = Kind::kStorageClass, .dtype = storage.dtype});
  }
  Fault("{} is not allowed", Printable(path));
}

void Interpreter::PushTuple(size_t count) {
  std::vector<Ref> items(count);
  while (count > 0) items[--count] = Pop();
  PushNew({.kind = Kind::kTuple, .items = std::move(items)});
}

void Interpreter::Remember(uint64_t index) { memo_[index] = Top(); }

void Interpreter::Recall(uint64_t index) {
  const auto found = memo_.find(index);
  if (found == memo_.end()) Fault("memo {} is empty", index);
  Push(found->second);
}

void Interpreter::AddItems(Ref target, Kind kind, const std::vector<Ref>& items) {
  Expect(target, kind, kind == Kind::kList ? "the target of an append" : "the target of an assignment");
  std::vector<Ref>& known = objects_[target].items;
  known.insert(known.end(), items.begin(), items.end());
}

void Interpreter::Reduce() {
  const Object& arguments = Expect(Pop(), Kind::kTuple, "the arguments of a call");
  const std::vector<Ref> items = arguments.items;
  const Ref callable = Pop();
  switch (objects_[callable].kind) {
    case Kind::kOrderedDict:
      if (!items.empty()) Fault("an OrderedDict is made from {} arguments, expected none", items.size());
      return PushNew({.kind = Kind::kDict});
    case Kind::kRebuildParameter:  // the tensor, whether it requires a gradient, hooks
      if (items.size() != 3) Fault("_rebuild_parameter has {} arguments, expected 3", items.size());
      Expect(items[0], Kind::kTensor, "the content of a parameter");
      return Push(items[0]);
    case Kind::kRebuildTensor:
      return RebuildTensor(items);
    default:
      Fault("a call of {} is not allowed", KindName(objects_[callable].kind));
  }
}

// ('storage', class, key, location, elements)
void Interpreter::LoadPersistent() {
  const std::vector<Ref> items = Expect(Pop(), Kind::kTuple, "a persistent id").items;
  if (items.size() != 5 || Expect(items[0], Kind::kText, "the kind of a persistent id").text != "storage") {
    Fault("a persistent id is not that of a storage");
  }
  Object storage{.kind = Kind::kStorage};
  storage.dtype = Expect(items[1], Kind::kStorageClass, "the class of a storage").dtype;
  storage.text = Expect(items[2], Kind::kText, "the key of a storage").text;
  Expect(items[3], Kind::kText, "the location of a storage");
  storage.integer = Expect(items[4], Kind::kInt, "the length of a storage").integer;
  if (storage.integer < 0) Fault("storage {} has {} elements", Printable(storage.text), storage.integer);
  PushNew(std::move(storage));
}

// (storage, offset, shape, strides, requires_grad, hooks[, metadata])
void Interpreter::RebuildTensor(const std::vector<Ref>& arguments) {
  if (arguments.size() != 6 && arguments.size() != 7) {
    Fault("_rebuild_tensor_v2 has {} arguments, expected 6 or 7", arguments.size());
  }
  const Object& storage = Expect(arguments[0], Kind::kStorage, "the storage of a tensor");
  if (arguments.size() == 7) {  // bits that would change the values, such as a pending negation
    const Object& metadata = objects_[arguments[6]];
    const bool empty =
        metadata.kind == Kind::kNone || (metadata.kind == Kind::kDict && metadata.items.empty());
    if (!empty) Fault("a tensor has metadata, expected none");
  }
  PickledTensor tensor;
  tensor.dtype = storage.dtype;
  tensor.storage = storage.text;
  tensor.storage_elements = static_cast<uint64_t>(storage.integer);
  const int64_t offset = Expect(arguments[1], Kind::kInt, "the offset of a tensor").integer;
  if (offset < 0) Fault("the offset of a tensor is {}", offset);
  tensor.offset = static_cast<uint64_t>(offset);
  tensor.shape = Extents(arguments[2], "the shape of a tensor");
  tensor.strides = Extents(arguments[3], "the strides of a tensor");
  if (tensor.shape.size() != tensor.strides.size()) {
    Fault("a tensor has {} extents and {} strides", tensor.shape.size(), tensor.strides.size());
  }
  tensors_.push_back(std::move(tensor));
  PushNew({.kind = Kind::kTensor, .tensor = tensors_.size() - 1});
}

std::vector<uint64_t> Interpreter::Extents(Ref ref, const char* what) const {
  const Object& tuple = Expect(ref, Kind::kTuple, what);
  if (tuple.items.size() > kMaxRank)
    Fault("{} has {} numbers, expected at most {}", what, tuple.items.size(), kMaxRank);
  std::vector<uint64_t> extents;
  for (const Ref item : tuple.items) {
    const int64_t extent = Expect(item, Kind::kInt, what).integer;
    if (extent < 0) Fault("{} contains {}", what, extent);
    extents.push_back(static_cast<uint64_t>(extent));
  }
  return extents;
}

std::vector<PickledTensor> Interpreter::StateDict(const Object& root) const {
  std::vector<PickledTensor> named;
  std::unordered_set<std::string> names;
  for (size_t i = 0; i < root.items.size(); i += 2) {
    const std::string& name = Expect(root.items[i], Kind::kText, "a key of the dictionary").text;
    const Object& value = objects_[root.items[i + 1]];
    if (value.kind != Kind::kTensor)
      Fault("entry {} is {}, expected a tensor", Printable(name), KindName(value.kind));
    if (!names.insert(name).second) Fault("tensor {} is there twice", Printable(name));
    named.push_back(tensors_[value.tensor]);
    named.back().name = name;
  }
  return named;
}

}  // namespace

std::vector<PickledTensor> ReadStateDict(std::span<const std::byte> pickle, const std::string& where) {
  if (pickle.size() > kMaxPickleBytes) {
    Fail("{}: is {} bytes long, expected at most {}; this is not a dictionary of tensors", where,
         pickle.size(), kMaxPickleBytes);
  }
  return Interpreter(pickle, where).Run();
}

}  // namespace mica
