// The integers of whole matrices of coding `entropy`, column by column in processing order. The error that a
// column leaves is absorbed by the columns behind it, through U (H^-1 = U^T U), and the error of a row by the
// rows behind it of its block of G, through V (G^-1 = V^T V).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/matrix.h"
#include "device/array.h"
#include "device/tensor.h"
#include "format/entropy/entropy_matrix.h"
#include "ops/trellis/step_chooser.h"

namespace mica {

// What a CUDA device takes for StepPrices::window and ahead where the window is 0: a column follows the one before it
// by so many rows together.
inline constexpr size_t kCudaWindow = 16, kCudaAhead = 32;

// What is counted over one coded tile of rows.
struct TileTally {
  // Over its weights: (w - q)^2 / U_jj^2 and w^2 / U_jj^2, w the weight when its column was fixed.
  double error = 0, energy = 0;
  std::array<uint64_t, 17> widths{};  // integers by the bits of their magnitude; 0: zeros
};

// One matrix. Tensors are FP32 and on one device; what is on the host is so on every device.
struct TileTask {
  ConstTensor w;  // [rows, cols]
  ConstTensor u;  // [cols, cols] upper, by position of columns; what is below the diagonal is not read
  ConstTensor v;  // [rows, block] row p: V_pq for the positions q of p's block; empty: rows do not feed back
  std::span<const uint32_t> order;      // [cols] position -> column
  std::span<const uint32_t> dead;       // positions of columns whose weights count as 0
  std::span<const uint32_t> row_order;  // [rows] position -> row
  std::span<const int16_t> row_step;    // [rows] by row, log2 in eighths (kStepResolution)
  std::span<const int16_t> col_step;    // [cols] by column
  const EntropyRates* rates = nullptr;  // none: bits cost nothing
  std::span<const int16_t> row_class;   // [rows] and [cols], with rates
  std::span<const int16_t> col_class;
  // Out.
  MatrixView<int16_t> n;         // [rows, cols] on the host; on a CUDA device it may be empty
  Array* n_on_device = nullptr;  // the same, type I16, where it is found on a CUDA device; may be null
  Tensor weights;                // [rows, cols] as a reader of the stored matrix gets them; may be empty
  std::span<double>
      row_loss;  // [rows] by position: sum of e^2 / U_jj^2, e the error that was left to later rows
  std::span<TileTally> tallies;  // [CodedTiles(rows)]
};

// Solves them together; those of one stage share u. The block of v is whole tiles, or all rows. Does not
// depend on threads; the same device gives the same integers, different kinds differ where FP32 sums decide.
// Throws Error when a weight is not finite.
void SolveTiles(std::span<const TileTask> tasks, const StepPrices& prices);

}  // namespace mica
