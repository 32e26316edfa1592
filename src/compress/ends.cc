#include "compress/ends.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/context.h"
#include "base/finite.h"
#include "base/log.h"
#include "base/system.h"
#include "base/threads.h"
#include "compress/curvature/drift_compensation.h"
#include "compress/fixed/plain_tensors.h"
#include "compress/fixed/plan.h"
#include "compress/fixed/solver.h"
#include "compress/inform/column_exponents.h"
#include "format/fixed/layout.h"
#include "io/container/safetensors.h"
#include "io/container/shard_index.h"
#include "io/packed/facts.h"
#include "model/packed.h"
#include "ops/census/census.h"
#include "ops/codes/codes.h"
#include "ops/linalg/arrange.h"

namespace mica {
namespace {

// By which the header of a matrix may be longer than that of one of its rows: digits of shapes and offsets.
constexpr uint64_t kHeaderDigits = 192;

std::string Where(const TensorView& tensor) { return fmt::format("{}: tensor {}", tensor.file, tensor.name); }

}  // namespace

std::vector<std::string> Ends::Names() const {
  const TensorNames& names = weights_.config().family->names;
  std::vector<std::string> ends = {names.embedding};
  if (has_head()) ends.push_back(names.head);
  return ends;
}

const TensorView& Ends::TensorOf(const std::string& name) const {
  return weights_.checkpoint().Get(WeightName(name));
}

void Ends::Check() const {
  for (const std::string& name : Names()) {
    const TensorView& tensor = TensorOf(name);
    if (bits() == 16 && (tensor.dtype == DType::kF16 || tensor.dtype == DType::kBF16))
      continue;  // stored as it is
    const size_t cols = weights_.config().hidden, rows = weights_.config().vocab;
    constexpr size_t kRowsEach = 256;
    ParallelFor((rows + kRowsEach - 1) / kRowsEach, [&](size_t part) {
      Matrix<float> w(std::min(kRowsEach, rows - part * kRowsEach), cols);
      ReadFiniteFloats(tensor, part * kRowsEach * cols, {w.data(), w.size()});
      if (bits() == 16) CheckFitsHalf(w, Where(tensor), {}, part * kRowsEach);
    });
    weights_.checkpoint().Release(tensor);
  }
}

double Ends::EstimatedBytes() const {
  double bytes = 0;
  for (const TensorView& tensor : weights_.checkpoint().tensors()) {
    const TensorPlace place = PlaceOf(*weights_.config().family, tensor.name);
    if (place.layer || TreatmentOf(place.role, weights_.config().tied_head) == Treatment::kLeftOut) continue;
    bytes += tensor.shape.size() == 2 ? bits() / 8.0 * static_cast<double>(tensor.elements())
                                      : static_cast<double>(tensor.data.size());
  }
  return bytes;
}

Array Ends::Read(const std::string& name) const {
  const TensorView& tensor = TensorOf(name);
  const size_t cols = weights_.config().hidden, rows = weights_.config().vocab;
  Array w(rows, cols, DType::kF32);
  const MatrixView<float> values = w.view().host<float>();
  constexpr size_t kRowsEach = 256;
  ParallelFor((rows + kRowsEach - 1) / kRowsEach, [&](size_t part) {
    const size_t first = part * kRowsEach, count = std::min(kRowsEach, rows - first);
    ReadFiniteFloats(tensor, first * cols, {values.row(first), count * cols});
  });
  weights_.checkpoint().Release(tensor);
  const Device device = settings_.arithmetic.device;
  return device.is_cuda() ? CopyTo(device, w.view()) : std::move(w);
}

PackedMatrix Ends::Solve(const std::string& name, ConstTensor h, ConstTensor drift) const {
  const double began = MonotonicSeconds();
  Array w = Read(name);
  if (target_ != nullptr) return SolveForTarget(name, std::move(w), h, drift);
  const std::vector<float> diagonal = DiagonalOf(h);
  const std::vector<double> energy(diagonal.begin(), diagonal.end());
  const DampedFactor factor(h, ActivationOrder(energy, ColumnSquares(w.view())), settings_.damping);
  FixedSolverSettings solver;
  solver.group_size = settings_.fixed.group_size;
  if (settings_.coding == Coding::kFixed) solver.refine_passes = settings_.fixed.refine_passes;
  solver.col_exponents = ColumnExponents(w.view());
  if (!drift.empty()) {
    Array target(w.rows(), w.cols(), DType::kF32, w.device());
    CompensateDrift(w.view(), {h, drift, {}}, factor, settings_.drift.compensation, target.view(), Group::Alone());
    w = std::move(target);
    CheckFinite(w.view(), "weights that make up for drift");
  }
  const std::vector<uint8_t> widths(w.cols(), static_cast<uint8_t>(bits()));
  SolverReport report;
  const double aimed = MonotonicSeconds();
  PackedMatrix packed = SolveFixedInBlocks(w.view(), h, factor, widths, solver, kSolvedRows, &report);
  LogDebug("{}: relative error {:.3g}; read, factored and aimed in {:.2f} s, solved and packed in {:.2f} s", name,
           report.relative_error, aimed - began, MonotonicSeconds() - aimed);
  return packed;
}

size_t Ends::GridFor(const std::string& name) const {
  if (coder_ == nullptr || !coder_->plans_ends())
    return target_->GridOfEnds(bits(), weights_.config().hidden);
  return coder_->GridOfEnd(name == Names().front() ? TensorRole::kEmbedding : TensorRole::kHead);
}

PackedMatrix Ends::SolveForTarget(const std::string& name, Array w, ConstTensor h, ConstTensor drift) const {
  const size_t grid = GridFor(name);
  const BlockSettings solver{.refine_passes = settings_.fixed.refine_passes};
  std::optional<DampedFactor> factor;
  if (!h.empty()) factor.emplace(h, std::vector<uint32_t>(), settings_.damping);
  if (!drift.empty()) {
    Array aimed(w.rows(), w.cols(), DType::kF32, w.device());
    CompensateDrift(w.view(), {h, drift, {}}, *factor, settings_.drift.compensation, aimed.view(), Group::Alone());
    w = std::move(aimed);
    CheckFinite(w.view(), "weights that make up for drift");
  }
  std::optional<PackedMatrix> packed;
  for (size_t first = 0; first < w.rows(); first += kSolvedRows) {
    const ConstTensor rows = std::as_const(w).view().Rows(first, std::min(kSolvedRows, w.rows() - first));
    const BlockGrid& blocks = target_->grids()[grid];
    PackedMatrix part = target_->Pack(
        factor ? SolveOnBlocks(rows, h, *factor, blocks, solver, nullptr) : RoundOnBlocks(rows, {}, blocks),
        grid);
    if (packed) {
      target_->Append(std::move(part), *packed);
    } else {
      packed = std::move(part);
    }
  }
  return std::move(*packed);
}

PackedShard Ends::WithoutHead(const EndStatistics& statistics) const {
  const Device device = settings_.arithmetic.device;
  const std::string embedding = Names().front();
  PackedShard shard;
  for (const TensorView& tensor : weights_.checkpoint().tensors()) {
    const TensorPlace place = PlaceOf(*weights_.config().family, tensor.name);
    if (place.layer) continue;
    const Treatment treatment = TreatmentOf(place.role, weights_.config().tied_head);
    if (treatment == Treatment::kCopied) CopyTensor(weights_.checkpoint(), tensor, shard);
    if (place.role != TensorRole::kEmbedding) continue;
    const bool known = !statistics.embedding.empty() || !statistics.head.empty();
    if (bits() < 16 && !known && target_ != nullptr) {
      shard.Add(embedding, SolveForTarget(embedding, Read(embedding), {}, {}));
      continue;
    }
    if (bits() == 16 || !known) {
      AddRounded(weights_.checkpoint(), embedding, bits(), settings_.fixed.group_size, shard);
      continue;
    }
    const Array h = CopyTo(device, ConstTensor(EmbeddingMoments(statistics)));
    shard.Add(embedding, InContext(embedding, [&] { return Solve(embedding, h.view(), {}); }));
  }
  return shard;
}

PackedShard Ends::Head(const HeadMoments& moments) const {
  const std::string head = Names().back();
  PackedShard shard;
  if (bits() == 16) {
    AddRounded(weights_.checkpoint(), head, bits(), settings_.fixed.group_size, shard);
  } else {
    shard.Add(head, InContext(head, [&] { return Solve(head, moments.h.view(), moments.drift.view()); }));
  }
  return shard;
}

Array Ends::StoredEmbedding(const Checkpoint& packed) const {
  const std::string name = Names().front();
  const size_t rows = weights_.config().vocab, cols = weights_.config().hidden;
  const Device device = settings_.arithmetic.device;
  if (HasPacked(packed, name)) {
    Array decoded(rows, cols, DType::kF32, device);
    DecodePacked(packed, name, 0, decoded.view());
    return decoded;
  }
  Array plain(rows, cols, DType::kF32);
  const MatrixView<float> values = plain.view().host<float>();
  ReadFiniteFloats(packed.Get(WeightName(name)), 0, {values.row(0), rows * cols});
  return device.is_cuda() ? CopyTo(device, plain.view()) : std::move(plain);
}

GgmlType Ends::TypeOf(const std::string& name) const {
  const TensorView& tensor = TensorOf(name);
  if (bits() == 16) return tensor.dtype == DType::kBF16 ? GgmlType::kBF16 : GgmlType::kF16;
  const size_t grid = GridFor(name);
  return FindGgmlType(target_->grids()[grid].name)->type;
}

uint64_t Ends::BytesOf(const std::string& name) const {
  const TensorView& tensor = TensorOf(name);
  const uint64_t rows = weights_.config().vocab, cols = weights_.config().hidden;
  if (bits() == 16) {
    const TensorSpec spec{tensor.name, DType::kF16, tensor.shape};
    return rows * cols * DTypeBytes(spec.dtype) +
           SafetensorsHeaderBytes({spec}, {{PlainKey(spec.name), Crc32Text(0)}}) +
           IndexEntryBytes(spec.name) + kHeaderDigits;
  }
  const std::vector<uint8_t> widths(cols, static_cast<uint8_t>(bits()));
  uint64_t bytes =
      FixedStoredBits(rows, widths, settings_.fixed.group_size, MaskKind::kNone, {}, false, true).total() / 8;
  // Of one row there are the same parts.
  FixedMatrix row = RoundToNearest(Matrix<float>(1, cols, 0.0f), bits(), settings_.fixed.group_size);
  std::reverse(row.order.begin(), row.order.end());
  row.col_exponents.assign(cols, 1);
  PackedShard shard;
  shard.Add(name, Pack(row));
  bytes += shard.header_bytes() + kHeaderDigits;
  for (const std::string& part : shard.tensor_names()) bytes += IndexEntryBytes(part);
  return bytes;
}

}  // namespace mica
