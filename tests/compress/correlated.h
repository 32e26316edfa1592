// Synthetic layers for the tests of the solver: Gaussian weights and second moments of correlated inputs.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "base/matrix.h"

namespace mica {

// Weights [rows, cols], standard normal times 0.02.
inline Matrix<float> GaussianWeights(size_t rows, size_t cols, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  Matrix<float> w(rows, cols);
  for (size_t i = 0; i < w.size(); ++i) w.data()[i] = normal(generator);
  return w;
}

// H = E[x x^T] over `tokens` samples of x = D (A z + 0.3 e), z of cols / 4 + 1 shared factors, e independent,
// D a spread of channel sizes of two octaves with one outlier in 50.
inline Matrix<float> CorrelatedMoments(size_t cols, size_t tokens, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  const size_t factors = cols / 4 + 1;
  std::vector<double> loading(cols * factors), size(cols);
  for (double& value : loading) value = normal(generator) / std::sqrt(static_cast<double>(factors));
  for (size_t j = 0; j < cols; ++j) size[j] = std::exp2(normal(generator)) * (j % 50 == 7 ? 8 : 1);
  std::vector<double> sum(cols * cols, 0.0), x(cols), z(factors);
  for (size_t t = 0; t < tokens; ++t) {
    for (double& value : z) value = normal(generator);
    for (size_t j = 0; j < cols; ++j) {
      double value = 0.3 * normal(generator);
      for (size_t f = 0; f < factors; ++f) value += loading[j * factors + f] * z[f];
      x[j] = value * size[j];
    }
    for (size_t i = 0; i < cols; ++i) {
      for (size_t j = 0; j <= i; ++j) sum[i * cols + j] += x[i] * x[j];
    }
  }
  Matrix<float> h(cols, cols);
  for (size_t i = 0; i < cols; ++i) {
    for (size_t j = 0; j <= i; ++j)
      h(i, j) = h(j, i) = static_cast<float>(sum[i * cols + j] / static_cast<double>(tokens));
  }
  return h;
}

// tr((a - b) H (a - b)^T) in FP64.
inline double LossBetween(MatrixView<const float> a, MatrixView<const float> b, MatrixView<const float> h) {
  double loss = 0;
  std::vector<double> d(a.cols);
  for (size_t r = 0; r < a.rows; ++r) {
    for (size_t j = 0; j < a.cols; ++j) d[j] = double{a(r, j)} - b(r, j);
    for (size_t i = 0; i < a.cols; ++i) {
      double sum = 0;
      for (size_t j = 0; j < a.cols; ++j) sum += h(i, j) * d[j];
      loss += d[i] * sum;
    }
  }
  return loss;
}

}  // namespace mica
