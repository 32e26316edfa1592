// Which integers a column gets: rounded one by one, or along a trellis of dependent quantisers by loss +
// lambda bits (8 states, as in video coding: Schwarz et al., "Hybrid video coding with trellis-coded
// quantization", DCC 2019).
#pragma once

#include <cstddef>
#include <cstdint>

#include "format/entropy/entropy_matrix.h"

namespace mica {

inline constexpr int kTrellisStates = 8;

// What an integer costs besides the loss.
struct StepPrices {
  bool trellis = false;
  // Rows of a column that are decided together, and rows behind them that are searched before; 0: all rows
  // of the tile, and on a CUDA device kCudaWindow (tile_solver.h). Small ones let a device solve many
  // columns at once; what is stored is of one kind.
  size_t window = 0, ahead = 0;
  double lambda =
      0.0;  // weight of bits against loss; 1 is the slope of the high-rate law, 0 rounds to the nearest
  double zero_price = 0.0;  // loss that a weight which is not zero must save, in squared steps: drives
                            // sparsity beyond what the rate gives
};

// Sizes in steps above this are no nearer to any integer than this one, and their squares would overflow.
inline constexpr float kBeyondAll = 131072.0f;
// What a bit costs in squared steps, and what every integer but zero costs beside its bits.
float PriceOfBit(const StepPrices& prices);
float PriceOfNonzero(const StepPrices& prices);

// The part of a column that lies in one coded tile, in stored row order.
struct TileColumn {
  const float* w;            // [rows] values to quantise
  const float* step;         // [rows]
  const float* inverse;      // [rows] 1 / step
  const int16_t* row_class;  // [rows]; null without rates
  int col_class;
  size_t rows;  // at most kCodedTileRows
  // Feedback to later rows: the error e of row r changes row k > r by -e v[r * v_stride + k] / v[r * v_stride
  // + r]. Null: none.
  const float* v;
  size_t v_stride;
};

class StepChooser {
 public:
  // rates: null for none (lambda is then not used).
  StepChooser(const EntropyRates* rates, const StepPrices& prices);

  // One weight on its own: the nearest integer, the one before it or zero, whichever is cheapest.
  int Round(float w, const TileColumn& column, size_t r) const;

  // The cheapest path of the trellis from state 0 (Viterbi); each survivor carries the feedback of its own
  // errors. With a window, when `ahead` rows behind it are searched, its rows stay as they are on the cheapest path so
  // far, and survivors that came another way are dropped; and so on. n: [rows].
  void FollowTrellis(const TileColumn& column, int16_t* n) const;

 private:
  // Levels of one quantiser and parity are 4 steps apart (2 m - q for m = parity, parity + 2, ...): the
  // nearest and the one before it.
  void Candidate(float x, int q, int parity, const float* bits, float* cost, int16_t* magnitude) const;
  const float* RatesOf(int quantiser, const TileColumn& column, size_t r) const {
    return rates_ == nullptr ? nullptr : rates_->Bits(quantiser, column.row_class[r] + column.col_class);
  }
  float Price(const float* bits, int m) const {
    return bits == nullptr
               ? 0.0f
               : lambda_ * bits[m < EntropyRates::kMagnitudes ? m : EntropyRates::kMagnitudes - 1];
  }

  const Trellis& trellis_;
  const EntropyRates* rates_;
  const size_t window_, ahead_;
  const float lambda_;
  const float zero_price_;
};

}  // namespace mica
