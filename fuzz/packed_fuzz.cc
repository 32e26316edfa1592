// The reader of packed matrices against damaged ones whose checksums are right, as a faulty or hostile writer
// could leave them. The input is a list of edits to one of a few valid checkpoints; whatever they do, reading
// must end in weights or in an Error.
#include <cstring>
#include <filesystem>
#include <variant>

#include "base/threads.h"
#include "format/mask/mask_kind.h"
#include "io/packed/facts.h"
#include "io/packed/packed_checkpoint.h"
#include "io/packed/stored_matrix.h"
#include "ops/codes/codes.h"
#include "ops/codes/entropy_model.h"
#include "seeds.h"
#include "tests/format/entropy/testing.h"
#include "tests/format/fixed/testing.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

struct Base {
  std::vector<PackedTensor> tensors;
  Json facts;
};

Base BaseOf(PackedMatrix packed) {
  Json facts = FactsJson(packed.facts);
  return {NamedTensors("L", std::move(packed)), std::move(facts)};
}

Base BaseOf(const FixedMatrix& matrix) { return BaseOf(Pack(matrix)); }

Base BaseOf(EntropyMatrix matrix, size_t lanes) {
  FitEntropyModel(matrix);
  return BaseOf(Pack(matrix, lanes));
}

const std::vector<Base>& Bases() {
  static const std::vector<Base> bases = [] {
    std::vector<Base> made;
    made.push_back(BaseOf(
        WithExponents(RandomFixed(70, {{8, 9}, {4, 40}, {3, 20}, {16, 5}, {0, 4}}, 16, MaskKind::kNone, 1))));
    made.push_back(BaseOf(RandomFixed(70, {{6, 9}, {4, 40}, {2, 20}, {0, 4}}, 16, MaskKind::kBitmap, 2)));
    made.push_back(BaseOf(RandomFixed(66, {{4, 40}, {2, 21}}, 128, MaskKind::Cells(2, 4), 3)));
    made.push_back(BaseOf(RandomFixed(66, {{4, 40}, {2, 21}}, 128, MaskKind::Cells(4, 8), 4)));
    made.push_back(BaseOf(RandomEntropy(140, 30, 1, 1.0, 5), 1));
    made.push_back(BaseOf(RandomEntropy(140, 30, 8, 0.0, 6), 8));
    made.push_back(BaseOf(RandomEntropy(20, 30, 4, 7.0, 7), 4));
    made.push_back(BaseOf(RandomEntropy(140, 70, 8, 0.5, 8), 16));
    made.push_back(BaseOf(RandomEntropy(30, 70, 8, 13.0, 9), 32));  // raw bits and escapes
    return made;
  }();
  return bases;
}

// Takes numbers from the input until it is used up.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool empty() const { return at_ >= size_; }
  uint32_t Byte() { return at_ < size_ ? data_[at_++] : 0; }
  uint32_t Word() { return Byte() | Byte() << 8; }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

void Edit(Base& base, Input& input) {
  static const char* const kKeys[] = {"coding", "rows",       "cols",           "group_size", "mask",
                                      "states", "first_knot", "row_resolution", "lanes",      "tile_rows"};
  static const char* const kTexts[] = {"fixed", "entropy", "none", "bitmap", "2:4", "4:8"};
  PackedTensor& tensor = base.tensors[input.Byte() % base.tensors.size()];
  std::vector<std::byte>& bytes = tensor.bytes;
  switch (input.Byte() % 6) {
    case 0:  // another byte
      if (!bytes.empty()) bytes[input.Word() % bytes.size()] = static_cast<std::byte>(input.Byte());
      break;
    case 1:  // another word
      for (size_t i = 0, at = input.Word(); i < 4 && !bytes.empty(); ++i)
        bytes[(at + i) % bytes.size()] = static_cast<std::byte>(input.Byte());
      break;
    case 2: {  // another length
      const size_t unit = DTypeBytes(tensor.spec.dtype);
      bytes.resize(input.Word() % 4096 / unit * unit);
      tensor.spec.shape = {bytes.size() / unit};
      break;
    }
    case 3:  // another shape of the same bytes
      if (tensor.spec.shape.size() == 2) std::swap(tensor.spec.shape[0], tensor.spec.shape[1]);
      break;
    case 4:
      base.facts[kKeys[input.Byte() % std::size(kKeys)]] = input.Word();
      break;
    case 5:
      base.facts[kKeys[input.Byte() % std::size(kKeys)]] = kTexts[input.Byte() % std::size(kTexts)];
      break;
  }
}

void Run(Input input) {
  Base base = Bases()[input.Byte() % Bases().size()];
  while (!input.empty()) Edit(base, input);
  std::map<std::string, uint32_t> crc32;
  std::vector<TensorSpec> specs;
  for (const PackedTensor& tensor : base.tensors) {
    crc32[tensor.spec.name.substr(2)] = Crc32(tensor.bytes);
    specs.push_back(tensor.spec);
  }
  const TemporaryDirectory place(MemoryPlace());
  SafetensorsWriter writer(place.path() / "model.safetensors", specs,
                           {{MatrixKey("L"), FactsText(base.facts, crc32)}});
  for (const PackedTensor& tensor : base.tensors) writer.Write(tensor.bytes);
  writer.Commit();
  const Checkpoint checkpoint = Checkpoint::Open(place.path());
  const StoredMatrix stored = OpenPacked(checkpoint, "L");
  if (stored.rows() * stored.cols() > size_t{1} << 20) return;
  Matrix<float> weights(stored.rows(), stored.cols());
  Decode(stored.parts, 0, weights);
  Decode(stored.parts, stored.rows() / 2, weights.view().Rows(0, 1));
  if (const FixedParts* fixed = std::get_if<FixedParts>(&stored.parts)) Unpack(*fixed);
  uint64_t bytes = 0;
  for (const TensorView* tensor : stored.tensors) bytes += tensor->data.size();
  MICA_CHECK(stored.bits().total() == 8 * bytes);
}

}  // namespace
}  // namespace mica

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  std::vector<std::string> seeds;  // each checkpoint unharmed
  for (size_t i = 0; i < mica::Bases().size(); ++i) seeds.emplace_back(1, static_cast<char>(i));
  // Facts that say other lanes and rows of a tile than the streams have, and streams with a byte changed.
  seeds.emplace_back("\x07\x00\x04\x08\x20\x00", 6);
  seeds.emplace_back("\x07\x00\x04\x09\x40\x00", 6);
  seeds.emplace_back("\x08\x00\x00\xd0\x00\x55", 6);
  seeds.emplace_back("\x07\x00\x00\x3f\x00\x80", 6);
  mica::WriteSeeds(*argc, *argv, seeds);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  mica::SetThreads(1);
  try {
    mica::Run(mica::Input(data, size));
  } catch (const mica::Error&) {
  }
  return 0;
}
