// Per matrix, columns are sorted by sensitivity; at any price of a bit the widths then fall along that order,
// so a matrix is described by where each width ends. (1) At a given price, a small dynamic programme over
// possible ends finds the best ends, counting scale groups as they are stored. (2) The price is bisected
// until the whole model fits the budget. (3) What is left is filled by moving single columns (or channel
// groups) up, best gain a bit first.
#include "compress/budget/allocation.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <queue>
#include <utility>

#include "base/error.h"
#include "base/threads.h"
#include "compress/budget/sparsity_plan.h"
#include "format/fixed/layout.h"
#include "format/fixed/scale_code.h"
#include "format/mask/sparsity_pattern.h"
#include "format/stored_bits.h"
#include "io/packed/packed_checkpoint.h"

namespace mica {
namespace {

// Ends that the dynamic programme may choose from, at most; its time is quadratic in them.
constexpr size_t kMostEnds = 128;
// Bits per weight that may be left over rather than split another channel group.
constexpr double kCloseEnough = 0.005;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Where each option's columns end: columns [ends[k - 1], ends[k]) of the sorted order have the width
// options[k].
using Ends = std::vector<size_t>;

// One matrix with its columns in the order in which widths fall.
class SortedMatrix {
 public:
  SortedMatrix(const MatrixDemand& demand, const std::vector<uint8_t>& options, size_t group_size);

  const MatrixDemand& demand() const { return *demand_; }
  size_t cols() const { return demand_->cols; }
  uint64_t weights() const { return uint64_t{demand_->rows} * demand_->cols; }
  const std::vector<uint32_t>& order() const { return order_; }
  bool grouped() const { return !demand_->group.empty(); }
  // Columns of a cell of an n:m mask share a width: sorted order and ends take them together.
  size_t cell() const { return demand_->mask.CellCols(); }
  // Where what sorted column i belongs to ends: its channel group, else its cell.
  size_t UnitEnd(size_t i) const { return *std::upper_bound(units_.begin(), units_.end(), i); }

  // Loss of sorted columns [first, last) at option k.
  double Loss(size_t k, size_t first, size_t last) const {
    return options_[k] == 0 ? zero_[last] - zero_[first]
                            : (sensitive_[last] - sensitive_[first]) * factor_[k];
  }
  double Loss(const Ends& ends) const;
  // What sorted columns [first, last) at option k store, nearly: what the dynamic programme minimises with.
  double Price(size_t k, size_t first, size_t last) const;
  uint64_t CodeBits(const Ends& ends) const;
  uint64_t StoredBits(const Ends& ends) const;
  // The ends that minimise loss + price * bits.
  Ends Best(double price) const;

 private:
  void Sort();
  std::vector<uint64_t> KeptPerColumn(const std::vector<uint8_t>& widths) const;

  const MatrixDemand* demand_;
  const std::vector<uint8_t>& options_;  // falling
  size_t group_size_;
  std::vector<uint32_t> order_;     // sorted position -> original column
  std::vector<size_t> units_;       // where channel groups (without them, cells) start, and cols at the end
  std::vector<size_t> candidates_;  // ends to choose from: 0, ..., cols
  std::vector<double> shares_;      // of sorted columns' weights that a bitmap prunes
  bool equal_shares_ = true;
  // [cols + 1] sums over the first i sorted columns
  std::vector<double> sensitive_, zero_, pruned_;
  std::vector<double> factor_;  // 4^-options
};

SortedMatrix::SortedMatrix(const MatrixDemand& demand, const std::vector<uint8_t>& options, size_t group_size)
    : demand_(&demand), options_(options), group_size_(group_size) {
  MICA_CHECK(demand.rows > 0);
  MICA_CHECK(demand.cols > 0);
  MICA_CHECK(demand.sensitivity.size() == demand.cols);
  MICA_CHECK(demand.zero_loss.size() == demand.cols);
  MICA_CHECK(demand.group.empty() || demand.group.size() == demand.cols);
  MICA_CHECK(demand.mask != MaskKind::kBitmap || demand.pruned_shares.size() == demand.cols);
  Sort();
  sensitive_.assign(1, 0.0);
  zero_.assign(1, 0.0);
  pruned_.assign(1, 0.0);
  for (const uint32_t column : order_) {
    const double sensitivity = demand.sensitivity[column], zero = demand.zero_loss[column];
    if (!(sensitivity >= 0 && zero >= 0 && std::isfinite(sensitivity) && std::isfinite(zero))) {
      Fail("{}: column {} has sensitivity {} and pruning loss {}, expected finite numbers from 0 on",
           demand.name, column, sensitivity, zero);
    }
    sensitive_.push_back(sensitive_.back() + sensitivity);
    zero_.push_back(zero_.back() + zero);
    shares_.push_back(demand.mask == MaskKind::kBitmap ? demand.pruned_shares[column] : 0.0);
    equal_shares_ = equal_shares_ && shares_.back() == shares_.front();
    pruned_.push_back(pruned_.back() + shares_.back());
  }
  for (const uint8_t option : options_) factor_.push_back(std::ldexp(1.0, -2 * option));
  // Without channel groups, ends that divide scale groups evenly; with them, their boundaries.
  std::vector<size_t> possible = units_;
  if (!grouped()) {
    size_t step = std::min(group_size_, cols());
    while (step > 1 && cols() / ((step + 1) / 2) <= kMostEnds) step = (step + 1) / 2;
    step = (step + cell() - 1) / cell() * cell();
    possible.clear();
    for (size_t end = 0; end < cols(); end += step) possible.push_back(end);
    possible.push_back(cols());
  }
  const size_t stride = (possible.size() + kMostEnds - 1) / kMostEnds;
  for (size_t i = 0; i + 1 < possible.size(); i += stride) candidates_.push_back(possible[i]);
  candidates_.push_back(cols());
}

void SortedMatrix::Sort() {
  const std::vector<double>& sensitivity = demand_->sensitivity;
  // A cell belongs to the channel group of most of its columns; one that is not whole comes last.
  struct Cell {
    size_t first, end;
    bool whole;
    uint32_t group;
    double mean, unit_mean;  // of its columns, and of its channel group's cells
  };
  std::vector<Cell> cells;
  std::vector<double> sum, count;  // by group
  for (size_t first = 0; first < cols(); first += cell()) {
    const size_t end = std::min(cols(), first + cell());
    Cell one{first, end, end - first == cell(), 0, 0, 0};
    for (size_t j = first; j < end; ++j) one.mean += sensitivity[j] / static_cast<double>(end - first);
    one.unit_mean = one.mean;
    if (grouped()) {
      const std::vector<uint32_t>& group = demand_->group;
      const auto members = [&](size_t j) { return std::count(&group[first], &group[0] + end, group[j]); };
      size_t most = first;
      for (size_t j = first; j < end; ++j) {
        if (members(j) > members(most)) most = j;
      }
      one.group = group[most];
      if (one.group >= sum.size()) {
        sum.resize(one.group + 1, 0.0);
        count.resize(one.group + 1, 0.0);
      }
      sum[one.group] += one.mean;
      count[one.group] += 1;
    }
    cells.push_back(one);
  }
  if (grouped()) {
    for (Cell& one : cells) one.unit_mean = sum[one.group] / count[one.group];
  }
  std::stable_sort(cells.begin(), cells.end(), [&](const Cell& a, const Cell& b) {
    if (a.whole != b.whole) return a.whole;
    if (a.unit_mean != b.unit_mean) return a.unit_mean > b.unit_mean;
    if (a.group != b.group) return a.group < b.group;
    return a.mean > b.mean;
  });
  for (size_t i = 0; i < cells.size(); ++i) {
    if (i == 0 || !grouped() || cells[i].group != cells[i - 1].group || !cells[i].whole)
      units_.push_back(order_.size());
    for (size_t j = cells[i].first; j < cells[i].end; ++j) order_.push_back(static_cast<uint32_t>(j));
  }
  units_.push_back(cols());
}

double SortedMatrix::Loss(const Ends& ends) const {
  double loss = 0;
  for (size_t k = 0; k < ends.size(); ++k) loss += Loss(k, k == 0 ? 0 : ends[k - 1], ends[k]);
  return loss;
}

double SortedMatrix::Price(size_t k, size_t first, size_t last) const {
  const size_t n = last - first;
  if (n == 0 || options_[k] == 0) return 0;
  const double rows = static_cast<double>(demand_->rows), bits = options_[k];
  const MaskKind& marks = demand_->mask;
  double mask = marks.column_bits, kept = 1;
  if (marks == MaskKind::kBitmap) kept = 1 - (pruned_[last] - pruned_[first]) / static_cast<double>(n);
  if (marks.cols > 0) {
    mask = static_cast<double>(marks.cell_bits) / static_cast<double>(marks.cols);
    kept = static_cast<double>(marks.kept) / static_cast<double>(marks.cols);
  }
  const double scale_groups = bits < 16 ? static_cast<double>((n + group_size_ - 1) / group_size_) : 0.0;
  return rows * ((bits * kept + mask) * static_cast<double>(n) + (kScaleBits + bits) * scale_groups);
}

uint64_t SortedMatrix::CodeBits(const Ends& ends) const {
  uint64_t bits = 0;
  for (size_t k = 0; k < ends.size(); ++k)
    bits += uint64_t{options_[k]} * (ends[k] - (k == 0 ? 0 : ends[k - 1]));
  return bits * demand_->rows;
}

// Weights with a code, by stored column, for accounting: sums over whole scale groups and widths are what the
// solver keeps, or above.
std::vector<uint64_t> SortedMatrix::KeptPerColumn(const std::vector<uint8_t>& widths) const {
  const size_t rows = demand_->rows;
  const size_t coded = static_cast<size_t>(std::find(widths.begin(), widths.end(), 0) - widths.begin());
  std::vector<uint64_t> kept(cols(), 0);
  if (demand_->mask == MaskKind::kBitmap) {
    const std::vector<uint64_t> before = PrunedBefore(rows, shares_, coded);
    for (size_t p = 0; p < coded; ++p) kept[p] = rows - (before[p + 1] - before[p]);
    return kept;
  }
  const MaskKind& mask = demand_->mask;
  for (size_t start = 0; start < coded; start += mask.cols) {
    const size_t end = std::min(start + mask.cols, coded), most = end - start - mask.Pruned(end - start);
    // Which columns of the cell keep their codes is the solver's choice: the widest ones at most.
    for (size_t p = start; p < start + most; ++p) kept[p] = rows;
  }
  return kept;
}

uint64_t SortedMatrix::StoredBits(const Ends& ends) const {
  std::vector<uint8_t> widths(cols());
  for (size_t k = 0, first = 0; k < ends.size(); first = ends[k++]) {
    std::fill(widths.begin() + static_cast<ptrdiff_t>(first),
              widths.begin() + static_cast<ptrdiff_t>(ends[k]), options_[k]);
  }
  if (demand_->mask == MaskKind::kNone) {
    return FixedStoredBits(demand_->rows, widths, group_size_, demand_->mask, {}, false,
                           demand_->col_exponents)
        .total();
  }
  const mica::StoredBits bits = FixedStoredBits(demand_->rows, widths, group_size_, demand_->mask,
                                                KeptPerColumn(widths), false, demand_->col_exponents);
  // Where masks are not chosen scale group by scale group, the padding of each is not known.
  const bool known = demand_->mask == MaskKind::kBitmap && group_size_ >= 128 && equal_shares_;
  const uint64_t unknown = known ? 0 : 128 * (cols() / group_size_ + options_.size());
  return bits.total() + unknown;
}

Ends SortedMatrix::Best(double price) const {
  const size_t n = candidates_.size();
  // least[k][i]: the best cost of the first candidates_[i] columns with options 0 .. k; from[k][i]: where
  // option k then begins.
  std::vector<std::vector<double>> least(options_.size(), std::vector<double>(n, kInfinity));
  std::vector<std::vector<size_t>> from(options_.size(), std::vector<size_t>(n, 0));
  for (size_t k = 0; k < options_.size(); ++k) {
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j <= (k == 0 ? 0 : i); ++j) {
        const size_t first = candidates_[j], last = candidates_[i];
        const double before = k == 0 ? 0 : least[k - 1][j];
        const double cost = before + Loss(k, first, last) + price * Price(k, first, last);
        if (cost < least[k][i]) {
          least[k][i] = cost;
          from[k][i] = j;
        }
      }
    }
  }
  Ends ends(options_.size());
  size_t i = n - 1;
  for (size_t k = options_.size(); k-- > 0;) {
    ends[k] = candidates_[i];
    i = from[k][i];
  }
  return ends;
}

class Allocator {
 public:
  Allocator(const std::vector<MatrixDemand>& matrices, const AllocationSettings& settings)
      : settings_(settings) {
    options_ = settings.options;
    for (const uint8_t option : options_) {
      if (!IsKnownWidth(option))
        Fail("bit option {} is unknown, expected some of 0, 2, 3, 4, 6, 8, 16", option);
    }
    if (options_.empty()) Fail("no bit options are given, expected some of 0, 2, 3, 4, 6, 8, 16");
    if (!(settings.budget >= 0 && std::isfinite(settings.budget)))
      Fail("the bit budget is {}, expected a number from 0 on", settings.budget);
    if (settings.group_size == 0) Fail("group size is 0, expected at least 1");
    std::sort(options_.begin(), options_.end(), std::greater<>());
    options_.erase(std::unique(options_.begin(), options_.end()), options_.end());
    MICA_CHECK(!matrices.empty());
    std::vector<std::optional<SortedMatrix>> sorted(matrices.size());
    ParallelFor(matrices.size(), [&](size_t m) { sorted[m].emplace(matrices[m], options_, settings.group_size); });
    matrices_.reserve(matrices.size());
    for (std::optional<SortedMatrix>& matrix : sorted) {
      matrices_.push_back(std::move(*matrix));
      weights_ += matrices_.back().weights();
    }
    // The budget in bits; a millionth of a bit a matrix forgives the rounding of decimal budgets.
    const double bits =
        settings.budget * static_cast<double>(weights_) + 1e-6 * static_cast<double>(matrices.size());
    budget_ = static_cast<uint64_t>(std::clamp(bits, 0.0, 1e18));
  }

  Reach Reachable() const {
    return {PerWeight(Total(AllAt(options_.size() - 1))), PerWeight(Total(AllAt(0)))};
  }

  Allocation Run() {
    CheckReach();
    ends_ = BestWithinBudget();
    Fill();
    return Result();
  }

 private:
  uint64_t Measure(size_t m, const Ends& ends) const {
    return settings_.kind == BudgetKind::kMeanCodeBits ? matrices_[m].CodeBits(ends)
                                                       : matrices_[m].StoredBits(ends);
  }
  uint64_t Total(const std::vector<Ends>& ends) const {
    uint64_t total = 0;
    for (size_t m = 0; m < ends.size(); ++m) total += Measure(m, ends[m]);
    return total;
  }
  double PerWeight(uint64_t bits) const { return static_cast<double>(bits) / static_cast<double>(weights_); }

  std::vector<Ends> AllAt(size_t option) const {
    std::vector<Ends> ends;
    for (const SortedMatrix& matrix : matrices_) {
      ends.emplace_back(options_.size(), matrix.cols());
      std::fill_n(ends.back().begin(), option, size_t{0});
    }
    return ends;
  }

  void CheckReach() const {
    const uint64_t least = Total(AllAt(options_.size() - 1)), most = Total(AllAt(0));
    const bool over = settings_.budget * static_cast<double>(weights_) >
                      static_cast<double>(most) + 0.01 * static_cast<double>(weights_);
    if (budget_ >= least && !over) return;
    const char* const kind =
        settings_.kind == BudgetKind::kMeanCodeBits ? "mean code bits" : "stored bits per weight";
    if (least == most) {
      Fail("a budget of {:.6g} {} is out of reach: bit widths {} take {:.4f}", settings_.budget, kind,
           fmt::join(settings_.options, ","), PerWeight(most));
    }
    // Rounded so that what is named is possible.
    Fail("a budget of {:.6g} {} is out of reach: bit widths {} allow {:.3f} to {:.3f}", settings_.budget,
         kind, fmt::join(settings_.options, ","), std::ceil(PerWeight(least) * 1000) / 1000,
         std::floor(PerWeight(most) * 1000) / 1000);
  }

  std::vector<Ends> BestAt(double price) const {
    std::vector<Ends> ends(matrices_.size());
    ParallelFor(matrices_.size(), [&](size_t m) { ends[m] = matrices_[m].Best(price); });
    return ends;
  }

  // The price is bisected on a logarithmic scale between one at which every bit pays and one at which none
  // does.
  std::vector<Ends> BestWithinBudget() const {
    double largest = 0;
    for (const SortedMatrix& matrix : matrices_) {
      for (size_t j = 0; j < matrix.cols(); ++j) {
        largest = std::max({largest, matrix.demand().sensitivity[j], matrix.demand().zero_loss[j]});
      }
    }
    if (!(largest > 0)) return AllAt(options_.size() - 1);
    double cheap = std::log2(largest) - 120, dear = std::log2(largest) + 10;
    std::vector<Ends> best = AllAt(options_.size() - 1);
    uint64_t best_bits = Total(best);
    for (int step = 0; step < 48; ++step) {
      const double middle = (cheap + dear) / 2;
      std::vector<Ends> ends = BestAt(std::exp2(middle));
      const uint64_t bits = Total(ends);
      if (bits > budget_) {
        cheap = middle;
        continue;
      }
      dear = middle;
      if (bits >= best_bits) {
        best = std::move(ends);
        best_bits = bits;
      }
    }
    return best;
  }

  // The first `count` columns of the segment of option `low` become option `high`; options between are empty.
  struct Move {
    size_t matrix = 0, high = 0, low = 0, count = 0;
    double ratio = 0;  // loss saved for each bit that is stored more
    uint64_t version = 0;
    bool operator<(const Move& other) const {  // for a heap with the best on top, ties in order of matrices
      if (ratio != other.ratio) return ratio < other.ratio;
      if (matrix != other.matrix) return matrix > other.matrix;
      return high < other.high;
    }
  };

  static size_t Start(const Ends& ends, size_t k) { return k == 0 ? 0 : ends[k - 1]; }

  static Ends After(Ends ends, const Move& move, size_t count) {
    for (size_t k = move.high; k < move.low; ++k) ends[k] += count;
    return ends;
  }

  double Gain(const Move& move, size_t count) const {
    const size_t first = Start(ends_[move.matrix], move.low);
    const SortedMatrix& matrix = matrices_[move.matrix];
    return matrix.Loss(move.low, first, first + count) - matrix.Loss(move.high, first, first + count);
  }

  // Bits more in the budget's measure; may be negative when a scale group falls away.
  int64_t Cost(const Move& move, size_t count) const {
    const Ends& now = ends_[move.matrix];
    return static_cast<int64_t>(Measure(move.matrix, After(now, move, count))) -
           static_cast<int64_t>(Measure(move.matrix, now));
  }

  double Ratio(const Move& move) const {
    const Ends& now = ends_[move.matrix];
    const auto bits = static_cast<double>(matrices_[move.matrix].StoredBits(After(now, move, move.count))) -
                      static_cast<double>(matrices_[move.matrix].StoredBits(now));
    const double gain = Gain(move, move.count);
    return bits > 0 ? gain / bits : kInfinity;
  }

  // The moves of one matrix: the head of each width's columns to the next width above that is in use, or to
  // one between.
  template <typename Visit>
  void ForMoves(size_t m, const Visit& visit) const {
    const Ends& ends = ends_[m];
    for (size_t low = 1; low < options_.size(); ++low) {
      const size_t first = Start(ends, low);
      if (first == ends[low]) continue;
      for (size_t high = low; high-- > 0;) {
        Move move{m, high, low, 1, 0, versions_[m]};
        move.count = std::min(matrices_[m].UnitEnd(first), ends[low]) - first;
        move.ratio = Ratio(move);
        if (Gain(move, move.count) >= 0) visit(move);
        if (Start(ends, high) != ends[high]) break;
      }
    }
  }

  bool Fits(const Move& move, size_t count) const {
    return Cost(move, count) <= static_cast<int64_t>(budget_ - used_);
  }

  bool Apply(const Move& move, size_t count) {
    const int64_t cost = Cost(move, count);
    if (cost > static_cast<int64_t>(budget_ - used_)) return false;
    ends_[move.matrix] = After(std::move(ends_[move.matrix]), move, count);
    used_ = static_cast<uint64_t>(static_cast<int64_t>(used_) + cost);
    ++versions_[move.matrix];
    return true;
  }

  // How many columns to move at once: those that would be next in any case, as each is worth no less than the
  // best other move.
  size_t Batch(const Move& move, double next_ratio) const {
    const SortedMatrix& matrix = matrices_[move.matrix];
    const size_t first = Start(ends_[move.matrix], move.low), most = ends_[move.matrix][move.low] - first;
    const double bits =
        static_cast<double>(matrix.demand().rows) * (options_[move.high] - options_[move.low]);
    const auto worth = [&](size_t i) {
      return (matrix.Loss(move.low, first + i, first + i + 1) -
              matrix.Loss(move.high, first + i, first + i + 1)) /
             bits;
    };
    // Whole cells, but for what is left over at the end.
    const auto whole = [&](size_t count) {
      return count >= most ? most : std::max(count / matrix.cell(), size_t{1}) * matrix.cell();
    };
    size_t count = std::min(most, matrix.cell());
    while (count < most && worth(count) >= next_ratio) ++count;
    count = whole(count);
    while (count > matrix.cell() && !Fits(move, count)) count = whole(count / 2);
    return count;
  }

  void Fill() {
    used_ = Total(ends_);
    versions_.assign(matrices_.size(), 0);
    std::priority_queue<Move> heap;
    std::vector<Move> unfit;  // channel groups that no longer fit as a whole
    for (size_t m = 0; m < matrices_.size(); ++m) ForMoves(m, [&](const Move& move) { heap.push(move); });
    while (!heap.empty() && used_ < budget_) {
      const Move move = heap.top();
      heap.pop();
      if (move.version != versions_[move.matrix]) continue;
      const size_t count =
          matrices_[move.matrix].grouped() ? move.count : Batch(move, heap.empty() ? 0.0 : heap.top().ratio);
      if (!Apply(move, count)) {
        if (move.count > matrices_[move.matrix].cell()) unfit.push_back(move);
        continue;
      }
      ForMoves(move.matrix, [&](const Move& next) { heap.push(next); });
    }
    // Split groups, the best first; the first takes all that is left, unless a new scale group is in its way.
    std::stable_sort(unfit.begin(), unfit.end(), [](const Move& a, const Move& b) { return b < a; });
    for (const Move& move : unfit) {
      if (static_cast<double>(budget_ - used_) < kCloseEnough * static_cast<double>(weights_)) break;
      if (move.version != versions_[move.matrix]) continue;
      size_t count = 0;
      const size_t cell = matrices_[move.matrix].cell();
      for (size_t step = std::bit_floor(move.count / cell) * cell; step > 0; step = step / cell / 2 * cell) {
        if (count + step <= move.count && Fits(move, count + step)) count += step;
      }
      if (count > 0) Apply(move, count);
    }
  }

  Allocation Result() const {
    Allocation allocation;
    uint64_t code_bits = 0, stored_bits = 0;
    for (size_t m = 0; m < matrices_.size(); ++m) {
      const SortedMatrix& matrix = matrices_[m];
      std::vector<uint8_t>& widths = allocation.widths.emplace_back(matrix.cols());
      for (size_t k = 0; k < options_.size(); ++k) {
        for (size_t i = Start(ends_[m], k); i < ends_[m][k]; ++i) widths[matrix.order()[i]] = options_[k];
      }
      code_bits += matrix.CodeBits(ends_[m]);
      stored_bits += matrix.StoredBits(ends_[m]);
      allocation.predicted_loss += matrix.Loss(ends_[m]);
    }
    allocation.mean_code_bits = PerWeight(code_bits);
    allocation.bits_per_weight = PerWeight(stored_bits);
    return allocation;
  }

  const AllocationSettings& settings_;
  std::vector<uint8_t> options_;  // falling
  std::vector<SortedMatrix> matrices_;
  uint64_t weights_ = 0;
  uint64_t budget_ = 0;
  uint64_t used_ = 0;
  std::vector<Ends> ends_;          // [matrices]
  std::vector<uint64_t> versions_;  // [matrices] moves made so far
};

}  // namespace

Reach ReachOf(const std::vector<MatrixDemand>& matrices, const AllocationSettings& settings) {
  return Allocator(matrices, settings).Reachable();
}

Allocation Allocate(const std::vector<MatrixDemand>& matrices, const AllocationSettings& settings) {
  return Allocator(matrices, settings).Run();
}

}  // namespace mica
