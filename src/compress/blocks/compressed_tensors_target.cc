// compressed-tensors ("pack-quantized"): a width for each matrix, and one number of columns to a scale.
#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/log.h"
#include "base/threads.h"
#include "compress/blocks/storage_target.h"
#include "format/compressed_tensors/parts.h"
#include "model/weights.h"

namespace mica {
namespace {

// What kernels of vLLM take.
constexpr size_t kGroups[] = {128, 64, 32};
// Rows and columns of a matrix on one GPU that its fast kernels (Marlin) take without padding.
constexpr size_t kKernelRows = 64, kKernelCols = 128;

bool IsSplitByColumns(LinearKind kind) { return kind == LinearKind::kO || kind == LinearKind::kDown; }

// The matrices that vLLM computes as one have equal numbers.
size_t FusedUnit(LinearKind kind) {
  switch (kind) {
    case LinearKind::kQ:
    case LinearKind::kK:
    case LinearKind::kV:
      return 0;
    case LinearKind::kO:
      return 1;
    case LinearKind::kGate:
    case LinearKind::kUp:
      return 2;
    case LinearKind::kDown:
      return 3;
  }
  MICA_CHECK(false);
}
constexpr const char* kUnitNames[] = {"q, k and v", "o_proj", "gate and up", "down_proj"};

// Columns of a matrix on each of so many GPUs; 0 where they do not come out even.
size_t ColsOfRank(const ModelConfig& config, LinearKind kind, size_t ranks) {
  const size_t cols = LinearShape(config, kind).cols;
  if (!IsSplitByColumns(kind)) return cols;
  return cols % ranks == 0 ? cols / ranks : 0;
}

bool Fits(const ModelConfig& config, size_t group, size_t ranks) {
  return std::ranges::all_of(kLinearKinds, [&](LinearKind kind) {
    const size_t cols = ColsOfRank(config, kind, ranks);
    return cols > 0 && cols % group == 0;
  });
}

// "--group-size 64", the largest that fits.
std::string FittingGroup(const ModelConfig& config, size_t ranks) {
  for (const size_t group : kGroups) {
    if (Fits(config, group, ranks)) return fmt::format("--group-size {}", group);
  }
  return {};
}

void CheckGroup(const ModelConfig& config, size_t group, size_t ranks) {
  if (Fits(config, group, ranks)) return;
  const LinearKind kind = *std::ranges::find_if(kLinearKinds, [&](LinearKind each) {
    const size_t cols = ColsOfRank(config, each, ranks);
    return cols == 0 || cols % group != 0;
  });
  const size_t cols = LinearShape(config, kind).cols;
  std::string instead = FittingGroup(config, ranks);
  if (instead.empty()) {
    for (size_t fewer = ranks - 1; fewer > 0 && instead.empty(); --fewer) {
      const std::string of_fewer = FittingGroup(config, fewer);
      if (!of_fewer.empty()) instead = fmt::format("--tensor-parallel {} with {}", fewer, of_fewer);
    }
  }
  if (instead.empty()) {
    Fail("{} has {} columns, which no group of 32, 64 or 128 divides; use another --coding", LinearName(kind),
         cols);
  }
  if (ranks == 1) {
    Fail("--group-size is {}, but {} has {} columns, which it does not divide; give {}", group,
         LinearName(kind), cols, instead);
  }
  Fail(
      "--group-size is {}, but {} has {} columns, {:.6g} on each of {} GPUs, which it does not divide; give "
      "{}",
      group, LinearName(kind), cols, static_cast<double>(cols) / static_cast<double>(ranks), ranks, instead);
}

void WarnOfKernels(const CompressedTensorsSettings& settings, const ModelConfig& config) {
  const size_t ranks = settings.tensor_parallel;
  size_t rows[std::size(kUnitNames)] = {}, cols[std::size(kUnitNames)] = {};
  for (const LinearKind kind : kLinearKinds) {
    const MatrixShape shape = LinearShape(config, kind);
    rows[FusedUnit(kind)] += IsSplitByColumns(kind) ? shape.rows : shape.rows / ranks;
    cols[FusedUnit(kind)] = ColsOfRank(config, kind, ranks);
  }
  for (size_t u = 0; u < std::size(kUnitNames); ++u) {
    if (rows[u] % kKernelRows == 0 && cols[u] % kKernelCols == 0) continue;
    LogWarningOnce(
        "{}: {} rows and {} columns on each GPU; vLLM before June 2026 has fast kernels for multiples of {} "
        "rows and {} columns only",
        kUnitNames[u], rows[u], cols[u], kKernelRows, kKernelCols);
  }
  if (std::ranges::any_of(settings.bits, [](int bits) { return bits != 2 && bits != 4 && bits != 8; })) {
    LogWarningOnce(
        "widths of 3, 5, 6 and 7 bits are packed across words, as compressed-tensors does since June 2026, and "
        "no file says so: readers since then take them (vLLM where it has kernels for such widths), earlier "
        "ones expect whole codes in a word; 2, 4 and 8 bits are the same in all");
  }
}

class CompressedTensorsTarget final : public StorageTarget {
 public:
  CompressedTensorsTarget(const CompressedTensorsSettings& settings, size_t group)
      : settings_(settings), group_(group) {
    std::ranges::sort(settings_.bits);
    for (const int bits : settings_.bits) grids_.push_back(SymmetricGrid(bits, group_, settings_.scale_type));
  }

  const char* name() const override { return "compressed-tensors"; }
  const std::vector<BlockGrid>& grids() const override { return grids_; }

  std::vector<size_t> Candidates(size_t cols) const override {
    if (cols % group_ != 0) Fail("rows of {} columns are no whole groups of --group-size {}", cols, group_);
    std::vector<size_t> all(grids_.size());
    std::iota(all.begin(), all.end(), size_t{0});
    return all;
  }

  double CodeBits(size_t grid, size_t rows, size_t cols) const override {
    return 32.0 * static_cast<double>(rows) *
           static_cast<double>(WordsOf(cols, settings_.bits[grid], CodePacking::kDense));
  }
  double Bits(size_t grid, size_t rows, size_t cols) const override {
    return CodeBits(grid, rows, cols) +
           16.0 * static_cast<double>(rows) * static_cast<double>(cols / group_) + 8.0 * kShapeBytes;
  }

  size_t UnitOf(LinearKind kind) const override { return FusedUnit(kind); }

  PackedMatrix Pack(const BlockSolution& solution, size_t grid) const override {
    CompressedTensorsFacts facts{solution.rows(), solution.cols(), settings_.bits[grid], group_,
                                 settings_.scale_type == ScaleType::kBF16 ? DType::kBF16 : DType::kF16};
    const Matrix<uint8_t> codes = solution.Codes();
    const size_t words = WordsOf(facts.cols, facts.bits, CodePacking::kDense), row_bytes = 4 * words;
    std::vector<std::byte> packed(facts.rows * row_bytes);
    ParallelFor(facts.rows, [&](size_t r) {
      PackCodes({codes.row(r), facts.cols}, facts.bits, std::span(packed).subspan(r * row_bytes, row_bytes));
    });
    const Matrix<uint16_t> scales = solution.Scales();
    const std::span<const std::byte> scale_bytes =
        std::as_bytes(std::span<const uint16_t>(scales.data(), scales.size()));
    PackedMatrix matrix{facts, {}};
    matrix.parts.push_back({PartKind::kWeightPacked, DType::kI32, {facts.rows, words}, std::move(packed)});
    matrix.parts.push_back({PartKind::kWeightScale,
                            facts.scale_dtype,
                            {facts.rows, facts.groups()},
                            {scale_bytes.begin(), scale_bytes.end()}});
    const uint64_t extents[] = {facts.rows, facts.cols};
    const std::span<const std::byte> shape = std::as_bytes(std::span(extents));
    matrix.parts.push_back({PartKind::kWeightShape, DType::kI64, {2}, {shape.begin(), shape.end()}});
    return matrix;
  }

  // Matrices of decoder layers alone are stored so, each at once.
  void Append(PackedMatrix, PackedMatrix&) const override { MICA_CHECK(false); }
  size_t GridOfEnds(int, size_t) const override { MICA_CHECK(false); }

  uint64_t CountZeros(const PackedMatrix& packed) const override {
    CompressedTensorsParts parts;
    static_cast<CompressedTensorsFacts&>(parts) = std::get<CompressedTensorsFacts>(packed.facts);
    parts.words = packed.parts[0].bytes;
    parts.scales = packed.parts[1].bytes;
    std::vector<uint64_t> zeros(parts.rows, 0);
    ParallelFor(zeros.size(), [&](size_t r) {
      std::vector<float> row(parts.cols);
      DecodePart(parts, r, 0, row);
      zeros[r] = static_cast<uint64_t>(std::ranges::count(row, 0.0f));
    });
    return std::accumulate(zeros.begin(), zeros.end(), uint64_t{0});
  }

 private:
  static constexpr size_t kShapeBytes = 2 * sizeof(uint64_t);
  CompressedTensorsSettings settings_;
  const size_t group_;
  std::vector<BlockGrid> grids_;
};

}  // namespace

void CheckCompressedTensors(const CompressedTensorsSettings& settings, size_t group,
                            const ModelConfig& config) {
  CheckGroup(config, group, settings.tensor_parallel);
  WarnOfKernels(settings, config);
}

std::unique_ptr<StorageTarget> MakeCompressedTensorsTarget(const CompressedTensorsSettings& settings,
                                                           size_t group) {
  return std::make_unique<CompressedTensorsTarget>(settings, group);
}

}  // namespace mica
