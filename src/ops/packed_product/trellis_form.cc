#include "ops/packed_product/trellis_form.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/threads.h"
#include "device/scratch.h"
#include "ops/codes/decode_tile.h"
#include "ops/codes/stored_rows.h"

namespace mica {
namespace {

// Tokens that a tile is multiplied with at once: its levels are unpacked once for them, and sums of 128 rows
// stay in the second-level cache.
constexpr size_t kTokensTogether = 256;

// As TakeCodes, for one row.
template <size_t kCount>
[[gnu::always_inline]] inline void CodesOf(const int16_t* n, size_t any_count, int width, uint8_t* codes, uint8_t* beyond) {
  const size_t count = kCount == 0 ? any_count : kCount;
  const uint16_t half = static_cast<uint16_t>(HalfOfWidth(width));
  const uint16_t upper = static_cast<uint16_t>(half - 1), outside = static_cast<uint16_t>(-2 * half);
  for (size_t l = 0; l < count; ++l) {
    const uint16_t v = static_cast<uint16_t>(n[l]);
    beyond[l] = (static_cast<uint16_t>(v + half) & outside) != 0 ? 1 : 0;
    const uint16_t parity = static_cast<uint16_t>(static_cast<uint16_t>(v & 1) * half);
    codes[l] = static_cast<uint8_t>(static_cast<uint16_t>(static_cast<uint16_t>(v >> 1) & upper) | parity);
  }
}

// Codes of widths 3 to 6 of `count` columns of some rows, whose integers stand `lanes` apart, codes kTrellisBlock and
// marks kMostLanes; those that have no code are marked in `beyond`. In 16 bits throughout, which compilers make vectors of.
#if defined(__x86_64__)
__attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#endif
void TakeCodes(const int16_t* n, size_t rows, size_t lanes, size_t count, int width, uint8_t* codes, uint8_t* beyond) {
  for (size_t r = 0; r < rows; ++r, n += lanes, codes += kTrellisBlock, beyond += kMostLanes) {
    if (count == kMostLanes) {
      CodesOf<kMostLanes>(n, count, width, codes, beyond);
    } else {
      CodesOf<0>(n, count, width, codes, beyond);
    }
  }
}

// Makes the codes of one tile of what its decoder gives.
class TileMaker {
 public:
  TileMaker(TrellisWeights& w, size_t tile, const std::vector<uint8_t>& is_taken)
      : w_(w),
        tile_(tile),
        is_taken_(is_taken),
        trellis_(TrellisOf(w.layout.states)),
        rows_(w.layout.RowsOf(tile)),
        codes_(rows_, kTrellisBlock),
        beyond_(rows_ * kMostLanes) {}

  // As an IntegerSink; lanes divide a block.
  void Take(size_t first, size_t count, size_t lanes, const int16_t* n) {
    const int width = w_.layout.width;
    const size_t in_block = first % kTrellisBlock;
    if (in_block == 0) std::memset(codes_.data(), 0, codes_.size());
    if (width == 2 || width == 8) {
      uint8_t machine[kMostLanes] = {};
      for (size_t r = 0; r < rows_; ++r)
        TakeLevels(r, first, count, n + r * lanes, machine, codes_.row(r) + in_block);
    } else {
      if (count < kMostLanes) std::fill(beyond_.begin(), beyond_.end(), uint8_t{0});
      TakeCodes(n, rows_, lanes, count, width, codes_.data() + in_block, beyond_.data());
      for (size_t r = 0; r < rows_; ++r) {
        uint8_t* const codes = codes_.row(r) + in_block;
        ForMarked(beyond_.data() + r * kMostLanes, [&](size_t l) {
          if (is_taken_[first + l] == 0) TakeBeyond(r, first + l, n[r * lanes + l], codes[l]);
        });
      }
    }
    for (size_t l = 0; l < count; ++l) {
      if (is_taken_[first + l] != 0) TakeWhole(first + l, n + l, lanes);
    }
    if (first + count == w_.layout.cols || in_block + count == kTrellisBlock) {
      const size_t block = first / kTrellisBlock;
      PackBlock(w_.layout, tile_, block, codes_.data(), w_.codes.data() + w_.layout.Begin(tile_, block));
    }
  }

  // False: a row has more exceptions than 16 bits count.
  bool Finish() {
    if (found_.empty()) return true;
    // They came by column, but for columns that are taken out.
    if (!w_.taken.empty()) {
      std::stable_sort(found_.begin(), found_.end(),
                       [](const Found& a, const Found& b) { return a.col < b.col; });
    }
    std::vector<size_t> at(rows_ + 1, 0);
    for (const Found& found : found_) ++at[found.row + 1];
    for (size_t r = 0; r < rows_; ++r) at[r + 1] += at[r];
    std::vector<const Found*> by_row(found_.size());
    for (const Found& found : found_) by_row[at[found.row]++] = &found;
    TrellisWeights::Exceptions& out = w_.exceptions[tile_];
    out.counts.assign(rows_, 0);
    const Found* const* next = by_row.data();
    const Found* const* const end = next + by_row.size();
    std::vector<TrellisException> items;
    for (size_t r = 0; r < rows_; ++r) {
      const size_t before = items.size();
      for (size_t col = 0; next != end && (*next)->row == r; ++next)
        AddException((*next)->col, (*next)->difference, w_.exception_unit, col, items);
      if (items.size() - before > UINT16_MAX) return false;
      out.counts[r] = static_cast<uint16_t>(items.size() - before);
    }
    out.items.assign(items.begin(), items.end());  // without room for more
    return true;
  }

 private:
  struct Found {
    uint32_t row, col;
    int32_t difference;
  };
  void Add(size_t r, size_t col, int difference) {
    found_.push_back({static_cast<uint32_t>(r), static_cast<uint32_t>(col), difference});
  }
  // Calls visit(l) for those of kMostLanes that are 1, in their order.
  template <typename Visit>
  static void ForMarked(const uint8_t* marks, const Visit& visit) {
    for (size_t first = 0; first < kMostLanes; first += sizeof(uint64_t)) {
      uint64_t left;
      std::memcpy(&left, marks + first, sizeof(left));
      for (; left != 0; left &= left - 1) visit(first + static_cast<size_t>(std::countr_zero(left)) / 8);
    }
  }
  // Of widths above 2 both integers have one sign: any quantiser makes the same difference.
  void TakeBeyond(size_t r, size_t col, int n, uint8_t& code, int quantiser = 0) {
    const int near = NearestWithCode(n, w_.layout.width);
    if (near == n) return;
    code = CodeOf(near, w_.layout.width);
    Add(r, col, trellis_.Level(n, quantiser) - trellis_.Level(near, quantiser));
  }
  // Widths 2 and 8, where levels say what is beyond.
  void TakeLevels(size_t r, size_t first, size_t count, const int16_t* n, uint8_t* machine, uint8_t* codes) {
    for (size_t l = 0; l < count; ++l) {
      const int quantiser = trellis_.quantiser[machine[l]];
      machine[l] = trellis_.next[machine[l]][static_cast<size_t>(n[l] & 1)];
      const size_t col = first + l;
      if (w_.layout.width == 8) {
        const int level = trellis_.Level(n[l], quantiser);
        const int kept = std::clamp(level, -kMostByteLevel, kMostByteLevel);
        codes[l] = static_cast<uint8_t>(kept + 128);
        if (kept != level && is_taken_[col] == 0) Add(r, col, level - kept);
      } else {
        codes[l] = CodeOf(n[l], w_.layout.width);
        if (is_taken_[col] == 0) TakeBeyond(r, col, n[l], codes[l], quantiser);
      }
    }
  }
  // A column whose levels stand apart; n: its integers, `lanes` apart.
  void TakeWhole(size_t col, const int16_t* n, size_t lanes) {
    const auto at = std::lower_bound(w_.taken.begin(), w_.taken.end(), static_cast<uint32_t>(col));
    const size_t i = static_cast<size_t>(at - w_.taken.begin());
    const int unit = w_.exception_unit;
    size_t machine = 0;
    for (size_t r = 0; r < rows_; ++r) {
      const int of_row = n[r * lanes], level = trellis_.Level(of_row, trellis_.quantiser[machine]);
      machine = trellis_.next[machine][static_cast<size_t>(of_row & 1)];
      // What 16 bits do not hold, in whole units.
      const int beyond = level - std::clamp(level, -32768, 32767);
      const int kept = level - (beyond + (beyond > 0 ? unit - 1 : 1 - unit)) / unit * unit;
      w_.taken_levels(tile_ * w_.layout.tile_rows + r, i) = static_cast<int16_t>(kept);
      codes_(r, col % kTrellisBlock) = w_.layout.width == 8 ? 128 : 0;
      if (kept != level) Add(r, col, level - kept);
    }
  }

  TrellisWeights& w_;
  const size_t tile_;
  const std::vector<uint8_t>& is_taken_;  // [cols]
  const Trellis& trellis_;
  const size_t rows_;
  Matrix<uint8_t> codes_;  // [rows, kTrellisBlock]
  std::vector<uint8_t> beyond_;  // [rows, kMostLanes]
  std::vector<Found> found_;
};

class TrellisOnProcessor : public ResidentForm {
 public:
  explicit TrellisOnProcessor(std::unique_ptr<const TrellisWeights> w)
      : weights_(std::move(w)), w_(*weights_), kernel_(BestTrellisKernel()) {}

  const char* name() const override { return "trellis"; }
  size_t outputs() const override { return w_.layout.rows; }
  size_t inputs() const override { return w_.layout.cols; }
  Device device() const override { return Device::Cpu(); }
  size_t bytes() const override { return w_.bytes(); }

  void Multiply(ConstTensor x_tensor, ConstTensor bias_tensor, Tensor y_tensor) const override {
    const MatrixView<const float> x = x_tensor.host<float>();
    const MatrixView<float> y = y_tensor.host<float>();
    MICA_CHECK(x.cols == inputs() && y.cols == outputs() && y.rows == x.rows);
    const float* bias = bias_tensor.empty() ? nullptr : bias_tensor.host<float>().data;
    thread_local TrellisInputs inputs;
    for (size_t first = 0; first < x.rows; first += kTokensTogether) {
      const size_t tokens = std::min(kTokensTogether, x.rows - first);
      TrellisInputs& rounded = inputs;
      RoundInputs(w_, x.Rows(first, tokens), rounded);
      ParallelFor(w_.layout.tiles(), [&](size_t tile) {
        const size_t rows = w_.layout.RowsOf(tile);
        float* sums = Scratch<float, 70>(rounded.tokens * rows);
        kernel_(w_, tile, rounded, 0, {sums, rounded.tokens, rows});
        for (size_t i = 0; i < tokens * rows; ++i) sums[i] += sums[tokens * rows + i];
        const size_t first_position = tile * w_.layout.tile_rows;
        for (size_t t = 0; t < tokens; ++t) {
          for (size_t r = 0; r < rows; ++r) {
            const float sum = sums[t * rows + r];
            const size_t row = w_.RowAt(first_position + r);
            y(first + t, row) = bias == nullptr ? sum : sum + bias[row];
          }
        }
      });
    }
  }

  void Rows(std::span<const int32_t> ids, Tensor out_tensor) const override {
    const MatrixView<float> out = out_tensor.host<float>();
    MICA_CHECK(out.rows == ids.size() && out.cols == inputs());
    // Found for a call: they would take as much memory as the order itself.
    std::vector<uint32_t> positions(w_.order.size());
    for (size_t p = 0; p < positions.size(); ++p) positions[w_.order[p]] = static_cast<uint32_t>(p);
    ParallelFor(ids.size(), [&](size_t i) {
      MICA_CHECK(ids[i] >= 0 && static_cast<size_t>(ids[i]) < outputs());
      const size_t row = static_cast<size_t>(ids[i]);
      Row(positions.empty() ? row : positions[row], out.row(i));
    });
  }

 private:
  void Row(size_t position, float* out) const {
    const TrellisLayout& layout = w_.layout;
    const Trellis& trellis = TrellisOf(layout.states);
    const size_t tile = position / layout.tile_rows, row = position % layout.tile_rows;
    const float scale = w_.row_scale[position];
    std::vector<int> levels(layout.blocks() * kTrellisBlock);
    for (size_t k = 0; k < layout.blocks(); ++k) {
      const uint8_t* bytes = w_.codes.data() + layout.Begin(tile, k);
      int* of_block = levels.data() + k * kTrellisBlock;
      uint8_t codes[kTrellisBlock], machine[kTrellisBlock] = {};
      for (size_t r = layout.width == 8 ? row : 0; r <= row; ++r) {
        UnpackRow(layout, tile, k, bytes, r, codes);
        for (size_t i = 0; i < kTrellisBlock; ++i) {
          if (layout.width == 8) {
            of_block[i] = codes[i] - 128;
            continue;
          }
          const int n = IntegerOfCode(codes[i], layout.width);
          of_block[i] = trellis.Level(n, trellis.quantiser[machine[i]]);
          machine[i] = trellis.next[machine[i]][static_cast<size_t>(n & 1)];
        }
      }
    }
    for (size_t i = 0; i < w_.taken.size(); ++i) levels[w_.taken[i]] += w_.taken_levels(position, i);
    const TrellisWeights::Exceptions& exceptions = w_.exceptions[tile];
    const TrellisException* items = exceptions.items.data();
    for (size_t r = 0; r < row; ++r) items += exceptions.CountOf(r);
    size_t col = 0;
    for (size_t i = 0; i < exceptions.CountOf(row); ++i) {
      col += static_cast<size_t>(ColsOf(items[i]));
      levels[col] += UnitsOf(items[i]) * w_.exception_unit;
    }
    for (size_t c = 0; c < layout.cols; ++c)
      out[c] = static_cast<float>(levels[c]) * (scale * EntropyStep(w_.col_step[c], kStepResolution));
  }

  std::unique_ptr<const TrellisWeights> weights_;
  const TrellisWeights& w_;
  TrellisKernel kernel_;
};

}  // namespace

size_t TrellisWeights::bytes() const {
  size_t sum = codes.size() + taken_levels.size() * sizeof(int16_t);
  sum += (order.size() + col_step.size()) * sizeof(uint16_t) +
         (row_scale.size() + taken.size()) * sizeof(uint32_t);
  for (const Exceptions& of_tile : exceptions)
    sum += sizeof(of_tile) + (of_tile.counts.size() + of_tile.items.size()) * sizeof(uint16_t);
  return sum;
}

bool HasTrellisForm(const EntropyParts& parts) {
  return parts.cols <= kMostTrellisCols && (parts.in_order || parts.rows <= kMostTrellisRows);
}

std::unique_ptr<const TrellisWeights> MakeTrellisWeights(const EntropyParts& parts,
                                                         const TrellisChoice& choice) {
  MICA_CHECK(HasTrellisForm(parts));
  auto made = std::make_unique<TrellisWeights>();
  TrellisWeights& w = *made;
  w.layout = {parts.rows, parts.cols, parts.tile_rows, parts.states, choice.width};
  if (choice.width != 8) w.tables = MakeTrellisTables(parts.states, choice.width);
  w.codes = Matrix<uint8_t>(1, w.layout.bytes());
  if (!parts.in_order) w.order.assign(parts.order.begin(), parts.order.end());
  w.row_scale.reserve(parts.rows);
  for (const uint32_t row : parts.order)
    w.row_scale.push_back(EntropyStep(parts.row_step[row], parts.row_resolution));
  w.col_step = parts.col_step;
  w.exception_unit = ExceptionUnit(parts.states, choice.width);
  w.taken = choice.taken;
  w.taken_levels = Matrix<int16_t>(parts.rows, choice.taken.size());
  w.exceptions.resize(w.layout.tiles());
  std::vector<uint8_t> is_taken(parts.cols, 0);
  for (const uint32_t c : choice.taken) is_taken[c] = 1;
  std::atomic<bool> fits = true;
  ParallelFor(w.layout.tiles(), [&](size_t tile) {
    TileMaker maker(w, tile, is_taken);
    const bool whole = DecodeTileCpu(
        parts, TileRows(parts, tile),
        [&](size_t first, size_t count, const int16_t* n) { maker.Take(first, count, parts.lanes, n); });
    if (!whole) FailTile(parts, tile);
    if (!maker.Finish()) fits = false;
  });
  return fits ? std::move(made) : nullptr;
}

uint64_t PlannedTrellisBytes(const EntropyParts& parts) {
  if (!HasTrellisForm(parts)) return uint64_t{sizeof(float)} * parts.rows * parts.cols;
  const TrellisChoice choice = ChooseTrellis(parts);
  const size_t tiles = CodedTiles(parts.rows, parts.tile_rows);
  const double weights = static_cast<double>(parts.rows) * static_cast<double>(parts.cols);
  // A scale of a row, how many exceptions it has and where it belongs.
  const size_t of_row = sizeof(float) + sizeof(uint16_t) + (parts.in_order ? 0 : sizeof(uint16_t));
  return static_cast<uint64_t>(choice.memory_bits * weights / 8) + parts.rows * of_row +
         parts.cols * sizeof(int16_t) + choice.taken.size() * sizeof(uint32_t) +
         tiles * sizeof(TrellisWeights::Exceptions);
}

std::unique_ptr<const ResidentForm> TrellisForm(const EntropyParts& parts) {
  std::unique_ptr<const TrellisWeights> made = MakeTrellisWeights(parts, ChooseTrellis(parts));
  if (made == nullptr) return nullptr;
  return std::make_unique<TrellisOnProcessor>(std::move(made));
}

namespace {

// What rounding left of all tokens, behind them.
void AddRest(std::span<const float> col_scale, MatrixView<const float> x, std::span<const uint32_t> begin,
             Int8Inputs& rounded) {
  const size_t cols = col_scale.size(), blocks = begin.size() - 1;
  static thread_local Matrix<float> left;
  if (left.rows() != x.rows || left.cols() != cols) left = Matrix<float>(x.rows, cols);
  Matrix<float>& rest = left;  // this thread's, for all
  ParallelFor(x.rows, [&](size_t t) {
    const int8_t* values = rounded.values.data() + t * rounded.stride;
    for (size_t k = 0; k < blocks; ++k) {
      const float scale = rounded.scales[t * blocks + k];
      for (size_t c = begin[k]; c < begin[k + 1]; ++c)
        rest(t, c) = x.row(t)[c] * col_scale[c] - scale * static_cast<float>(values[c]);
    }
  });
  static thread_local Int8Inputs more;
  RoundToInt8(std::as_const(rest), {}, {}, begin, rounded.stride, more);
  rounded.values.insert(rounded.values.end(), more.values.begin(), more.values.end());
  rounded.scales.insert(rounded.scales.end(), more.scales.begin(), more.scales.end());
  rounded.sums.insert(rounded.sums.end(), more.sums.begin(), more.sums.end());
}

}  // namespace

void RoundInputs(const TrellisWeights& w, MatrixView<const float> x, TrellisInputs& out) {
  const size_t blocks = w.layout.blocks(), cols = w.layout.cols;
  std::vector<uint32_t> begin;
  for (size_t k = 0; k <= blocks; ++k)
    begin.push_back(static_cast<uint32_t>(std::min(cols, k * kTrellisBlock)));
  // EntropyStep is the fraction's step times a power of two, which is exact.
  std::array<float, kStepResolution> fractions;
  for (int i = 0; i < kStepResolution; ++i)
    fractions[static_cast<size_t>(i)] = EntropyStep(i, kStepResolution);
  std::vector<float> col_scale(cols);
  for (size_t c = 0; c < cols; ++c) {
    const int step = w.col_step[c];
    const uint32_t bits =
        std::bit_cast<uint32_t>(fractions[static_cast<size_t>(step & (kStepResolution - 1))]);
    static_assert(kStepResolution == 8);
    col_scale[c] = std::bit_cast<float>(bits + (static_cast<uint32_t>(step >> 3) << 23));
  }
  RoundToInt8(x, col_scale, {}, begin, blocks * kTrellisBlock, out.rounded);
  AddRest(col_scale, x, begin, out.rounded);
  out.tokens = 2 * x.rows;
  const bool beside = !w.taken.empty() || std::any_of(w.exceptions.begin(), w.exceptions.end(),
                                                      [](const TrellisWeights::Exceptions& of_tile) {
                                                        return !of_tile.items.empty();
                                                      });
  if (!beside) {
    out.values = Matrix<float>();
    return;
  }
  const size_t width = out.value_stride(), portions = (out.tokens + width - 1) / width;
  if (out.values.rows() != portions || out.values.cols() != cols * width)
    out.values = Matrix<float>(portions, cols * width);
  ParallelFor(portions * blocks, [&](size_t index) {
    const size_t portion = index / blocks, k = index % blocks, first = portion * width;
    const size_t tokens = std::min(width, out.tokens - first);
    float scales[16] = {};
    for (size_t t = 0; t < tokens; ++t) scales[t] = out.rounded.scales[(first + t) * blocks + k];
    for (size_t c = begin[k]; c < begin[k + 1]; ++c) {
      float* to = out.values.row(portion) + c * width;
      for (size_t t = 0; t < tokens; ++t)
        to[t] = static_cast<float>(out.rounded.values[(first + t) * out.rounded.stride + c]) * scales[t];
      std::fill(to + tokens, to + width, 0.0f);
    }
  });
}

TrellisKernel BestTrellisKernel() {
  static const TrellisKernel kBest = TrellisKernelsOfAllTargets().back().multiply;
  return kBest;
}

}  // namespace mica
