#include "compress/fixed/solver_reference.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "compress/fixed/plan.h"
#include "format/mask/sparsity_pattern.h"
#include "ops/feedback/solver_state.h"
#include "ops/grid/grid.h"

namespace mica {
namespace {

// Upper U with H^-1 = U^T U by the textbook: H = L L^T of the reversed matrix, U = L^-1 reversed.
template <typename T>
Matrix<T> InverseFactor(const Matrix<T>& h) {
  const size_t n = h.rows();
  Matrix<T> l(n, n, T{0}), u(n, n, T{0});
  for (size_t j = 0; j < n; ++j) {
    for (size_t i = j; i < n; ++i) {
      T sum = h(n - 1 - i, n - 1 - j);
      for (size_t k = 0; k < j; ++k) sum -= l(i, k) * l(j, k);
      if (i == j && !(sum > 0)) Fail("second moments are not positive definite");
      l(i, j) = i == j ? std::sqrt(sum) : sum / l(j, j);
    }
  }
  for (size_t c = 0; c < n; ++c) {  // column c of L^-1
    for (size_t i = c; i < n; ++i) {
      T sum = i == c ? T{1} : T{0};
      for (size_t k = c; k < i; ++k) sum -= l(i, k) * u(n - 1 - k, n - 1 - c);
      u(n - 1 - i, n - 1 - c) = sum / l(i, i);
    }
  }
  return u;
}

template <typename T>
class Reference {
 public:
  Reference(MatrixView<const float> w, MatrixView<const float> h, const std::vector<uint8_t>& widths,
            const FixedSolverSettings& settings)
      : settings_(settings), rows_(w.rows), cols_(w.cols) {
    std::vector<float> diagonal(cols_);
    double sum = 0;
    for (size_t j = 0; j < cols_; ++j) {
      diagonal[j] = h(j, j);
      sum += h(j, j);
    }
    const auto dead = static_cast<size_t>(std::count(diagonal.begin(), diagonal.end(), 0.0f));
    const double base = dead < cols_ ? sum / static_cast<double>(cols_ - dead) : 1.0;
    plan_ = MakePlan(rows_, diagonal, widths, settings);
    cell_ = plan_.mask;
    float most = 0;
    for (size_t r = 0; r < rows_; ++r) {
      for (size_t c = 0; c < cols_; ++c) most = std::max(most, std::abs(w(r, c)));
    }
    const bool scaled =
        std::any_of(widths.begin(), widths.end(), [](uint8_t b) { return b != 0 && b != 16; });
    if (scaled && most > 0) exponent_ = static_cast<int>(std::ceil(std::log2(most)));
    weights_ = Matrix<T>(rows_, cols_);
    undamped_ = Matrix<T>(cols_, cols_);
    Matrix<T> damped(cols_, cols_);
    for (size_t i = 0; i < cols_; ++i) {
      const bool i_dead = diagonal[plan_.order[i]] == 0;
      for (size_t r = 0; r < rows_; ++r)
        weights_(r, i) = i_dead ? T{0} : T{std::ldexp(w(r, plan_.order[i]), -exponent_)};
      for (size_t j = 0; j < cols_; ++j) {
        const bool any_dead = i_dead || diagonal[plan_.order[j]] == 0;
        undamped_(i, j) = damped(i, j) = any_dead ? T{0} : T{h(plan_.order[i], plan_.order[j])};
      }
      if (i_dead) damped(i, i) = static_cast<T>(base);
      damped(i, i) += static_cast<T>(settings.damping * base);
    }
    u_ = InverseFactor(damped);
    for (size_t j = 0; j < cols_; ++j) {
      const double conditional = 1.0 / (double{u_(j, j)} * u_(j, j));
      saliency_.push_back(static_cast<float>(std::pow(conditional, settings.saliency_exponent) *
                                             std::pow(double{damped(j, j)}, 1 - settings.saliency_exponent)));
    }
  }

  ReferenceResult Solve() {
    Begin();
    Matrix<T> q(rows_, cols_, T{0});
    working_ = weights_.Clone();
    double loss = 0;
    for (const ScaleGroup& group : plan_.groups) {
      for (size_t j = group.start; j < group.start + group.count; ++j) {
        ChooseMasks(j, working_, true);
        if (j == group.start && group.scale_row >= 0) FitGroup(group);
        for (size_t r = 0; r < rows_; ++r)
          loss += FixWeight(group, GroupGrid(group, r), r, j, cols_, working_, &q);
      }
    }
    ReferenceResult result;
    result.predicted_loss = std::ldexp(loss, 2 * exponent_);
    T measured = 0;
    for (size_t r = 0; r < rows_; ++r) {
      for (size_t i = 0; i < cols_; ++i) {
        T sum = 0;
        for (size_t j = 0; j < cols_; ++j) sum += undamped_(i, j) * (weights_(r, j) - q(r, j));
        measured += (weights_(r, i) - q(r, i)) * sum;
      }
    }
    result.measured_loss = std::ldexp(static_cast<double>(measured), 2 * exponent_);
    result.matrix = std::move(matrix_);
    return result;
  }

 private:
  void Begin() {
    matrix_.rows = rows_;
    matrix_.cols = cols_;
    matrix_.group_size = settings_.group_size;
    matrix_.exponent = exponent_;
    matrix_.order = plan_.order;
    matrix_.widths = plan_.widths;
    matrix_.mask = plan_.mask;
    matrix_.codes = Matrix<uint16_t>(rows_, cols_, 0);
    if (plan_.mask != MaskKind::kNone) {
      matrix_.keep = Matrix<uint8_t>(rows_, cols_, 1);
      for (size_t r = 0; r < rows_; ++r)
        std::fill_n(matrix_.keep.row(r) + plan_.coded, cols_ - plan_.coded, uint8_t{0});
    }
    size_t scale_rows = 0;
    for (const ScaleGroup& group : plan_.groups) scale_rows += group.scale_row >= 0;
    matrix_.scales = Matrix<ScaleCode>(scale_rows, rows_, ToScaleCode(1.0f));
    matrix_.zeros = Matrix<uint8_t>(scale_rows, rows_, 0);
  }

  Grid GroupGrid(const ScaleGroup& group, size_t r) const {
    if (group.scale_row < 0) return {};
    return {matrix_.scales(static_cast<size_t>(group.scale_row), r),
            matrix_.zeros(static_cast<size_t>(group.scale_row), r)};
  }

  bool Kept(size_t r, size_t j) const { return plan_.mask == MaskKind::kNone || matrix_.keep(r, j) != 0; }
  float Importance(size_t r) const {
    return settings_.row_importance.empty() ? 1.0f : settings_.row_importance[r];
  }
  float Score(T w, size_t j) const { return static_cast<float>(w) * static_cast<float>(w) * saliency_[j]; }

  // Masks that begin at column j: of an unstructured block, or of an n:m cell.
  void ChooseMasks(size_t j, const Matrix<T>& w, bool blocks) {
    if (plan_.mask == MaskKind::kNone || j >= plan_.coded) return;
    if (cell_.cols > 0) {
      if (j % cell_.cols != 0) return;
      for (size_t r = 0; r < rows_; ++r) ChooseCell(r, j, w);
      return;
    }
    if (!blocks) return;
    for (const ColumnBlock& block : plan_.blocks) {
      if (block.start != j) continue;
      struct Entry {
        float score;
        size_t column, row;
      };
      std::vector<Entry> entries;
      for (size_t c = j; c < block.end; ++c) {
        for (size_t r = 0; r < rows_; ++r) entries.push_back({Importance(r) * Score(w(r, c), c), c, r});
      }
      std::stable_sort(entries.begin(), entries.end(),
                       [](const Entry& a, const Entry& b) { return a.score < b.score; });
      const uint64_t pruned = plan_.pruned_before[block.end] - plan_.pruned_before[block.start];
      for (uint64_t i = 0; i < entries.size(); ++i)
        matrix_.keep(entries[i].row, entries[i].column) = i >= pruned;
    }
  }

  void ChooseCell(size_t r, size_t j, const Matrix<T>& w) {
    const size_t count = std::min(cell_.cols, plan_.coded - j);
    std::vector<std::pair<float, size_t>> scores;
    for (size_t c = j; c < j + count; ++c) scores.push_back({Score(w(r, c), c), c});
    std::sort(scores.begin(), scores.end());
    const size_t pruned = cell_.Pruned(count);
    for (size_t i = 0; i < count; ++i) matrix_.keep(r, scores[i].second) = i >= pruned;
  }

  // Quantises w(r, j), feeds the error to columns below `end`; returns e^2. The value goes to q, the code to
  // the matrix, unless q is null.
  double FixWeight(const ScaleGroup& group, const Grid& grid, size_t r, size_t j, size_t end, Matrix<T>& w,
                   Matrix<T>* q) {
    T value = 0;
    uint16_t code = 0;
    if (group.bits != 0 && Kept(r, j)) {
      if (group.bits == 16) {
        code = ToF16(static_cast<float>(w(r, j))).bits;
        value = T{ToFloat(F16{code})};
      } else {
        const T scale = T{ToFloat(grid.scale)};
        const T level = std::nearbyint(w(r, j) / scale) + T{static_cast<float>(grid.zero)};
        code = static_cast<uint16_t>(std::clamp(level, T{0}, static_cast<T>((1 << group.bits) - 1)));
        value = static_cast<T>(static_cast<int>(code) - grid.zero) * scale;
      }
    }
    const T error = (w(r, j) - value) / u_(j, j);
    for (size_t k = j + 1; k < end; ++k) w(r, k) -= error * u_(j, k);
    if (q != nullptr) {
      (*q)(r, j) = value;
      matrix_.codes(r, j) = code;
    }
    return static_cast<double>(error * error);
  }

  // The loss of row r if the group used this grid: its columns fixed in order on a copy.
  float Trial(const ScaleGroup& group, const Grid& grid, size_t r) {
    Matrix<T> copy(rows_, cols_);
    std::copy_n(working_.row(r), cols_, copy.row(r));
    double loss = 0;
    for (size_t j = group.start; j < group.start + group.count; ++j) {
      if (cell_.cols > 0 && j < plan_.coded && j % cell_.cols == 0) ChooseCell(r, j, copy);
      loss += FixWeight(group, grid, r, j, cols_, copy, nullptr);
    }
    return static_cast<float>(loss);
  }

  void FitGroup(const ScaleGroup& group) {
    const bool large = group.count > kBlockCols;
    if (cell_.cols > 0 && !large) {
      for (size_t j = group.start; j < group.start + group.count; ++j) ChooseMasks(j, working_, false);
    }
    std::vector<float> importance(group.count);
    for (size_t i = 0; i < group.count; ++i) {
      const auto d = static_cast<float>(u_(group.start + i, group.start + i));
      importance[i] = 1.0f / (d * d);
    }
    const bool trials = settings_.search_rounds > 0 && !large;
    for (size_t r = 0; r < rows_; ++r) {
      std::vector<float> values(group.count);
      std::vector<uint8_t> keep;
      for (size_t i = 0; i < group.count; ++i) values[i] = static_cast<float>(working_(r, group.start + i));
      if (plan_.mask != MaskKind::kNone && !large) {
        for (size_t i = 0; i < group.count; ++i) keep.push_back(matrix_.keep(r, group.start + i));
      }
      Grid best = FitGrid(values, importance, keep, group.bits, trials ? 0 : kGridRounds);
      if (trials) {
        float best_loss = Trial(group, best, r);
        for (int round = 0; round < settings_.search_rounds; ++round) {
          for (int move = 0; move < kGridMoves; ++move) {
            const Grid candidate = MovedGrid(best, move, group.bits);
            const float loss = Trial(group, candidate, r);
            if (!(loss < best_loss)) continue;
            best = candidate;
            best_loss = loss;
          }
        }
      }
      matrix_.scales(static_cast<size_t>(group.scale_row), r) = best.scale;
      matrix_.zeros(static_cast<size_t>(group.scale_row), r) = best.zero;
      // The trials have left masks that belong to other grids; those that begin in this group are chosen
      // again as they are reached, and the first one now.
      if (cell_.cols > 0 && group.start < plan_.coded && group.start % cell_.cols == 0)
        ChooseCell(r, group.start, working_);
    }
  }

  const FixedSolverSettings& settings_;
  const size_t rows_, cols_;
  int exponent_ = 0;
  ColumnPlan plan_;
  MaskKind cell_;
  Matrix<T> weights_, working_, undamped_, u_;
  std::vector<float> saliency_;
  FixedMatrix matrix_;
};

}  // namespace

template <typename T>
ReferenceResult SolveReference(MatrixView<const float> w, MatrixView<const float> h,
                               const std::vector<uint8_t>& widths, const FixedSolverSettings& settings) {
  return Reference<T>(w, h, widths, settings).Solve();
}

template ReferenceResult SolveReference<float>(MatrixView<const float>, MatrixView<const float>,
                                               const std::vector<uint8_t>&, const FixedSolverSettings&);
template ReferenceResult SolveReference<double>(MatrixView<const float>, MatrixView<const float>,
                                                const std::vector<uint8_t>&, const FixedSolverSettings&);

}  // namespace mica
