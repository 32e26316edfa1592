// The panels of a stage one after the other. What the errors of one do to the columns behind it is a product;
// where a block of G has several tiles, each follows the one above it by a panel.
#include <algorithm>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/finite.h"
#include "device/cuda.h"
#include "device/cuda_kernel.h"
#include "ops/cuda_ops.h"
#include "ops/linalg/matrix_product_cuda.h"
#include "ops/trellis/panel_cuda.h"
#include "ops/trellis/search_cuda.h"
#include "ops/trellis/tile_solver.h"

namespace mica::cuda {
namespace {

using namespace trellis;

template <typename T>
std::vector<T> OnHost(const Values<T>& values) {
  std::vector<T> here(values.size());
  values.CopyTo(here);
  return here;
}

// Of all classes that the rates have, as Stage::prices.
std::vector<float2> Prices(const EntropyRates* rates, const StepPrices& prices) {
  const float of_bit = PriceOfBit(prices), of_nonzero = PriceOfNonzero(prices);
  const int first = rates == nullptr ? 0 : rates->first_class(),
            last = rates == nullptr ? 0 : rates->last_class();
  std::vector<float2> table;
  table.reserve(static_cast<size_t>(last - first + 1) * 4 * kPriced);
  for (int k = first; k <= last; ++k) {
    for (int quantiser = 0; quantiser < 2; ++quantiser) {
      const float* bits = rates == nullptr ? nullptr : rates->Bits(quantiser, k);
      const auto price = [&](int m) {
        if (m < 0) return kNever;
        return (bits == nullptr ? 0.0f : of_bit * bits[m]) + (m > 0 ? of_nonzero : 0.0f);
      };
      for (int parity = 0; parity < 2; ++parity) {
        for (int m = parity; m < 2 * kPriced; m += 2) table.push_back({price(m), price(m - 2)});
      }
    }
  }
  return table;
}

// Matrices that share U and rates.
class StageSolver {
 public:
  StageSolver(std::vector<const TileTask*> tasks, const StepPrices& prices)
      : tasks_(std::move(tasks)),
        prices_(prices),
        device_(tasks_[0]->w.device),
        windows_(prices, device_),
        cols_(tasks_[0]->w.cols) {
    CheckMachine();
    kernel_ = ChoosePanelKernel(device_, prices.trellis);
    PlaceTiles();
  }

  // All of it; the host's results are there on return.
  void Solve() {
    const size_t slots = places_.size() * kTile, turns = first_of_turn_.size() - 1;
    const TileTask& any = *tasks_[0];
    std::vector<int> position(cols_);
    std::vector<float> col_scale(cols_);
    for (size_t p = 0; p < cols_; ++p) {
      const uint32_t c = any.order[p];
      position[c] = static_cast<int>(p);
      col_scale[p] = EntropyStep(any.col_step[c], kStepResolution);
    }
    for (const uint32_t p : any.dead) position[any.order[p]] = ~static_cast<int>(p);

    // Classes of columns differ from matrix to matrix.
    std::vector<int> col_class(tasks_.size() * cols_, 0);
    for (size_t m = 0; m < tasks_.size(); ++m) {
      if (any.rates == nullptr) break;
      for (size_t p = 0; p < cols_; ++p) col_class[m * cols_ + p] = tasks_[m]->col_class[any.order[p]];
    }
    const Values<int> d_col_class(device_, col_class);
    std::vector<Array> integers;
    for (const TileTask* task : tasks_) integers.emplace_back(task->w.rows, cols_, DType::kI16, device_);
    std::vector<Tile> tiles;
    std::vector<int> row_of(slots, -1), row_class(slots, 0);
    std::vector<float> row_scale(slots, 1.0f);
    for (size_t i = 0; i < places_.size(); ++i) {
      const Place& place = places_[i];
      const TileTask& task = *tasks_[place.task];
      const size_t first = place.tile * kTile, rows = std::min<size_t>(kTile, task.w.rows - first);
      Tile tile = {};
      if (!task.v.empty()) {
        tile.v = In<float>(task.v).data + first * task.v.stride + place.turn * kTile;
        tile.v_stride = task.v.stride;
      }
      tile.w = In<float>(task.w).data;
      tile.w_stride = task.w.stride;
      if (!task.weights.empty()) {
        tile.weights = Out<float>(task.weights).data;
        tile.weights_stride = task.weights.stride;
      }
      tile.n = reinterpret_cast<int16_t*>(integers[place.task].view().data);
      tile.col_class = d_col_class.data() + place.task * cols_;
      tile.rows = static_cast<int>(rows);
      tile.turn = static_cast<int>(place.turn);
      tile.first_above = static_cast<int>(place.first_above);
      tiles.push_back(tile);
      for (size_t r = 0; r < rows; ++r) {
        const uint32_t row = task.row_order[first + r];
        const size_t slot = i * kTile + r;
        row_of[slot] = static_cast<int>(row);
        row_scale[slot] = EntropyStep(task.row_step[row], kStepResolution);
        if (task.rates != nullptr) row_class[slot] = task.row_class[row];
      }
    }

    const bool feeds_tiles = turns > 1;
    const Values<Tile> d_tiles(device_, tiles);
    const Values<int> d_row_of(device_, row_of), d_row_class(device_, row_class),
        d_position(device_, position), d_place_of(device_, place_of_),
        d_not_finite(device_, std::vector<int>{0});
    const Values<float> d_row_scale(device_, row_scale), d_col_scale(device_, col_scale);
    const Values<float2> d_prices(device_, Prices(any.rates, prices_));
    const Values<float> work(device_, cols_ * slots), errors(device_, kTogether * slots),
        row_errors(device_, feeds_tiles ? cols_ * slots : 0),
        above(device_, feeds_tiles ? kPanel * slots : 0);
    const Values<int16_t> n(device_, cols_ * slots);
    const Values<double> sums(device_, kSums * slots);
    const Values<unsigned long long> widths(device_, places_.size() * kMostWidths);
    errors.FillZero();
    sums.FillZero();
    widths.FillZero();

    const Values<TileOfV> d_v(device_, places_.size());
    Stage stage = {};
    stage.tiles = d_tiles.data();
    stage.v = d_v.data();
    stage.row_of = d_row_of.data();
    stage.row_scale = d_row_scale.data();
    stage.row_class = d_row_class.data();
    stage.col_scale = d_col_scale.data();
    stage.position = d_position.data();
    stage.u = In<float>(any.u).data;
    stage.u_stride = any.u.stride;
    stage.prices = reinterpret_cast<const char*>(d_prices.data());
    stage.first_class = any.rates == nullptr ? 0 : any.rates->first_class();
    stage.last_class = any.rates == nullptr ? 0 : any.rates->last_class();
    stage.plain = any.rates == nullptr && prices_.zero_price <= 0;
    stage.window = windows_.window;
    stage.ahead = windows_.ahead;
    stage.cols = static_cast<int>(cols_);
    stage.slots = slots;
    stage.work = work.data();
    stage.n = n.data();
    stage.errors = errors.data();
    stage.row_errors = feeds_tiles ? row_errors.data() : nullptr;
    stage.above = feeds_tiles ? above.data() : nullptr;
    stage.sums = sums.data();
    stage.widths = widths.data();
    stage.not_finite = d_not_finite.data();

    ArrangeV(device_, stage, places_.size());
    TakeWeights(device_, stage);
    const size_t panels = (cols_ + kPanel - 1) / kPanel;
    for (size_t step = 0; step < panels + turns - 1; ++step) {
      const size_t first_turn = step < panels ? 0 : step - panels + 1, last_turn = std::min(step, turns - 1);
      const size_t first = first_of_turn_[first_turn], last = first_of_turn_[last_turn + 1];
      if (last_turn > 0) {
        const size_t first_fed = std::max(first, first_of_turn_[1]);
        AddAbove(device_, stage, d_place_of.data(), first_fed, last, step);
      }
      SolvePanel(device_, kernel_, stage, first, last, step);
      for (size_t turn = first_turn; turn <= last_turn; ++turn) FeedColumns(stage, step - turn, turn);
    }
    GiveResults(device_, stage);

    if (OnHost(d_not_finite)[0] != 0) FailNotFinite();
    const std::vector<double> sums_found = OnHost(sums);
    const std::vector<unsigned long long> widths_found = OnHost(widths);
    for (size_t i = 0; i < places_.size(); ++i) {
      const Place& place = places_[i];
      const TileTask& task = *tasks_[place.task];
      TileTally tally;
      for (size_t r = 0; r < static_cast<size_t>(tiles[i].rows); ++r) {
        const double* of_row = sums_found.data() + i * kTile + r;
        task.row_loss[place.tile * kTile + r] = of_row[0];
        tally.error += of_row[slots];
        tally.energy += of_row[2 * slots];
      }
      for (size_t k = 0; k < kMostWidths; ++k) tally.widths[k] = widths_found[i * kMostWidths + k];
      task.tallies[place.tile] = tally;
    }
    for (size_t m = 0; m < tasks_.size(); ++m) {
      const MatrixView<int16_t> to = tasks_[m]->n;
      const std::byte* from = integers[m].view().data;
      const size_t width = cols_ * sizeof(int16_t);
      if (to.data != nullptr && to.stride == cols_) {
        DownloadBytes(device_, to.data, from, to.rows * width);
      } else if (to.data != nullptr) {
        CopyBytes(Device::Cpu(), to.data, to.stride * sizeof(int16_t), device_, from, width, width, to.rows);
      }
      if (tasks_[m]->n_on_device != nullptr) *tasks_[m]->n_on_device = std::move(integers[m]);
    }
  }

 private:
  struct Place {
    size_t task, tile, turn, first_above;
  };

  static void CheckMachine() {
    const Trellis& machine = TrellisOf(kStates);
    for (int s = 0; s < kStates; ++s) {
      MICA_CHECK(machine.quantiser[static_cast<size_t>(s)] == s % 2);
      for (int pick = 0; pick < 2; ++pick) {
        MICA_CHECK(
            machine.next[static_cast<size_t>(Predecessor(s, pick))][static_cast<size_t>(ParityOf(s, pick))] ==
            s);
      }
    }
  }

  // All tiles by turn. first_above counts tiles matrix by matrix.
  void PlaceTiles() {
    size_t before = 0;
    for (size_t m = 0; m < tasks_.size(); ++m) {
      const TileTask& task = *tasks_[m];
      const size_t tiles = CodedTiles(task.w.rows);
      const size_t of_block = task.v.empty() ? 1 : CodedTiles(task.v.cols);
      for (size_t tile = 0; tile < tiles; ++tile)
        places_.push_back({m, tile, tile % of_block, before + tile - tile % of_block});
      before += tiles;
    }
    std::stable_sort(places_.begin(), places_.end(),
                     [](const Place& a, const Place& b) { return a.turn < b.turn; });
    std::vector<size_t> first_tile(tasks_.size(), 0);
    for (size_t m = 1; m < tasks_.size(); ++m)
      first_tile[m] = first_tile[m - 1] + CodedTiles(tasks_[m - 1]->w.rows);
    place_of_.resize(places_.size());
    for (size_t i = 0; i < places_.size(); ++i) {
      const Place& place = places_[i];
      place_of_[first_tile[place.task] + place.tile] = static_cast<int>(i);
      if (place.turn == first_of_turn_.size()) first_of_turn_.push_back(i);
    }
    first_of_turn_.push_back(places_.size());
  }

  // What the errors of a panel do to the columns behind it in tiles of one turn.
  void FeedColumns(const Stage& stage, size_t panel, size_t turn) const {
    const size_t begin = panel * kPanel, end = std::min(cols_, begin + kPanel);
    const size_t first = begin / kTogether * kTogether, last = std::min(cols_, first + kTogether);
    const size_t slot = first_of_turn_[turn] * kTile,
                 count = (first_of_turn_[turn + 1] - first_of_turn_[turn]) * kTile;
    // later -= U^T errors, U between the columns of the errors and the later ones.
    const auto subtract = [&](size_t from, size_t to, size_t last_later) {
      if (last_later <= end || count == 0) return;
      const auto of = [&](const float* data, size_t rows, size_t cols, size_t stride) {
        return ConstTensor(reinterpret_cast<const std::byte*>(data), rows, cols, stride, DType::kF32,
                           device_);
      };
      // Tile by tile, so that a sum does not depend on how many tiles there are (ranks have some of them
      // each).
      const Tensor later(reinterpret_cast<std::byte*>(stage.work + end * stage.slots + slot),
                         last_later - end, kTile, stage.slots, DType::kF32, device_);
      Product(true, false, -1.0f,
              of(stage.u + from * stage.u_stride + end, to - from, last_later - end, stage.u_stride),
              of(stage.errors + (from - first) * stage.slots + slot, to - from, kTile, stage.slots), 1.0f,
              later, {count / kTile, 0, kTile, kTile});
    };
    subtract(begin, end, last);
    if (end == last) subtract(first, last, cols_);
  }

  [[noreturn]] void FailNotFinite() const {
    for (const TileTask* task : tasks_) {
      const Array w = CopyTo(Device::Cpu(), task->w);
      CheckFinite(w.view().host<float>(), "weights");
    }
    Fail("weights: not finite");
  }

  const std::vector<const TileTask*> tasks_;
  const StepPrices prices_;
  const Device device_;
  const Windows windows_;
  const size_t cols_;
  PanelKernel kernel_ = {};
  std::vector<Place> places_;          // all tiles by turn
  std::vector<int> place_of_;          // tile, counted matrix by matrix -> its index there
  std::vector<size_t> first_of_turn_;  // [turns + 1]
};

template <typename T>
bool Equal(std::span<const T> a, std::span<const T> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

}  // namespace

void SolveTiles(std::span<const TileTask> tasks, const StepPrices& prices) {
  std::vector<std::vector<const TileTask*>> stages;
  for (const TileTask& task : tasks) {
    if (task.w.empty()) continue;
    const auto shares = [&](const std::vector<const TileTask*>& stage) {
      const TileTask& other = *stage[0];
      return task.u.data == other.u.data && task.rates == other.rates && Equal(task.order, other.order) &&
             Equal(task.dead, other.dead) && Equal(task.col_step, other.col_step);
    };
    const auto stage = std::find_if(stages.begin(), stages.end(), shares);
    if (stage == stages.end()) {
      stages.push_back({&task});
    } else {
      stage->push_back(&task);
    }
  }
  for (std::vector<const TileTask*>& stage : stages) StageSolver(std::move(stage), prices).Solve();
}

}  // namespace mica::cuda
