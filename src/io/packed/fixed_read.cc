// Reader of coding `fixed`.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/threads.h"
#include "format/bits.h"
#include "format/fixed/layout.h"
#include "format/fixed/scale_code.h"
#include "format/mask/mask_rows.h"
#include "format/mask/sparsity_pattern.h"
#include "format/stored_bits.h"
#include "io/packed/fixed.h"

namespace mica {
namespace {

constexpr uint64_t kMaxExtent = uint64_t{1} << 24;
constexpr uint64_t kMaxWeights = uint64_t{1} << 36;

template <typename T>
T LoadAt(const TensorView& tensor, size_t index) {
  T value;
  std::memcpy(&value, tensor.data.data() + index * sizeof(T), sizeof(T));
  return value;
}

class FixedReader final : public PackedReader {
 public:
  explicit FixedReader(PackedParts parts);
  StoredBits stored_bits() const override { return bits_; }
  FixedMatrix Unpack() const;

 private:
  friend class RowCursor;
  struct Group : ScaleGroup {
    size_t coded_start = 0;   // first bit in a mask row
    uint64_t first_bit = 0;   // of its stream in codes
    uint64_t zeros_byte = 0;  // of its stream in zeros
  };

  void ReadGroups(PackedParts& parts);
  void ReadOrder(PackedParts& parts);
  void CountMask();
  void DecodeRows(size_t first_row, MatrixView<float> out) const override;
  float Scale(const Group& group, size_t row) const {
    return ToFloat(LoadAt<ScaleCode>(*scales_, static_cast<size_t>(group.scale_row) * rows_ + row)) * unit_;
  }
  int Zero(const Group& group, size_t row) const {
    const uint64_t bit = uint64_t{row} * group.bits;
    const std::byte* end = zeros_->data.data() + zeros_->data.size();
    const uint64_t word = LoadWord(zeros_->data.data() + group.zeros_byte + bit / 8, end) >> (bit % 8);
    return static_cast<int>(word & ((1u << group.bits) - 1));
  }

  size_t group_size_ = 0;
  int exponent_ = 0;
  float unit_ = 1;  // 2^exponent_
  MaskKind mask_kind_ = MaskKind::kNone;
  std::vector<Group> groups_;
  size_t coded_cols_ = 0;
  size_t max_count_ = 0;               // columns of the largest scale group
  std::vector<uint32_t> order_;        // empty: identity
  std::vector<uint64_t> kept_before_;  // [blocks + 1, groups] kept weights of the group in the rows before
                                       // the block; empty: no mask
  const TensorView* codes_ = nullptr;
  const TensorView* scales_ = nullptr;
  const TensorView* zeros_ = nullptr;
  const TensorView* mask_ = nullptr;
  StoredBits bits_;
};

// Walks down the rows of a matrix, giving the codes of one group of the row at a time.
class RowCursor {
 public:
  // Stands before `row`.
  RowCursor(const FixedReader& matrix, size_t row)
      : matrix_(matrix),
        codes_(matrix.codes_ == nullptr ? std::span<const std::byte>() : matrix.codes_->data),
        row_(row),
        bit_(matrix.groups_.size()),
        words_((matrix.coded_cols_ + 63) / 64),
        buffer_(matrix.max_count_) {
    if (!masked()) {
      for (size_t g = 0; g < bit_.size(); ++g) {
        const FixedReader::Group& group = matrix_.groups_[g];
        bit_[g] = group.first_bit + uint64_t{row} * group.count * group.bits;
      }
      return;
    }
    const size_t block = row / kBlockRows;
    for (size_t g = 0; g < bit_.size(); ++g) {
      const FixedReader::Group& group = matrix_.groups_[g];
      bit_[g] = group.first_bit + matrix_.kept_before_[block * bit_.size() + g] * group.bits;
    }
    for (row_ = block * kBlockRows; row_ < row; ++row_) {
      LoadMask();
      for (size_t g = 0; g < bit_.size(); ++g) {
        const FixedReader::Group& group = matrix_.groups_[g];
        if (group.bits != 0) bit_[g] += CountKept(words_.data(), group.coded_start, group.count) * group.bits;
      }
    }
  }

  bool masked() const { return matrix_.mask_kind_ != MaskKind::kNone; }
  void NextRow() { ++row_; }
  // Reads the mask of the current row; before the groups of each row when masked.
  void LoadMask() {
    const size_t row_bytes = matrix_.mask_->shape[1];
    ReadMaskRow(matrix_.mask_kind_, matrix_.coded_cols_,
                matrix_.mask_->data.subspan(row_ * row_bytes, row_bytes), words_.data());
  }
  // Codes of the kept weights of group g in the current row; each group of a row must be asked for once,
  // groups of width 0 need not.
  std::span<const uint16_t> Codes(size_t g) {
    const FixedReader::Group& group = matrix_.groups_[g];
    const size_t count = masked() ? CountKept(words_.data(), group.coded_start, group.count) : group.count;
    const std::byte* base = codes_.data();
    const std::byte* end = base + codes_.size();
    uint16_t* out = buffer_.data();
    switch (group.bits) {
      case 2:
        ExtractBits<2>(base, end, bit_[g], count, out);
        break;
      case 3:
        ExtractBits<3>(base, end, bit_[g], count, out);
        break;
      case 4:
        ExtractBits<4>(base, end, bit_[g], count, out);
        break;
      case 6:
        ExtractBits<6>(base, end, bit_[g], count, out);
        break;
      case 8:
        ExtractBits<8>(base, end, bit_[g], count, out);
        break;
      case 16:
        ExtractBits<16>(base, end, bit_[g], count, out);
        break;
      default:
        MICA_CHECK(false);
    }
    bit_[g] += uint64_t{count} * group.bits;
    return {out, count};
  }
  // Calls place(j) for the kept columns j (from the group's start) of the current row, left to right.
  template <typename Place>
  void ForKept(size_t g, Place&& place) const {
    const FixedReader::Group& group = matrix_.groups_[g];
    for (size_t j = 0; j < group.count;) {
      const size_t position = group.coded_start + j;
      const size_t take = std::min<size_t>(64 - position % 64, group.count - j);
      uint64_t word = words_[position / 64] >> (position % 64);
      if (take < 64) word &= (uint64_t{1} << take) - 1;
      for (; word != 0; word &= word - 1) place(j + static_cast<size_t>(std::countr_zero(word)));
      j += take;
    }
  }

 private:
  const FixedReader& matrix_;
  std::span<const std::byte> codes_;
  size_t row_;
  std::vector<uint64_t> bit_;    // [groups] next bit in codes
  std::vector<uint64_t> words_;  // mask of the current row
  std::vector<uint16_t> buffer_;
};

FixedReader::FixedReader(PackedParts parts) {
  name_ = parts.name();
  coding_ = "fixed";
  rows_ = parts.Number("rows", 1, kMaxExtent);
  cols_ = parts.Number("cols", 1, std::min(kMaxExtent, kMaxWeights / rows_));
  group_size_ = parts.Number("group_size", 1, kMaxExtent);
  exponent_ = parts.Integer("exponent", -kMaxExponent, kMaxExponent);
  unit_ = std::ldexp(1.0f, exponent_);
  if (!ParseMaskName(parts.Text("mask"), mask_kind_)) {
    Fail("metadata of {}: mask is \"{}\", expected none, bitmap, 2:4 or 4:8", name_, parts.Text("mask"));
  }
  ReadGroups(parts);
  ReadOrder(parts);
  const uint64_t mask_bits = MaskRowBits(mask_kind_, coded_cols_);
  const uint64_t mask_bytes = MaskRowBytes(mask_kind_, coded_cols_);
  mask_ = parts.Part("mask", DType::kU8, {rows_, mask_bytes});
  bits_.mask = rows_ * mask_bits;
  bits_.padding += rows_ * (8 * mask_bytes - mask_bits);
  if (mask_ == nullptr) mask_kind_ = MaskKind::kNone;  // nothing is coded
  CountMask();

  uint64_t code_bytes = 0;
  for (size_t g = 0; g < groups_.size(); ++g) {
    Group& group = groups_[g];
    group.first_bit = 8 * code_bytes;
    const uint64_t kept = mask_kind_ == MaskKind::kNone
                              ? uint64_t{rows_} * group.count
                              : kept_before_[kept_before_.size() - groups_.size() + g];
    const uint64_t stream_bits = kept * group.bits;
    const uint64_t stream_bytes = AlignGroup((stream_bits + 7) / 8);
    code_bytes += stream_bytes;
    bits_.codes += stream_bits;
    bits_.padding += 8 * stream_bytes - stream_bits;
  }
  codes_ = parts.Part("codes", DType::kU8, {code_bytes});
  tensors_ = parts.used();
}

void FixedReader::ReadGroups(PackedParts& parts) {
  const TensorView& runs = parts.AnyPart("groups", DType::kU32);
  if (runs.shape.size() != 2 || runs.shape[0] == 0 || runs.shape[0] > 7 || runs.shape[1] != 2) {
    Fail("{}: tensor {} has shape {}, expected [1 to 7, 2]", runs.file, runs.name, ShapeText(runs.shape));
  }
  bits_.groups = 8 * runs.data.size();
  std::vector<uint8_t> widths(cols_);
  for (size_t i = 0; i < runs.shape[0]; ++i) {
    const GroupRun run = LoadAt<GroupRun>(runs, i);
    const size_t end = i + 1 < runs.shape[0] ? LoadAt<GroupRun>(runs, i + 1).start : cols_;
    if ((i == 0 && run.start != 0) || run.start >= end || end > cols_) {
      Fail(
          "{}: tensor {}: run {} starts at column {} and ends before {}, expected rising starts from 0 "
          "within {} columns",
          runs.file, runs.name, i, run.start, end, cols_);
    }
    if (!IsKnownWidth(run.bits)) {
      Fail("{}: tensor {}: run {} has width {}, expected 0, 2, 3, 4, 6, 8 or 16", runs.file, runs.name, i,
           run.bits);
    }
    std::fill(widths.begin() + run.start, widths.begin() + static_cast<ptrdiff_t>(end),
              static_cast<uint8_t>(run.bits));
  }
  std::vector<ScaleGroup> groups;
  try {
    groups = ScaleGroups(widths, group_size_);
  } catch (const Error& error) {
    Fail("{}: tensor {}: {}", runs.file, runs.name, error.what());
  }

  uint64_t scale_groups = 0, zero_bytes = 0;
  for (const ScaleGroup& plain : groups) {
    Group group;
    static_cast<ScaleGroup&>(group) = plain;
    group.coded_start = coded_cols_;
    group.zeros_byte = zero_bytes;
    if (group.bits != 0) {
      coded_cols_ += group.count;
      max_count_ = std::max<size_t>(max_count_, group.count);
    }
    if (group.scale_row >= 0) {
      ++scale_groups;
      const uint64_t zero_bits = uint64_t{rows_} * group.bits;
      zero_bytes += (zero_bits + 7) / 8;
      bits_.scales += uint64_t{rows_} * kScaleBits;
      bits_.zeros += zero_bits;
      bits_.padding += (8 - zero_bits % 8) % 8;
    }
    groups_.push_back(group);
  }
  scales_ = parts.Part("scales", DType::kU8, {scale_groups, rows_});
  zeros_ = parts.Part("zeros", DType::kU8, {zero_bytes});
}

void FixedReader::ReadOrder(PackedParts& parts) {
  if (!parts.Has("order")) return;
  const bool narrow = cols_ <= 65536;
  const TensorView& stored = *parts.Part("order", narrow ? DType::kU16 : DType::kU32, {cols_});
  bits_.order = 8 * stored.data.size();
  order_.resize(cols_);
  std::vector<bool> seen(cols_);
  for (size_t p = 0; p < cols_; ++p) {
    const uint32_t column = narrow ? LoadAt<uint16_t>(stored, p) : LoadAt<uint32_t>(stored, p);
    if (column >= cols_ || seen[column]) {
      Fail(
          "{}: tensor {}: entry {} is {}, expected a permutation of the columns 0 to {}; the file is damaged",
          stored.file, stored.name, p, column, cols_ - 1);
    }
    seen[column] = true;
    order_[p] = column;
  }
}

void FixedReader::CountMask() {
  if (mask_kind_ == MaskKind::kNone) return;
  const size_t blocks = (rows_ + kBlockRows - 1) / kBlockRows;
  const size_t row_bytes = mask_->shape[1];
  kept_before_.assign((blocks + 1) * groups_.size(), 0);
  ParallelFor(blocks, [&](size_t block) {
    std::vector<uint64_t> words((coded_cols_ + 63) / 64);
    uint64_t* kept = kept_before_.data() + (block + 1) * groups_.size();
    for (size_t r = block * kBlockRows; r < std::min(rows_, (block + 1) * kBlockRows); ++r) {
      if (!ReadMaskRow(mask_kind_, coded_cols_, mask_->data.subspan(r * row_bytes, row_bytes),
                       words.data())) {
        Fail("{}: tensor {}: row {} holds an index that is no {} pattern; the file is damaged", mask_->file,
             mask_->name, r, MaskName(mask_kind_));
      }
      for (size_t g = 0; g < groups_.size(); ++g) {
        if (groups_[g].bits != 0)
          kept[g] += CountKept(words.data(), groups_[g].coded_start, groups_[g].count);
      }
    }
  });
  for (size_t i = groups_.size(); i < kept_before_.size(); ++i)
    kept_before_[i] += kept_before_[i - groups_.size()];
}

void FixedReader::DecodeRows(size_t first_row, MatrixView<float> out) const {
  const size_t last_row = first_row + out.rows;
  const size_t first_block = first_row / kBlockRows;
  const size_t blocks = (last_row + kBlockRows - 1) / kBlockRows - first_block;
  ParallelFor(blocks, [&](size_t i) {
    const size_t begin = std::max(first_row, (first_block + i) * kBlockRows);
    const size_t end = std::min(last_row, (first_block + i + 1) * kBlockRows);
    RowCursor cursor(*this, begin);
    std::vector<float> stored(order_.empty() ? 0 : cols_);
    std::vector<float> values(max_count_);
    for (size_t r = begin; r < end; ++r, cursor.NextRow()) {
      float* target = out.row(r - first_row);
      float* row = order_.empty() ? target : stored.data();
      if (cursor.masked()) cursor.LoadMask();
      for (size_t g = 0; g < groups_.size(); ++g) {
        const Group& group = groups_[g];
        float* weights = row + group.start;
        if (group.bits == 0 || cursor.masked()) std::fill_n(weights, group.count, 0.0f);
        if (group.bits == 0) continue;
        const std::span<const uint16_t> codes = cursor.Codes(g);
        float* dense = cursor.masked() ? values.data() : weights;
        if (group.scale_row >= 0) {
          const int zero = Zero(group, r);
          const float scale = Scale(group, r);
          for (size_t j = 0; j < codes.size(); ++j)
            dense[j] = static_cast<float>(int{codes[j]} - zero) * scale;
        } else {
          for (size_t j = 0; j < codes.size(); ++j) dense[j] = ToFloat(F16{codes[j]}) * unit_;
        }
        if (cursor.masked()) {
          const float* next = dense;
          cursor.ForKept(g, [&](size_t j) { weights[j] = *next++; });
        }
      }
      for (size_t p = 0; p < order_.size(); ++p) target[order_[p]] = stored[p];
    }
  });
}

FixedMatrix FixedReader::Unpack() const {
  FixedMatrix matrix;
  matrix.rows = rows_;
  matrix.cols = cols_;
  matrix.group_size = group_size_;
  matrix.exponent = exponent_;
  matrix.mask = mask_kind_;
  matrix.order = order_;
  if (order_.empty()) {
    for (size_t p = 0; p < cols_; ++p) matrix.order.push_back(static_cast<uint32_t>(p));
  }
  matrix.codes = Matrix<uint16_t>(rows_, cols_, uint16_t{0});
  const bool masked = mask_kind_ != MaskKind::kNone;
  if (masked) matrix.keep = Matrix<uint8_t>(rows_, cols_, uint8_t{0});
  size_t scaled = 0;
  for (const Group& group : groups_) {
    matrix.widths.insert(matrix.widths.end(), group.count, group.bits);
    scaled += group.scale_row >= 0 ? 1 : 0;
  }
  matrix.scales = Matrix<ScaleCode>(scaled, rows_);
  matrix.zeros = Matrix<uint8_t>(scaled, rows_);
  if (scaled > 0) std::memcpy(matrix.scales.data(), scales_->data.data(), scales_->data.size());
  RowCursor cursor(*this, 0);
  for (size_t r = 0; r < rows_; ++r, cursor.NextRow()) {
    if (masked) cursor.LoadMask();
    for (size_t g = 0; g < groups_.size(); ++g) {
      const Group& group = groups_[g];
      if (group.scale_row >= 0)
        matrix.zeros(static_cast<size_t>(group.scale_row), r) = static_cast<uint8_t>(Zero(group, r));
      if (group.bits == 0) continue;
      const std::span<const uint16_t> codes = cursor.Codes(g);
      if (masked) {
        const uint16_t* next = codes.data();
        cursor.ForKept(g, [&](size_t j) {
          matrix.codes(r, group.start + j) = *next++;
          matrix.keep(r, group.start + j) = 1;
        });
      } else {
        std::copy(codes.begin(), codes.end(), matrix.codes.row(r) + group.start);
      }
    }
  }
  return matrix;
}

}  // namespace

std::unique_ptr<PackedReader> OpenFixed(PackedParts parts) {
  return std::make_unique<FixedReader>(std::move(parts));
}

FixedMatrix UnpackFixed(const Checkpoint& checkpoint, const std::string& name) {
  PackedParts parts(checkpoint, name, true);
  const std::string coding = parts.Text("coding");
  if (coding != "fixed") Fail("metadata of {}: coding is \"{}\", expected \"fixed\"", name, coding);
  return FixedReader(std::move(parts)).Unpack();
}

}  // namespace mica
