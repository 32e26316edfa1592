// The oracle of SolveFixed with refine_passes 0: one column after the other in FP64, all rows alike, no
// blocks but those that masks have, no threads. It shares no code with the solver; orders, groups, masks,
// grids and their search follow compress/solver.h, compress/grid.h, docs/method.md (section 4) and
// docs/format.md. It knows which decisions are so close that FP32 may make them otherwise, and can move
// weights away from those.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "base/half.h"
#include "base/matrix.h"
#include "compress/fixed/solver.h"
#include "tests/compress/fixed/solved.h"

namespace mica {

struct ReferenceResult {
  FixedMatrix matrix;
  double predicted_loss = 0;  // sum of e^2 / U_jj^2
  double measured_loss = 0;   // tr((W - Q) H (W - Q)^T) with the undamped H
};

class Reference {
 public:
  // h with the damping of the settings must be positive definite. `w` is what Solve moves weights of; it must
  // outlive this.
  Reference(Matrix<float>& w, MatrixView<const float> h, const std::vector<uint8_t>& widths,
            const FixedOptions& settings)
      : w_(w), settings_(settings), rows_(w.rows()), cols_(w.cols()) {
    order_.resize(cols_);
    std::iota(order_.begin(), order_.end(), 0u);
    // Energies falling, then columns rising.
    std::sort(order_.begin(), order_.end(),
              [&](uint32_t a, uint32_t b) { return std::tuple(-h(a, a), a) < std::tuple(-h(b, b), b); });
    // Cells of consecutive columns: widths descending, whole ones first, then by the mean place of their
    // columns.
    const size_t cell = settings.sparsity.m > 0 ? static_cast<size_t>(settings.sparsity.m) : 1;
    std::vector<std::tuple<int, bool, size_t, size_t>> cells;
    for (size_t first = 0; first < cols_; first += cell) {
      size_t place = 0;
      for (size_t p = 0; p < cols_; ++p) place += order_[p] / cell == first / cell ? p : 0;
      cells.emplace_back(-widths[first], first + cell > cols_, place, first);
    }
    std::sort(cells.begin(), cells.end());
    order_.clear();
    for (const auto& [width, partial, place, first] : cells) {
      for (size_t j = first; j < std::min(cols_, first + cell); ++j)
        order_.push_back(static_cast<uint32_t>(j));
    }
    for (const uint32_t column : order_) {
      widths_.push_back(widths[column]);
      coded_ += widths[column] != 0;
      dead_.push_back(h(column, column) == 0);
    }
    MakeGroups();
    MakeBlocks();
    if (settings.sparsity.m == 0 && settings.sparsity.rate > 0) {
      mask_ = MaskKind::kBitmap;
      CountPruned();
    } else if (settings.sparsity.m != 0) {
      mask_ = settings.sparsity.m == 4 ? MaskKind::Cells(2, 4) : MaskKind::Cells(4, 8);
    }
    double most = 0;
    for (size_t i = 0; i < w.size(); ++i) most = std::max(most, std::fabs(double{w.data()[i]}));
    const bool scaled =
        std::any_of(groups_.begin(), groups_.end(), [](const Group& g) { return g.scaled(); });
    // The least power of two that no weight exceeds.
    while (scaled && std::exp2(exponent_) < most) ++exponent_;
    while (scaled && most > 0 && std::exp2(exponent_ - 1) >= most) --exponent_;
    MakeFactor(h);
  }

  // Solves the weights as they are. `doubtful` tells afterwards how many decisions were too close.
  ReferenceResult Solve() {
    doubtful_ = 0;
    Begin();
    double loss = 0;
    for (size_t j = 0; j < cols_; ++j) {
      for (const Block& block : blocks_) {
        if (block.start == j && mask_ == MaskKind::kBitmap && j < coded_) ChooseBlock(block);
      }
      const Group& group = GroupAt(j);
      for (size_t r = 0; r < rows_; ++r) {
        if (j == group.start && group.scaled()) {
          const size_t before = doubtful_;
          grids_[r] = FitGroup(group, r);
          if (doubtful_ > before) MoveGroup(group, r);
        }
        if (StartsCell(j)) {
          bool close = false;
          ChooseCell(j, working_.row(r), matrix_.keep.row(r), &close);
          if (close) ++doubtful_, MoveGroup({j, std::min(CellCols(), coded_ - j), 0, -1}, r);
        }
        loss += FixWeight(group, r, j);
      }
    }
    ReferenceResult result;
    result.predicted_loss = std::ldexp(loss, 2 * exponent_);
    result.measured_loss = std::ldexp(MeasuredLoss(), 2 * exponent_);
    result.matrix = std::move(matrix_);
    return result;
  }

  // Solves again and again, each time moving weights of doubtful decisions a little (in w), until there is
  // none; false when that takes too long.
  bool SolveClearly(ReferenceResult* result) {
    moves_ = true;
    for (passes_ = 1; passes_ <= 200; ++passes_) {
      *result = Solve();
      if (doubtful_ == 0) break;
    }
    moves_ = false;
    return doubtful_ == 0;
  }

  size_t doubtful() const { return doubtful_; }
  size_t moved() const { return moved_.size(); }
  int passes() const { return passes_; }

 private:
  // What FP32 may be off by, with room to spare: of a rounding, in steps (where |x| > 16 steps, |x| / 16
  // times as much); of an FP16 value, in its last place and relative to the size of weights; of sums of
  // errors and of scores, relative; of the rounding of a scale, in stored steps.
  static constexpr double kCloseCode = 2e-4, kCloseHalf = 2e-2, kCloseSum = 2e-6, kCloseError = 2e-5,
                          kCloseScore = 2e-4, kCloseScale = 1e-3;
  static constexpr size_t kBlock = 128;  // columns

  struct Group {
    size_t start, count;
    int bits;
    int scale_row;
    bool scaled() const { return scale_row >= 0; }
    bool large() const { return count > kBlock; }
  };
  struct Block {
    size_t start, end;
  };
  struct Grid {
    int scale = 1;  // code
    int zero = 0;
    bool operator==(const Grid&) const = default;
  };
  // A loss that depends on how close decisions fall.
  struct Range {
    double low = std::numeric_limits<double>::infinity(), high = 0;
    int ways = 0;
    void Add(double value) { low = std::min(low, value), high = std::max(high, value), ++ways; }
  };

  void MakeGroups() {
    int scale_rows = 0;
    for (size_t j = 0; j < cols_;) {
      Group group{j, 0, widths_[j], -1};
      while (j < cols_ && widths_[j] == group.bits && group.count < settings_.group_size) ++group.count, ++j;
      if (group.bits != 0 && group.bits != 16) group.scale_row = scale_rows++;
      groups_.push_back(group);
    }
  }

  // Columns of one width, at most 128: whole scale groups, or a part of a large one.
  void MakeBlocks() {
    bool open = false;  // whether the last block may get another group
    for (const Group& group : groups_) {
      const size_t end = group.start + group.count;
      if (open && widths_[blocks_.back().start] == group.bits && end - blocks_.back().start <= kBlock) {
        blocks_.back().end = end;
        continue;
      }
      for (size_t at = group.start; at < end; at += kBlock)
        blocks_.push_back({at, std::min(at + kBlock, end)});
      open = !group.large();
    }
  }

  // Weights that the columns before each one lose: all that the shares ask for, less what columns without a
  // width lose anyway, spread in proportion to the shares.
  void CountPruned() {
    std::vector<double> shares;
    for (const uint32_t column : order_) {
      shares.push_back(settings_.pruned_shares.empty() ? settings_.sparsity.rate
                                                       : settings_.pruned_shares[column]);
    }
    const double all = std::accumulate(shares.begin(), shares.end(), 0.0);
    const double of_coded =
        std::accumulate(shares.begin(), shares.begin() + static_cast<std::ptrdiff_t>(coded_), 0.0);
    // Sums of decimal shares are off by less.
    constexpr double kRounding = 1e-6;
    const auto rows = static_cast<double>(rows_);
    const double wanted =
        std::max(0.0, std::ceil(rows * all - kRounding) - rows * static_cast<double>(cols_ - coded_));
    pruned_before_.assign(coded_ + 1, 0);
    double sum = 0;
    for (size_t j = 0; j < coded_; ++j) {
      sum += shares[j];
      if (of_coded > 0) {
        pruned_before_[j + 1] =
            static_cast<int64_t>(j + 1 == coded_ ? wanted : std::floor(sum * wanted / of_coded + kRounding));
      }
    }
    // No column loses more weights than it has.
    for (size_t j = coded_; j-- > 0;)
      pruned_before_[j] = std::max(pruned_before_[j], pruned_before_[j + 1] - static_cast<int64_t>(rows_));
  }

  // U upper with H^-1 = U^T U, and what w^2 is multiplied with to give its score.
  void MakeFactor(MatrixView<const float> h) {
    double sum = 0;
    size_t alive = 0;
    for (size_t j = 0; j < cols_; ++j) sum += h(j, j), alive += h(j, j) != 0;
    const double base = alive > 0 ? sum / static_cast<double>(alive) : 1.0;
    undamped_ = Matrix<double>(cols_, cols_, 0.0);
    Matrix<double> work(cols_, cols_), inverse(cols_, cols_, 0.0);
    for (size_t i = 0; i < cols_; ++i) {
      for (size_t j = 0; j < cols_; ++j) {
        if (!dead_[i] && !dead_[j]) undamped_(i, j) = h(order_[i], order_[j]);
        work(i, j) = undamped_(i, j);
      }
      work(i, i) += (dead_[i] ? base : 0) + settings_.damping * work(i, i);
      inverse(i, i) = 1;
    }
    std::vector<double> damped(cols_);
    for (size_t i = 0; i < cols_; ++i) damped[i] = work(i, i);
    for (size_t p = 0; p < cols_; ++p) {  // Gauss-Jordan
      const double pivot = work(p, p);
      for (size_t j = 0; j < cols_; ++j) work(p, j) /= pivot, inverse(p, j) /= pivot;
      for (size_t i = 0; i < cols_; ++i) {
        const double factor = work(i, p);
        if (i == p || factor == 0) continue;
        for (size_t j = 0; j < cols_; ++j) {
          work(i, j) -= factor * work(p, j);
          inverse(i, j) -= factor * inverse(p, j);
        }
      }
    }
    u_ = Matrix<double>(cols_, cols_, 0.0);
    for (size_t i = 0; i < cols_; ++i) {
      for (size_t j = i; j < cols_; ++j) {
        double rest = inverse(i, j);
        for (size_t k = 0; k < i; ++k) rest -= u_(k, i) * u_(k, j);
        u_(i, j) = i == j ? std::sqrt(rest) : rest / u_(i, i);
      }
    }
    for (size_t j = 0; j < cols_; ++j) {
      // H_jj exp(-2 I_j) = 1 / U_jj^2, the variance given the columns still free.
      saliency_.push_back(std::pow(1 / (u_(j, j) * u_(j, j)), settings_.saliency_exponent) *
                          std::pow(damped[j], 1 - settings_.saliency_exponent));
    }
  }

  void Begin() {
    matrix_ = {};
    matrix_.rows = rows_;
    matrix_.cols = cols_;
    matrix_.group_size = settings_.group_size;
    matrix_.exponent = exponent_;
    matrix_.order = order_;
    matrix_.widths = widths_;
    matrix_.mask = mask_;
    matrix_.codes = Matrix<uint16_t>(rows_, cols_, 0);
    if (mask_ != MaskKind::kNone) matrix_.keep = Matrix<uint8_t>(rows_, cols_, 0);
    const auto scale_rows = static_cast<size_t>(
        std::count_if(groups_.begin(), groups_.end(), [](const Group& g) { return g.scaled(); }));
    matrix_.scales = Matrix<ScaleCode>(scale_rows, rows_);
    matrix_.zeros = Matrix<uint8_t>(scale_rows, rows_);
    grids_.assign(rows_, {});
    working_ = Matrix<double>(rows_, cols_);
    stored_ = Matrix<double>(rows_, cols_);
    for (size_t r = 0; r < rows_; ++r) {
      for (size_t j = 0; j < cols_; ++j)
        working_(r, j) = dead_[j] ? 0.0 : std::ldexp(double{w_(r, order_[j])}, -exponent_);
    }
    original_ = working_.Clone();
    size_ = 0;
    for (size_t i = 0; i < original_.size(); ++i) size_ += original_.data()[i] * original_.data()[i];
    size_ = std::sqrt(size_ / static_cast<double>(original_.size()));
  }

  const Group& GroupAt(size_t j) const {
    for (const Group& group : groups_) {
      if (j < group.start + group.count) return group;
    }
    return groups_.back();
  }

  // ---- weights that are moved

  // Changes the weight by a share of what it now is, at once and in w.
  void Move(size_t r, size_t j, double share) {
    if (!moves_ || dead_[j]) return;
    float& weight = w_(r, order_[j]);
    const auto to = static_cast<float>(weight + std::ldexp(share * working_(r, j), exponent_));
    const double change = std::ldexp(double{to} - double{weight}, -exponent_);
    working_(r, j) += change;
    original_(r, j) += change;
    weight = to;
    moved_.insert({r, j});
  }
  void MoveGroup(const Group& group, size_t r) {
    for (size_t j = group.start; j < group.start + group.count; ++j) Move(r, j, 2e-3 * uniform_(random_));
  }

  // ---- masks

  size_t CellCols() const {
    return mask_ == MaskKind::Cells(2, 4) ? 4 : mask_ == MaskKind::Cells(4, 8) ? 8 : 0;
  }
  bool StartsCell(size_t j) const { return CellCols() > 0 && j < coded_ && j % CellCols() == 0; }

  // The cell of n:m that starts at column j: the half of smallest score goes (of the columns that are left,
  // rounded down).
  void ChooseCell(size_t j, const double* w, uint8_t* keep, bool* close) const {
    const size_t count = std::min(CellCols(), coded_ - j), pruned = count / 2;
    std::vector<std::pair<double, size_t>> scores;
    for (size_t c = j; c < j + count; ++c) scores.push_back({w[c] * w[c] * saliency_[c], c});
    std::sort(scores.begin(), scores.end());
    for (size_t i = 0; i < count; ++i) keep[scores[i].second] = i >= pruned;
    if (pruned > 0 && pruned < count && scores[pruned].first > 0)
      *close |= scores[pruned].first - scores[pruned - 1].first < kCloseScore * scores[pruned].first;
  }

  // One threshold for all rows of the block; of equal scores the first in column order, then row order, go.
  void ChooseBlock(const Block& block) {
    struct Entry {
      double score;
      size_t j, r;
    };
    std::vector<Entry> entries;
    for (size_t j = block.start; j < block.end; ++j) {
      for (size_t r = 0; r < rows_; ++r) {
        const double importance =
            settings_.row_importance.empty() ? 1.0 : double{settings_.row_importance[r]};
        entries.push_back({importance * working_(r, j) * working_(r, j) * saliency_[j], j, r});
      }
    }
    std::stable_sort(entries.begin(), entries.end(),
                     [](const Entry& a, const Entry& b) { return a.score < b.score; });
    const auto pruned = static_cast<size_t>(pruned_before_[block.end] - pruned_before_[block.start]);
    for (size_t i = 0; i < entries.size(); ++i) matrix_.keep(entries[i].r, entries[i].j) = i >= pruned;
    if (pruned == 0 || pruned == entries.size() || entries[pruned].score == 0) return;
    const double threshold = entries[pruned].score;
    if (threshold - entries[pruned - 1].score > kCloseScore * threshold) return;
    ++doubtful_;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (std::fabs(entries[i].score - threshold) < 5 * kCloseScore * threshold)
        Move(entries[i].r, entries[i].j, i < pruned ? -1e-2 : 1e-2);
    }
  }

  // ---- grids

  // The scale that a stored code means, without the matrix's power of two.
  static double ScaleOf(int code) {
    return code < 16 ? std::ldexp(code, -18) : std::ldexp(16 + code % 16, code / 16 - 19);
  }

  // The grid over [low, high] of 2^bits points, at the nearest positive scale that can be stored.
  static Grid GridOver(double low, double high, int bits, bool* close) {
    const int most = (1 << bits) - 1;
    const double scale = (high - low) / most;
    Grid grid;
    for (int code = 2; code <= 255; ++code) {
      if (std::fabs(ScaleOf(code) - scale) < std::fabs(ScaleOf(grid.scale) - scale)) grid.scale = code;
    }
    for (const int other : {grid.scale - 1, grid.scale + 1}) {
      if (other < 1 || other > 255) continue;
      const double off = std::fabs(ScaleOf(other) - scale) - std::fabs(ScaleOf(grid.scale) - scale);
      *close |= off < kCloseScale * std::fabs(ScaleOf(other) - ScaleOf(grid.scale));
    }
    const double zero = -low / ScaleOf(grid.scale);
    grid.zero = static_cast<int>(std::clamp(std::nearbyint(zero), 0.0, static_cast<double>(most)));
    if (zero < most) *close |= IsClose(zero);
    return grid;
  }

  // Whether x is about halfway between two integers.
  static bool IsClose(double x) {
    return std::fabs(std::fabs(x - std::floor(x)) - 0.5) < kCloseCode * std::max(1.0, std::fabs(x) / 16);
  }

  static Grid Moved(const Grid& grid, int move, int bits) {
    Grid moved = grid;
    if (move == 0) moved.scale = std::min(grid.scale + 1, 255);
    if (move == 1) moved.scale = std::max(grid.scale - 1, 1);
    if (move == 2) moved.zero = std::min(grid.zero + 1, (1 << bits) - 1);
    if (move == 3) moved.zero = std::max(grid.zero - 1, 0);
    return moved;
  }

  // The code nearest to w; `other` is the second nearest where it is about as near, else the same.
  static int Code(double w, const Grid& grid, int bits, int* other) {
    const double x = w / ScaleOf(grid.scale);
    const auto clamped = [&](double level) {
      return static_cast<int>(std::clamp(level + grid.zero, 0.0, static_cast<double>((1 << bits) - 1)));
    };
    const double nearest = std::nearbyint(x);
    *other = clamped(IsClose(x) ? (nearest > x ? nearest - 1 : nearest + 1) : nearest);
    return clamped(nearest);
  }
  static double Value(int code, const Grid& grid) { return (code - grid.zero) * ScaleOf(grid.scale); }

  // Whether `candidate` is better than `best`; says when that is doubtful.
  static bool Better(const Range& candidate, const Range& best, bool* close) {
    if (candidate.low == best.low && candidate.high == best.high && candidate.ways == 1 && best.ways == 1)
      return false;  // the same values on both grids
    if (candidate.high < best.low * (1 - kCloseError)) return true;
    if (candidate.low > best.high * (1 + kCloseError)) return false;
    *close = true;
    return candidate.low < best.low;
  }

  // sum of e^2 / U_jj^2 over the kept weights of the group, each rounded alone.
  Range RoundingError(const Group& group, const double* w, const uint8_t* keep, const Grid& grid) const {
    double error = 0;
    for (size_t j = group.start; j < group.start + group.count; ++j) {
      if (keep != nullptr && keep[j] == 0) continue;
      int other;
      const double e = (w[j] - Value(Code(w[j], grid, group.bits, &other), grid)) / u_(j, j);
      error += e * e;
    }
    Range range;
    range.Add(error);
    return range;
  }

  // sum of e^2 / U_jj^2 over the columns of the group from j on, fixed one after the other on this grid, for
  // every way that doubtful roundings can fall.
  void Trial(const Group& group, const Grid& grid, size_t j, std::vector<double> w, std::vector<uint8_t> keep,
             double loss, Range* range, bool* close) const {
    constexpr int kMostWays = 64;
    const size_t end = group.start + group.count;
    for (; j < end; ++j) {
      if (StartsCell(j)) ChooseCell(j, w.data(), keep.data(), close);
      double value = 0;
      if (keep.empty() || keep[j] != 0) {
        int other;
        const int code = Code(w[j], grid, group.bits, &other);
        value = Value(code, grid);
        if (other != code) {
          if (range->ways > kMostWays) {
            *close = true;
          } else {
            std::vector<double> copy = w;
            const double added = Absorb(j, Value(other, grid), copy.data());
            Trial(group, grid, j + 1, copy, keep, loss + added, range, close);
          }
        }
      }
      loss += Absorb(j, value, w.data());
    }
    range->Add(loss);
  }

  // Feeds the error of storing `value` for w[j] to the later columns; returns e^2 / U_jj^2.
  double Absorb(size_t j, double value, double* w) const {
    const double error = (w[j] - value) / u_(j, j);
    for (size_t k = j + 1; k < cols_; ++k) w[k] -= error * u_(j, k);
    return error * error;
  }

  // The grid of the group in row r, on weights that have all updates from before the group.
  Grid FitGroup(const Group& group, size_t r) {
    bool close = false;
    const double* w = working_.row(r);
    std::vector<uint8_t> keep;
    if (mask_ != MaskKind::kNone && !group.large()) {
      keep.assign(matrix_.keep.row(r), matrix_.keep.row(r) + cols_);
      // As far as can be said before the columns are reached.
      for (size_t j = group.start; j < group.start + group.count; ++j) {
        if (StartsCell(j)) ChooseCell(j, w, keep.data(), &close);
      }
    }
    const uint8_t* mask = keep.empty() ? nullptr : keep.data();
    double low = 0, high = 0;
    for (size_t j = group.start; j < group.start + group.count; ++j) {
      if (mask != nullptr && mask[j] == 0) continue;
      low = std::min(low, w[j]);
      high = std::max(high, w[j]);
    }
    Grid best;
    Range best_error;
    const auto consider = [&](const Grid& candidate, const Range& error) {
      if (best_error.ways > 0 && (candidate == best || !Better(error, best_error, &close))) return;
      best = candidate;
      best_error = error;
    };
    // 24 ranges from all of it down to the shortest that can pay.
    const double shortest = group.bits == 2 ? 0.3 : group.bits == 3 ? 0.4 : group.bits == 4 ? 0.55 : 0.75;
    for (int step = 0; step < 24; ++step) {
      const double share = 1 - (1 - shortest) * step / 23;
      const Grid candidate = GridOver(low * share, high * share, group.bits, &close);
      consider(candidate, RoundingError(group, w, mask, candidate));
    }
    // Then moves of the best so far, by the loss that the columns leave, or (large groups, or no such search)
    // by the rounding error.
    const bool trials = settings_.search_rounds > 0 && !group.large();
    const auto measure = [&](const Grid& grid) {
      if (!trials) return RoundingError(group, w, mask, grid);
      Range range;
      Trial(group, grid, group.start, {w, w + cols_}, keep, 0, &range, &close);
      return range;
    };
    best_error = measure(best);
    for (int round = 0; round < (trials ? settings_.search_rounds : 3); ++round) {
      for (int move = 0; move < 4; ++move) {
        const Grid candidate = Moved(best, move, group.bits);
        consider(candidate, measure(candidate));
      }
    }
    doubtful_ += close;
    matrix_.scales(static_cast<size_t>(group.scale_row), r) = {static_cast<uint8_t>(best.scale)};
    matrix_.zeros(static_cast<size_t>(group.scale_row), r) = static_cast<uint8_t>(best.zero);
    return best;
  }

  // ---- weights

  double FixWeight(const Group& group, size_t r, size_t j) {
    double value = 0;
    const bool kept = group.bits != 0 && (mask_ == MaskKind::kNone || matrix_.keep(r, j) != 0);
    if (kept && group.bits == 16) {
      double place = 0, x = 0;
      // Whether rounding is in doubt: what is left of a weight after much feedback may be small against the
      // errors of that.
      const auto is_close = [&] {
        int power;
        std::frexp(working_(r, j), &power);
        place = std::ldexp(1.0, std::max(power - 11, -24));
        x = working_(r, j) / place;
        return !dead_[j] && std::fabs(std::fabs(x - std::floor(x)) - 0.5) <
                                std::max(kCloseHalf, kCloseSum * size_ / place);
      };
      for (int i = 0; i < 50 && is_close(); ++i) {
        ++doubtful_;
        if (!moves_) break;
        const double by = std::max(place, 1e-2 * size_ * (kCloseSum * size_ > kCloseHalf * place));
        Move(r, j, by * uniform_(random_) / working_(r, j));
      }
      value = std::nearbyint(x) * place;
      matrix_.codes(r, j) = ToF16(static_cast<float>(value)).bits;
    } else if (kept) {
      int other;
      const int code = Code(working_(r, j), grids_[r], group.bits, &other);
      if (other != code) ++doubtful_, MoveGroup(group, r);
      value = Value(code, grids_[r]);
      matrix_.codes(r, j) = static_cast<uint16_t>(code);
    }
    stored_(r, j) = value;
    return Absorb(j, value, working_.row(r));
  }

  double MeasuredLoss() const {
    double loss = 0;
    for (size_t r = 0; r < rows_; ++r) {
      for (size_t i = 0; i < cols_; ++i) {
        double sum = 0;
        for (size_t j = 0; j < cols_; ++j) sum += undamped_(i, j) * (original_(r, j) - stored_(r, j));
        loss += (original_(r, i) - stored_(r, i)) * sum;
      }
    }
    return loss;
  }

  Matrix<float>& w_;
  const FixedOptions& settings_;
  const size_t rows_, cols_;
  size_t coded_ = 0;
  int exponent_ = 0;
  std::vector<uint32_t> order_;
  std::vector<uint8_t> widths_;
  std::vector<bool> dead_;
  std::vector<Group> groups_;
  std::vector<Block> blocks_;
  MaskKind mask_ = MaskKind::kNone;
  std::vector<int64_t> pruned_before_;
  double size_ = 0;  // root mean square of the weights
  Matrix<double> undamped_, u_, original_, working_, stored_;
  std::vector<double> saliency_;
  std::vector<Grid> grids_;  // [rows] of the group at hand
  FixedMatrix matrix_;
  bool moves_ = false;
  std::set<std::pair<size_t, size_t>> moved_;
  size_t doubtful_ = 0;
  int passes_ = 0;
  std::mt19937 random_{1};
  std::uniform_real_distribution<double> uniform_{-1, 1};
};

}  // namespace mica
