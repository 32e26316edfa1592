// What the tests of SolveFixed share: settings, widths and shares to solve with, and what every solution must
// be.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "compress/fixed/plan.h"
#include "compress/fixed/solver.h"
#include "format/mask/sparsity_pattern.h"
#include "ops/codes/codes.h"
#include "tests/compress/correlated.h"

namespace mica {

inline constexpr size_t kRows = 37, kCols = 131;  // neither a multiple of a tile nor of a block

// All options of a solution together.
struct FixedOptions : FixedSolverSettings {
  double damping = 0.01;  // of h
};

// Within a width by falling energy.
inline FixedMatrix SolveFixed(MatrixView<const float> w, MatrixView<const float> h,
                              const std::vector<uint8_t>& widths, const FixedOptions& settings,
                              SolverReport* report, MatrixView<float> weights = {}) {
  std::vector<double> energy(h.rows);
  for (size_t j = 0; j < h.rows; ++j) energy[j] = h(j, j);
  const DampedFactor factor(h, ActivationOrder(energy, std::vector<double>(h.rows, 1.0)), settings.damping);
  return SolveFixed(w, h, factor, widths, settings, report, weights);
}

inline FixedOptions Plain() {
  FixedOptions settings;
  settings.refine_passes = 0;
  return settings;
}

inline std::vector<uint8_t> Uniform(size_t cols, int bits) {
  return std::vector<uint8_t>(cols, static_cast<uint8_t>(bits));
}

// Widths of every kind, mixed over the columns, or over the cells of a pattern; of what is left over at the
// end the least.
inline std::vector<uint8_t> Mixed(size_t cols, const SparsityPattern& pattern = {}) {
  const size_t cell = pattern.m > 0 ? static_cast<size_t>(pattern.m) : 1;
  const uint8_t cycle[] = {4, 3, 8, 2, 4, 0, 6, 3, 4, 16, 3};
  std::vector<uint8_t> widths(cols);
  for (size_t j = 0; j < cols; ++j)
    widths[j] = j / cell < cols / cell ? cycle[j / cell % std::size(cycle)] : 0;
  return widths;
}

inline Matrix<float> Decoded(const FixedMatrix& matrix) {
  Matrix<float> out(matrix.rows, matrix.cols, std::numeric_limits<float>::quiet_NaN());
  Decode(matrix, out);
  return out;
}

inline double Loss(MatrixView<const float> w, const FixedMatrix& matrix, MatrixView<const float> h) {
  return LossBetween(w, Decoded(matrix), h);
}

inline uint64_t Zeros(MatrixView<const float> values) {
  uint64_t zeros = 0;
  for (size_t r = 0; r < values.rows; ++r)
    zeros += static_cast<uint64_t>(std::count(values.row(r), values.row(r) + values.cols, 0.0f));
  return zeros;
}

// Everything that a reader relies on.
inline void ExpectValid(const FixedMatrix& m) {
  const std::vector<ScaleGroup> groups = ScaleGroups(m.widths, m.group_size);
  std::vector<uint32_t> sorted = m.order;
  std::sort(sorted.begin(), sorted.end());
  for (uint32_t j = 0; j < m.cols; ++j) ASSERT_EQ(sorted[j], j);
  for (const ScaleGroup& group : groups) {
    for (size_t r = 0; r < m.rows; ++r) {
      if (group.scale_row >= 0) {
        const float scale = ToFloat(m.scales(static_cast<size_t>(group.scale_row), r));
        ASSERT_TRUE(scale > 0 && std::isfinite(scale));
        ASSERT_LT(m.zeros(static_cast<size_t>(group.scale_row), r), 1 << group.bits);
      }
      for (size_t p = group.start; p < group.start + group.count; ++p) {
        const bool kept = group.bits != 0 && (m.mask == MaskKind::kNone || m.keep(r, p) != 0);
        if (!kept) {
          ASSERT_EQ(m.codes(r, p), 0);
        } else if (group.bits < 16) {
          ASSERT_LT(m.codes(r, p), 1 << group.bits);
        }
      }
    }
  }
}

// Shares from 0 to 1, some of them all or nothing.
inline std::vector<double> UnequalShares(size_t cols) {
  std::vector<double> shares(cols);
  for (size_t c = 0; c < cols; ++c)
    shares[c] =
        std::clamp(-0.2 + 1.4 * static_cast<double>(c * 37 % cols) / static_cast<double>(cols), 0.0, 1.0);
  return shares;
}

}  // namespace mica
