// GGUF: a type for each matrix.
#include <algorithm>
#include <iterator>
#include <numeric>

#include "base/error.h"
#include "base/threads.h"
#include "compress/blocks/storage_target.h"
#include "format/gguf/parts.h"

namespace mica {
namespace {

// Of blocks of 256 columns, the type of 32 that takes its place in rows that are no such blocks: the next one
// with at least as many levels.
GgmlType Substitute(GgmlType type) {
  switch (type) {
    case GgmlType::kQ5_K:
      return GgmlType::kQ5_1;
    case GgmlType::kQ6_K:
      return GgmlType::kQ8_0;
    case GgmlType::kQ4_K:
      return GgmlType::kQ5_0;
    case GgmlType::kQ2_K:
    case GgmlType::kQ3_K:
      return GgmlType::kQ4_0;
    default:
      return GgmlType::kIQ4_NL;
  }
}

class GgufTarget final : public StorageTarget {
 public:
  GgufTarget(std::vector<GgmlType> wanted, std::span<const FusedLinears> fused)
      : types_(SolvableTypes()), wanted_(std::move(wanted)), fused_(fused) {
    for (const GgmlType type : types_) grids_.push_back(GridOf(type));
  }

  const char* name() const override { return "gguf"; }
  const std::vector<BlockGrid>& grids() const override { return grids_; }

  std::vector<size_t> Candidates(size_t cols) const override {
    std::vector<size_t> found, substitutes;
    for (size_t i = 0; i < types_.size(); ++i) {
      if (!FitsBlocks(grids_[i], cols)) continue;
      if (wanted_.empty() || Wanted(types_[i])) found.push_back(i);
      if (std::ranges::any_of(wanted_, [&](GgmlType type) { return Substitute(type) == types_[i]; }))
        substitutes.push_back(i);
    }
    if (found.empty()) found = std::move(substitutes);
    if (found.empty()) {
      Fail(
          "rows of {} columns are no whole blocks of any type of GGUF, which hold 32 or 256 columns; use "
          "another --coding",
          cols);
    }
    return found;
  }

  double Bits(size_t grid, size_t rows, size_t cols) const override {
    return 8.0 * static_cast<double>(rows) * static_cast<double>(RowBytes(types_[grid], cols));
  }

  size_t UnitOf(LinearKind kind) const override {
    for (const FusedLinears& linears : fused_) {
      if (std::ranges::find(linears.kinds, kind) != linears.kinds.end())
        return static_cast<size_t>(linears.kinds.front());
    }
    return static_cast<size_t>(kind);
  }

  PackedMatrix Pack(const BlockSolution& solution, size_t grid) const override {
    const GgufFacts facts{solution.rows(), solution.cols(), types_[grid]};
    PackedMatrix packed{facts, {}};
    packed.parts.push_back({PartKind::kBlocks,
                            DType::kU8,
                            {facts.rows, RowBytes(facts.type, facts.cols)},
                            solution.EncodedRows(facts.type)});
    return packed;
  }

  void Append(PackedMatrix more, PackedMatrix& to) const override {
    PackedPart& part = to.parts[0];
    const std::vector<std::byte>& bytes = more.parts[0].bytes;
    part.bytes.insert(part.bytes.end(), bytes.begin(), bytes.end());
    part.shape[0] += more.parts[0].shape[0];
    std::get<GgufFacts>(to.facts).rows = part.shape[0];
  }

  uint64_t CountZeros(const PackedMatrix& packed) const override {
    GgufParts parts;
    static_cast<GgufFacts&>(parts) = std::get<GgufFacts>(packed.facts);
    parts.blocks = packed.parts[0].bytes;
    constexpr size_t kRowsEach = 32;
    std::vector<uint64_t> zeros((parts.rows + kRowsEach - 1) / kRowsEach, 0);
    ParallelFor(zeros.size(), [&](size_t i) {
      Matrix<float> rows(std::min(kRowsEach, parts.rows - i * kRowsEach), parts.cols);
      DecodeRows(parts, i * kRowsEach, rows.view());
      zeros[i] = static_cast<uint64_t>(std::count(rows.data(), rows.data() + rows.size(), 0.0f));
    });
    return std::accumulate(zeros.begin(), zeros.end(), uint64_t{0});
  }

  size_t GridOfEnds(int bits, size_t cols) const override {
    GgmlType type = bits >= 8   ? GgmlType::kQ8_0
                    : bits == 6 ? GgmlType::kQ6_K
                    : bits == 4 ? GgmlType::kQ4_K
                    : bits == 3 ? GgmlType::kQ3_K
                                : GgmlType::kQ2_K;
    if (!FitsBlocks(GridOf(type), cols)) type = Substitute(type);
    if (!FitsBlocks(GridOf(type), cols))
      Fail("rows of {} columns are no whole blocks of a type of GGUF; give --embedding-bits 16", cols);
    return static_cast<size_t>(std::ranges::find(types_, type) - types_.begin());
  }

 private:
  bool Wanted(GgmlType type) const { return std::ranges::find(wanted_, type) != wanted_.end(); }

  const std::vector<GgmlType>& types_;
  std::vector<GgmlType> wanted_;  // empty: all
  std::vector<BlockGrid> grids_;
  std::span<const FusedLinears> fused_;
};

}  // namespace

const std::vector<GgmlType>& SolvableTypes() {
  static const std::vector<GgmlType> types = [] {
    std::vector<GgmlType> found;
    for (const GgmlTypeFacts& facts : GgmlTypes()) {
      if (CanSolve(facts.type)) found.push_back(facts.type);
    }
    return found;
  }();
  return types;
}

std::vector<GgmlType> ParseGgufTypes(const std::string& list) {
  std::vector<GgmlType> types;
  if (list == "all") return types;
  for (size_t at = 0; at <= list.size();) {
    const size_t comma = std::min(list.find(',', at), list.size());
    const std::string name = list.substr(at, comma - at);
    at = comma + 1;
    const GgmlTypeFacts* facts = FindGgmlType(name);
    if (facts == nullptr || !CanSolve(facts->type)) {
      Fail("--gguf-types (gguf_types) names \"{}\", expected all or types out of {}", name,
           GgufTypesText(SolvableTypes()));
    }
    if (std::ranges::find(types, facts->type) != types.end())
      Fail("--gguf-types (gguf_types) names {} twice, expected each type once", name);
    types.push_back(facts->type);
  }
  return types;
}

std::string GgufTypesText(const std::vector<GgmlType>& types) {
  std::string text;
  for (const GgmlType type : types) {
    if (!text.empty()) text += ",";
    text += FactsOf(type).name;
  }
  return text.empty() ? "all" : text;
}

std::unique_ptr<StorageTarget> MakeGgufTarget(const GgufSettings& settings, std::span<const FusedLinears> fused) {
  return std::make_unique<GgufTarget>(settings.types, fused);
}

}  // namespace mica
