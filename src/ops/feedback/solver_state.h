// What the stages of the solver (feedback, refinement) work on, all on one device, in stored order and
// transposed: a column is contiguous, so a tile of rows (ops/feedback/feedback.h) is cut out by copying
// kTileRows values of each column, and neighbouring threads of a CUDA device read neighbouring rows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "base/matrix.h"
#include "device/array.h"
#include "device/tensor.h"
#include "format/mask/sparsity_pattern.h"
#include "ops/feedback/column_plan.h"
#include "ops/feedback/feedback.h"
#include "ops/grid/grid.h"

namespace mica {

// Integers of an array that lies on the processor, as a matrix of T.
template <typename T>
MatrixView<T> IntegersOf(Tensor x) {
  if (x.empty()) return {};
  MICA_CHECK(x.device == Device::Cpu());
  MICA_CHECK(DTypeBytes(x.dtype) == sizeof(T));
  return {reinterpret_cast<T*>(x.data), x.rows, x.cols, x.stride};
}
template <typename T>
MatrixView<const T> IntegersOf(ConstTensor x) {
  return IntegersOf<T>(Tensor(const_cast<std::byte*>(x.data), x.rows, x.cols, x.stride, x.dtype, x.device));
}

struct SolverState {
  ColumnPlan plan;
  size_t rows = 0;
  size_t cols = 0;
  int exponent = 0;  // weights below are in units of 2^exponent
  Array codes;       // [cols, rows] U16 as FixedMatrix::codes
  Array keep;        // [cols, rows] U8, empty without a mask
  Array scales;      // [scale groups, rows] U8, ScaleCode
  Array zeros;       // [scale groups, rows] U8

  // Room for what the plan needs; nothing is pruned but columns without a code.
  void Allocate(Device device);
  void AllocateScales(Device device);
  Device device() const { return scales.device(); }

  // The same on the processor, as its code takes them.
  MatrixView<uint16_t> HostCodes() { return IntegersOf<uint16_t>(codes.view()); }
  MatrixView<const uint16_t> HostCodes() const { return IntegersOf<uint16_t>(codes.view()); }
  MatrixView<uint8_t> HostKeep() { return IntegersOf<uint8_t>(keep.view()); }
  MatrixView<const uint8_t> HostKeep() const { return IntegersOf<uint8_t>(keep.view()); }
  MatrixView<ScaleCode> HostScales() { return IntegersOf<ScaleCode>(scales.view()); }
  MatrixView<const ScaleCode> HostScales() const { return IntegersOf<ScaleCode>(scales.view()); }
  MatrixView<uint8_t> HostZeros() { return IntegersOf<uint8_t>(zeros.view()); }
  MatrixView<const uint8_t> HostZeros() const { return IntegersOf<uint8_t>(zeros.view()); }

  bool masked() const { return plan.mask != MaskKind::kNone; }
  size_t tiles() const { return (rows + kTileRows - 1) / kTileRows; }
  size_t tile_rows(size_t tile) const { return std::min(kTileRows, rows - tile * kTileRows); }

  // Columns [first, first + cols) of a tile's rows: buffer [cols, kTileRows], missing rows zero.
  template <typename T>
  void LoadTile(MatrixView<T> from, size_t tile, size_t first, size_t cols,
                std::remove_const_t<T>* buffer) const {
    const size_t count = tile_rows(tile);
    for (size_t j = 0; j < cols; ++j) {
      std::copy_n(from.row(first + j) + tile * kTileRows, count, buffer + j * kTileRows);
      std::fill_n(buffer + j * kTileRows + count, kTileRows - count, std::remove_const_t<T>{});
    }
  }
  template <typename T>
  void StoreTile(const T* buffer, size_t tile, size_t first, size_t cols, MatrixView<T> to) const {
    for (size_t j = 0; j < cols; ++j) {
      std::copy_n(buffer + j * kTileRows, tile_rows(tile), to.row(first + j) + tile * kTileRows);
    }
  }

  // Grids of a tile's rows in scale group `group`; missing rows have scale 1.
  void LoadGrids(size_t tile, const ScaleGroup& group, TileGrids* grids) const {
    const MatrixView<const ScaleCode> of_scale = HostScales();
    const MatrixView<const uint8_t> of_zero = HostZeros();
    for (size_t r = 0; r < kTileRows; ++r) {
      Grid grid{ToScaleCode(1.0f), 0};
      if (r < tile_rows(tile)) {
        const auto row = static_cast<size_t>(group.scale_row);
        grid = {of_scale(row, tile * kTileRows + r), of_zero(row, tile * kTileRows + r)};
      }
      grids->Set(r, grid);
    }
  }
  void StoreGrids(const TileGrids& grids, size_t tile, const ScaleGroup& group) {
    const MatrixView<ScaleCode> of_scale = HostScales();
    const MatrixView<uint8_t> of_zero = HostZeros();
    for (size_t r = 0; r < tile_rows(tile); ++r) {
      const auto row = static_cast<size_t>(group.scale_row);
      of_scale(row, tile * kTileRows + r) = grids.grid[r].scale;
      of_zero(row, tile * kTileRows + r) = grids.grid[r].zero;
    }
  }
};

// What the feedback is told besides the plan.
struct FeedbackSettings {
  std::vector<float> saliency;  // [cols] by stored position: what a squared weight is multiplied with to give
                                // its pruning score
  std::vector<float>
      row_importance;     // [rows] multiplied with that score in unstructured masks; empty: 1 each
  int search_rounds = 3;  // of the search for a group's grid by the loss that the feedback really leaves; 0:
                          // by the weighted rounding error alone
};

// Prunes and quantises all columns with feedback. All on the state's device, FP32. u: [cols, cols] upper
// factor of H^-1. remaining: [cols, rows] W in, W less the feedback so far while it works; errors: [cols,
// rows] out, those of each column over U_jj. Fills codes, keep, scales, zeros; returns sum of e^2. Devices
// differ by the rounding of sums in products.
double FeedAll(SolverState& state, ConstTensor u, const FeedbackSettings& settings, Tensor remaining,
               Tensor errors);

// Lowers the loss tr((W - Q) H (W - Q)^T) by changing what FeedAll stored; zeros per row and block, and n:m
// patterns, stay as many. All on the state's device, FP32. h: [cols, cols] damped; residual: [cols, rows] W -
// Q as FeedAll left it; gradient and steps: [cols, rows] for H (W - Q) and for what a pass changes of Q,
// which mean nothing afterwards; steps may be residual itself, which is read first. Returns the change of the
// loss (not positive). A CUDA device takes 8 bytes x (cols^2 + rows cols) of its memory meanwhile, and
// products with a relative error of sums of 1e-5: what they give is where the best grid point lies, and by
// how much it is better.
double RefineAll(SolverState& state, ConstTensor h, int passes, ConstTensor residual, Tensor gradient,
                 Tensor steps);

}  // namespace mica
