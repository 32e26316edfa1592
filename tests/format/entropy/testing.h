// Random matrices of coding `entropy` for tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "format/entropy/entropy_matrix.h"

namespace mica {

// Integers of a Gaussian whose deviation is a product of a row and a column factor around 2^octaves, and
// steps that go against them, as a solver's do. `entropy` receives the exact entropy of the distribution they
// were drawn from, in bits.
inline EntropyMatrix SeparableGaussian(size_t rows, size_t cols, double octaves, unsigned seed,
                                       double* entropy) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  EntropyMatrix matrix;
  matrix.rows = rows;
  matrix.cols = cols;
  matrix.n = Matrix<int16_t>(rows, cols);
  std::vector<double> row(rows), col(cols);
  for (double& scale : row) {
    matrix.row_step.push_back(static_cast<int16_t>(std::lround(-60 + 3 * normal(random))));
    scale = std::exp2(octaves - (matrix.row_step.back() + 60) / 8.0 + 0.1 * normal(random));
  }
  for (double& scale : col) {
    matrix.col_step.push_back(static_cast<int16_t>(std::lround(3 * normal(random))));
    scale = std::exp2(-matrix.col_step.back() / 8.0 + 0.1 * normal(random));
  }
  *entropy = 0;
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < cols; ++c) {
      const double deviation = row[r] * col[c];
      const int n = static_cast<int>(std::lround(deviation * normal(random)));
      matrix.n(r, c) = static_cast<int16_t>(n);
      const auto below = [&](double x) { return 0.5 * std::erfc(-x / deviation / std::sqrt(2.0)); };
      *entropy -= std::log2(std::max(1e-300, below(0.5 - std::abs(n)) - below(-0.5 - std::abs(n))));
    }
  }
  return matrix;
}

// Integers without structure, deviation 2^octaves, some rows and columns of zeros, random steps.
inline EntropyMatrix RandomEntropy(size_t rows, size_t cols, int states, double octaves, unsigned seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  EntropyMatrix matrix;
  matrix.rows = rows;
  matrix.cols = cols;
  matrix.states = states;
  matrix.n = Matrix<int16_t>(rows, cols);
  for (size_t r = 0; r < rows; ++r) {
    matrix.row_step.push_back(static_cast<int16_t>(random() % 40) - 80);
    for (size_t c = 0; c < cols; ++c) {
      const double n = std::exp2(octaves) * normal(random);
      matrix.n(r, c) = static_cast<int16_t>(
          r % 9 == 4 || c % 11 == 7 ? 0.0 : std::clamp(std::round(n), -32767.0, 32767.0));
    }
  }
  for (size_t c = 0; c < cols; ++c) matrix.col_step.push_back(static_cast<int16_t>(random() % 20));
  return matrix;
}

}  // namespace mica
