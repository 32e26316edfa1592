// What is counted over the values of a matrix: squares by row and by column, medians, how scores are spread.
// One or two passes over memory; what comes back is small.
//
// Matrices are FP32, on any device; vectors are on the host and, where they come back, complete on return.
// Sums are FP64: on the processor each goes over rising rows or columns, on a CUDA device in an order that
// follows from the shape alone, so that they differ by roundings of FP64 between the two and not at all
// between runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "device/tensor.h"

namespace mica {

// sums[c] += sum_r weight_r x_rc^2. x: [rows, cols]; row_weights: [rows], empty for 1 each; sums: [1, cols]
// FP64 on the device of x, which is not waited for.
void AddColumnSquares(ConstTensor x, std::span<const double> row_weights, Tensor sums);
// [cols] The same from zero.
std::vector<double> ColumnSquares(ConstTensor x, std::span<const double> row_weights = {});
// The values of a row of FP64.
std::vector<double> DoublesOf(ConstTensor row);

// squares[r] = sum_c x_rc^2, rounded to FP32. x: [rows, cols]; squares: [1, rows] FP32 on the device of x,
// which is not waited for.
void RowSquares(ConstTensor x, Tensor squares);

// With y_rc = x_rc col_factors_c: row_r = max(mean_c y_rc^2, least), NaN or infinite where that is;
// col_c = sum_r y_rc^2 / row_r. x: [rows, cols]; col_factors: [cols]; least > 0.
struct ScaledEnergies {
  std::vector<double> row, col;
};
ScaledEnergies MeasureScaled(ConstTensor x, std::span<const double> col_factors, double least);

// [cols] The median of the magnitudes of a column's values that are not 0, the upper one of two in the
// middle; 0 where all are. Exact: the same on every device. x: [rows, cols], no NaN.
std::vector<float> ColumnMedians(ConstTensor x);

// Bins of a histogram of scores, by log2 of a score over the mean of its column.
inline constexpr int kScoreBinsPerOctave = 4;
inline constexpr int kFirstScoreOctave = -32, kLastScoreOctave = 16;
inline constexpr size_t kScoreBins =
    static_cast<size_t>(kLastScoreOctave - kFirstScoreOctave) * kScoreBinsPerOctave;

// [kScoreBins] How many scores importance_r x_rc^2, rounded to FP32, are so large beside the mean of column
// c; what is beyond a last bin counts in it, scores of columns that are all zero in the first. Devices may
// disagree on scores within 1e-14 of the edge of a bin. x: [rows, cols]; importance: [rows], none negative.
std::vector<uint64_t> ScoreHistogram(ConstTensor x, std::span<const float> importance);

}  // namespace mica
