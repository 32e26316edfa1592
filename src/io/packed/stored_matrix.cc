#include "io/packed/stored_matrix.h"

#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "base/threads.h"
#include "format/fixed/layout.h"
#include "io/packed/facts.h"

namespace mica {
namespace {

std::string NameOf(const TensorView& tensor) {
  return fmt::format("{}: tensor {}", tensor.file, Printable(tensor.name));
}

// Runs a check of format/, whose errors do not know the tensor.
template <typename Check>
auto In(const TensorView& tensor, Check&& check) {
  try {
    return check();
  } catch (const Error& error) {
    Fail("{}: {}", NameOf(tensor), error.what());
  }
}

// The bytes of a part that may not be stored because nothing is in it.
std::span<const std::byte> BytesOf(const TensorView* tensor) {
  return tensor == nullptr ? std::span<const std::byte>() : tensor->data;
}

FixedParts OpenFixed(PartReader& reader) {
  FixedParts parts;
  static_cast<FixedFacts&>(parts) = reader.Fixed();
  parts.name = reader.name();

  const TensorView& runs = reader.AnyPart(PartKind::kRuns, DType::kU32);
  if (runs.shape.size() != 2 || runs.shape[0] == 0 || runs.shape[0] > 7 || runs.shape[1] != 2) {
    Fail("{}: tensor {} has shape {}, expected [1 to 7, 2]", runs.file, runs.name, ShapeText(runs.shape));
  }
  parts.runs = runs.data;
  In(runs, [&] { ReadRuns(parts); });
  parts.scales = BytesOf(reader.Part(PartKind::kScales, DType::kU8, {ScaleGroupCount(parts), parts.rows}));
  parts.zeros = BytesOf(reader.Part(PartKind::kZeros, DType::kU8, {ZeroBytes(parts)}));

  if (reader.Has(PartKind::kOrder)) {
    const DType dtype = OrderBytes(parts.cols) == sizeof(uint16_t) ? DType::kU16 : DType::kU32;
    const TensorView& order = *reader.Part(PartKind::kOrder, dtype, {parts.cols});
    parts.order = order.data;
    In(order, [&] { ReadOrder(parts); });
  }

  if (reader.Has(PartKind::kColExponents)) {
    const TensorView& exponents = *reader.Part(PartKind::kColExponents, DType::kI8, {parts.cols});
    parts.col_exponents = exponents.data;
    In(exponents, [&] { ReadColExponents(parts); });
  }

  const TensorView* mask =
      reader.Part(PartKind::kMask, DType::kU8, {parts.rows, parts.mask.RowBytes(parts.coded_cols)});
  if (mask == nullptr) {
    parts.mask = MaskKind::kNone;  // or nothing is coded
  } else {
    parts.mask_rows = mask->data;
    parts.kept_before.assign((parts.blocks() + 1) * parts.groups.size(), 0);
    In(*mask, [&] { ParallelFor(parts.blocks(), [&](size_t block) { CountKept(block, parts); }); });
  }
  const TensorView* codes = reader.Part(PartKind::kCodes, DType::kU8, {PlaceCodes(parts)});
  parts.codes = BytesOf(codes);
  if (codes != nullptr) parts.codes_name = NameOf(*codes);
  return parts;
}

EntropyParts OpenEntropy(PartReader& reader) {
  const EntropyFacts facts = reader.Entropy();
  EntropyParts parts = WithFacts(facts);
  parts.name = reader.name();

  const TensorView& tables = reader.AnyPart(PartKind::kTables, DType::kU32);
  const uint64_t quantisers = parts.states > 1 ? 2 : 1;
  const uint64_t most = static_cast<uint64_t>(kEntropyKnots - facts.first_knot);
  if (tables.shape.size() != 2 || tables.shape[0] != quantisers || tables.shape[1] < 1 ||
      tables.shape[1] > most) {
    Fail("{}: tensor {} has shape {}, expected [{}, 1 to {}]", tables.file, tables.name,
         ShapeText(tables.shape), quantisers, most);
  }
  parts.knots = tables.data;
  In(tables, [&] { ReadKnots(tables.shape[1], parts); });

  const uint64_t tiles = parts.tiles();
  const TensorView& lengths = *reader.Part(PartKind::kTiles, DType::kU32, {tiles});
  parts.tile_lengths = lengths.data;
  const TensorView* codes = reader.Part(PartKind::kCodes, DType::kU8, {ReadTileLengths(parts)});
  if (codes == nullptr) Fail("{}: tensor {} holds no bytes for {} tiles", lengths.file, lengths.name, tiles);
  parts.codes = codes->data;
  parts.codes_name = NameOf(*codes);

  const TensorView& side = reader.AnyPart(PartKind::kSide, DType::kU8);
  parts.side = side.data;
  if (side.shape.size() != 1 || !ReadSide(parts)) {
    Fail("{}: tensor {} does not hold the steps and classes of {} rows and {} columns; the file is damaged",
         side.file, side.name, parts.rows, parts.cols);
  }
  return parts;
}

GgufParts OpenGguf(PartReader& reader) {
  GgufParts parts;
  static_cast<GgufFacts&>(parts) = reader.Gguf();
  parts.name = reader.name();
  parts.blocks =
      reader.Part(PartKind::kBlocks, DType::kU8, {parts.rows, RowBytes(parts.type, parts.cols)})->data;
  return parts;
}

CompressedTensorsParts OpenCompressedTensors(PartReader& reader) {
  CompressedTensorsParts parts;
  static_cast<CompressedTensorsFacts&>(parts) = reader.CompressedTensors();
  parts.name = reader.name();
  parts.words = reader
                    .Part(PartKind::kWeightPacked, DType::kI32,
                          {parts.rows, WordsOf(parts.cols, parts.bits, CodePacking::kDense)})
                    ->data;
  parts.scales = reader.Part(PartKind::kWeightScale, parts.scale_dtype, {parts.rows, parts.groups()})->data;
  parts.shape = reader.Part(PartKind::kWeightShape, DType::kI64, {2})->data;
  return parts;
}

}  // namespace

size_t StoredMatrix::rows() const {
  return std::visit([](const auto& of_coding) { return of_coding.rows; }, parts);
}
size_t StoredMatrix::cols() const {
  return std::visit([](const auto& of_coding) { return of_coding.cols; }, parts);
}
StoredBits StoredMatrix::bits() const {
  return std::visit([](const auto& of_coding) { return BitsOf(of_coding); }, parts);
}

void StoredMatrix::Release(const Checkpoint& checkpoint) const {
  for (const TensorView* tensor : tensors) checkpoint.Release(*tensor);
}

StoredMatrix OpenPacked(const Checkpoint& checkpoint, const std::string& name, bool verify) {
  PartReader reader(checkpoint, name, verify);
  StoredMatrix matrix;
  const std::string coding = reader.coding();
  if (coding == "fixed") {
    matrix.parts = OpenFixed(reader);
  } else if (coding == "entropy") {
    matrix.parts = OpenEntropy(reader);
  } else if (coding == "gguf") {
    matrix.parts = OpenGguf(reader);
  } else if (coding == "compressed-tensors") {
    matrix.parts = OpenCompressedTensors(reader);
  } else {
    Fail(
        "{}: metadata of {}: coding is \"{}\", expected \"fixed\", \"entropy\", \"gguf\" or "
        "\"compressed-tensors\"",
        checkpoint.directory().string(), name, coding);
  }
  matrix.tensors = reader.used();
  return matrix;
}

}  // namespace mica
