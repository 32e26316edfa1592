#include "ops/census/census.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/threads.h"
#include "device/array.h"
#include "ops/cuda_ops.h"
#include "ops/tile/for_rows.h"

namespace mica {
namespace {

constexpr size_t kColumns = 64;  // of one work item: whole cache lines of a row

// Calls body(first, count) for blocks of columns, spread over the threads.
template <typename Body>
void ForColumns(size_t cols, const Body& body) {
  ParallelFor((cols + kColumns - 1) / kColumns, [&](size_t block) {
    const size_t first = block * kColumns;
    body(first, std::min(kColumns, cols - first));
  });
}

// sums[c] += term(r, c), rows in rising order.
template <typename Term>
void AddOverRows(size_t rows, size_t cols, double* sums, const Term& term) {
  ForColumns(cols, [&](size_t first, size_t count) {
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = first; c < first + count; ++c) sums[c] += term(r, c);
    }
  });
}

double* Doubles(Tensor row) {
  MICA_CHECK(row.dtype == DType::kF64);
  MICA_CHECK(row.device == Device::Cpu());
  return reinterpret_cast<double*>(row.data);
}

Tensor RowOf(std::vector<double>& values) {
  return {reinterpret_cast<std::byte*>(values.data()),
          1,
          values.size(),
          values.size(),
          DType::kF64,
          Device::Cpu()};
}

// The upper one of two in the middle; changes the order.
float Median(std::vector<float>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

size_t ScoreBin(double ratio) {
  const double position = ratio > 0 ? (std::log2(ratio) - kFirstScoreOctave) * kScoreBinsPerOctave : 0.0;
  return static_cast<size_t>(std::clamp(position, 0.0, static_cast<double>(kScoreBins - 1)));
}

}  // namespace

void AddColumnSquares(ConstTensor x, std::span<const double> row_weights, Tensor sums) {
  MICA_CHECK(row_weights.empty() || row_weights.size() == x.rows);
  MICA_CHECK(sums.rows == 1);
  MICA_CHECK(sums.cols == x.cols);
  MICA_CHECK(sums.device == x.device);
  if (x.empty()) return;
  if (x.device.is_cuda()) return Cuda().AddColumnSquares(x, row_weights, sums);
  const MatrixView<const float> in = x.host<float>();
  if (row_weights.empty()) {
    AddOverRows(in.rows, in.cols, Doubles(sums),
                [&](size_t r, size_t c) { return static_cast<double>(in(r, c)) * in(r, c); });
  } else {
    AddOverRows(in.rows, in.cols, Doubles(sums),
                [&](size_t r, size_t c) { return row_weights[r] * in(r, c) * in(r, c); });
  }
}

std::vector<double> ColumnSquares(ConstTensor x, std::span<const double> row_weights) {
  Array sums(1, x.cols, DType::kF64, x.device);
  FillZero(sums.view());
  AddColumnSquares(x, row_weights, sums.view());
  return DoublesOf(sums.view());
}

std::vector<double> DoublesOf(ConstTensor row) {
  MICA_CHECK(row.rows == 1);
  std::vector<double> values(row.cols);
  Copy(row, RowOf(values));
  return values;
}

void RowSquares(ConstTensor x, Tensor squares) {
  MICA_CHECK(squares.rows == 1);
  MICA_CHECK(squares.cols == x.rows);
  MICA_CHECK(squares.device == x.device);
  if (x.device.is_cuda()) return Cuda().RowSquares(x, squares);
  const MatrixView<const float> in = x.host<float>();
  float* out = squares.host<float>().data;
  ForRows(in.rows, [&](size_t r) {
    const float* row = in.row(r);
    double sum = 0;
    for (size_t c = 0; c < in.cols; ++c) sum += static_cast<double>(row[c]) * row[c];
    out[r] = static_cast<float>(sum);
  });
}

ScaledEnergies MeasureScaled(ConstTensor x, std::span<const double> col_factors, double least) {
  MICA_CHECK(col_factors.size() == x.cols);
  if (!x.empty() && x.device.is_cuda()) return Cuda().MeasureScaled(x, col_factors, least);
  const MatrixView<const float> in = x.host<float>();
  ScaledEnergies energies{std::vector<double>(in.rows), std::vector<double>(in.cols, 0.0)};
  ForRows(in.rows, [&](size_t r) {
    double sum = 0;
    for (size_t c = 0; c < in.cols; ++c) {
      const double y = in(r, c) * col_factors[c];
      sum += y * y;
    }
    energies.row[r] = std::max(sum / static_cast<double>(in.cols), least);
  });
  AddOverRows(in.rows, in.cols, energies.col.data(), [&](size_t r, size_t c) {
    const double y = in(r, c) * col_factors[c];
    return y * y / energies.row[r];
  });
  return energies;
}

std::vector<float> ColumnMedians(ConstTensor x) {
  if (!x.empty() && x.device.is_cuda()) return Cuda().ColumnMedians(x);
  const MatrixView<const float> in = x.host<float>();
  std::vector<float> medians(in.cols, 0.0f);
  ForColumns(in.cols, [&](size_t first, size_t count) {
    std::vector<std::vector<float>> sizes(count);
    for (size_t r = 0; r < in.rows; ++r) {
      const float* row = in.row(r) + first;
      for (size_t c = 0; c < count; ++c) {
        if (row[c] != 0) sizes[c].push_back(std::abs(row[c]));
      }
    }
    for (size_t c = 0; c < count; ++c) {
      if (!sizes[c].empty()) medians[first + c] = Median(sizes[c]);
    }
  });
  return medians;
}

std::vector<uint64_t> ScoreHistogram(ConstTensor x, std::span<const float> importance) {
  MICA_CHECK(importance.size() == x.rows);
  if (!x.empty() && x.device.is_cuda()) return Cuda().ScoreHistogram(x, importance);
  const MatrixView<const float> in = x.host<float>();
  const auto score = [&](size_t r, size_t c) { return importance[r] * in(r, c) * in(r, c); };
  std::vector<double> mean(in.cols, 0.0);
  AddOverRows(in.rows, in.cols, mean.data(), score);
  for (double& m : mean) m /= static_cast<double>(in.rows);
  // Rows in parallel, counts of whole numbers: the same for any number of threads.
  constexpr size_t kRowBlock = 64;
  const size_t blocks = (in.rows + kRowBlock - 1) / kRowBlock;
  std::vector<std::vector<uint64_t>> parts(blocks, std::vector<uint64_t>(kScoreBins, 0));
  ParallelFor(blocks, [&](size_t block) {
    for (size_t r = block * kRowBlock; r < std::min(in.rows, (block + 1) * kRowBlock); ++r) {
      for (size_t c = 0; c < in.cols; ++c) ++parts[block][ScoreBin(score(r, c) / mean[c])];
    }
  });
  std::vector<uint64_t> counts(kScoreBins, 0);
  for (const std::vector<uint64_t>& part : parts) {
    for (size_t bin = 0; bin < kScoreBins; ++bin) counts[bin] += part[bin];
  }
  return counts;
}

}  // namespace mica
