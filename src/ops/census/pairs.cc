#include "ops/census/pairs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/threads.h"
#include "ops/census/symmetric.h"
#include "ops/cuda_ops.h"
#include "ops/linalg/arrange.h"

namespace mica {
namespace {

// H_jj is rounded to FP32: below this share of it a variance is rounding noise.
constexpr double kLeastVariance = 1e-6;

// sum_j a[j] b[j] in eight interleaved sums, which vector units can take at once.
double Dot(const float* a, const double* b, size_t n) {
  constexpr size_t kSums = 8;
  double sums[kSums] = {};
  size_t j = 0;
  for (; j + kSums <= n; j += kSums) {
    for (size_t s = 0; s < kSums; ++s) sums[s] += a[j + s] * b[j + s];
  }
  for (; j < n; ++j) sums[0] += a[j] * b[j];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

}  // namespace

std::vector<double> InverseDeviations(ConstTensor second_moment, const std::vector<double>& mean) {
  const std::vector<float> diagonal = DiagonalOf(second_moment);
  MICA_CHECK(mean.size() == diagonal.size());
  std::vector<double> inverse(mean.size());
  for (size_t j = 0; j < mean.size(); ++j) {
    const double energy = diagonal[j];
    const double variance = energy - mean[j] * mean[j];
    inverse[j] = variance > kLeastVariance * energy ? 1.0 / std::sqrt(variance) : 0.0;
  }
  return inverse;
}

void GaussianInformation(ConstTensor second_moment, const std::vector<double>& mean, Tensor out) {
  const size_t n = second_moment.rows;
  MICA_CHECK(second_moment.cols == n);
  MICA_CHECK(mean.size() == n);
  MICA_CHECK(out.rows == n);
  MICA_CHECK(out.cols == n);
  MICA_CHECK(out.device == second_moment.device);
  if (n > 0 && out.device.is_cuda()) return Cuda().GaussianInformation(second_moment, mean, out);
  const MatrixView<const float> h = second_moment.host<float>();
  const std::vector<double> inverse_deviation = InverseDeviations(second_moment, mean);
  FillSymmetric(out.host<float>(), [&](size_t i, size_t j) {
    const double covariance = h(i, j) - mean[i] * mean[j];
    const double rho = std::min(std::abs(covariance * inverse_deviation[i] * inverse_deviation[j]),
                                1.0 - kCorrelationMargin);
    return static_cast<float>(-0.5 * std::log((1.0 - rho) * (1.0 + rho)));
  });
}

void NormaliseInformation(Tensor information) {
  if (!information.empty() && information.device.is_cuda()) return Cuda().NormaliseInformation(information);
  const MatrixView<float> values = information.host<float>();
  ParallelFor(values.rows, [&](size_t i) {
    for (size_t j = 0; j < values.cols; ++j) {
      float& value = values(i, j);
      value = static_cast<float>(std::sqrt(-std::expm1(-2.0 * std::max(0.0f, value))));
    }
  });
}

double MeanOverPairs(ConstTensor x) {
  const size_t n = x.rows;
  MICA_CHECK(x.cols == n);
  if (n < 2) return 0;
  std::vector<double> of_row(n);
  if (x.device.is_cuda()) {
    MultiplyOffDiagonal(x, std::vector<double>(n, 1.0), of_row);
  } else {
    const MatrixView<const float> values = x.host<float>();
    ParallelFor(n, [&](size_t i) {
      of_row[i] = std::accumulate(values.row(i), values.row(i) + n, 0.0) - values(i, i);
    });
  }
  return std::accumulate(of_row.begin(), of_row.end(), 0.0) /
         (static_cast<double>(n) * static_cast<double>(n - 1));
}

void MultiplyOffDiagonal(ConstTensor a, std::span<const double> x, std::span<double> y) {
  const size_t n = a.rows;
  MICA_CHECK(a.cols == n);
  MICA_CHECK(x.size() == n);
  MICA_CHECK(y.size() == n);
  if (n > 0 && a.device.is_cuda()) return Cuda().MultiplyOffDiagonal(a, x, y);
  const MatrixView<const float> values = a.host<float>();
  constexpr size_t kRows = 64;
  ParallelFor((n + kRows - 1) / kRows, [&](size_t block) {
    for (size_t i = block * kRows; i < std::min(n, (block + 1) * kRows); ++i)
      y[i] = Dot(values.row(i), x.data(), n) - values(i, i) * x[i];
  });
}

Matrix<double> GroupDistances(ConstTensor a, const std::vector<uint32_t>& rows,
                              const std::vector<uint32_t>& group, size_t groups) {
  MICA_CHECK(a.cols == a.rows);
  MICA_CHECK(group.size() == a.cols);
  for (const uint32_t row : rows) MICA_CHECK(row < a.rows);
  for (const uint32_t g : group) MICA_CHECK(g < groups);
  if (!rows.empty() && groups > 0 && a.device.is_cuda()) return Cuda().GroupDistances(a, rows, group, groups);
  const MatrixView<const float> values = a.host<float>();
  Matrix<double> distances(rows.size(), groups);
  ParallelFor(rows.size(), [&](size_t r) {
    std::vector<double> sum(groups, 0.0);
    for (size_t j = 0; j < group.size(); ++j) sum[group[j]] += 1.0 - values(rows[r], j);
    std::copy(sum.begin(), sum.end(), distances.row(r));
  });
  return distances;
}

}  // namespace mica
