#include "ops/feedback/stored.h"

#include <algorithm>
#include <cmath>

#include "base/half.h"
#include "base/threads.h"
#include "device/array.h"
#include "ops/cuda_ops.h"
#include "ops/linalg/linalg.h"

namespace mica {
namespace {

// The value that stored position p holds in each row of a tile, times `unit`.
void DecodeColumn(const SolverState& state, const ScaleGroup& group, size_t p, size_t r0, size_t count,
                  float* out, float unit = 1.0f) {
  if (group.bits == 0) {
    std::fill_n(out, count, 0.0f);
    return;
  }
  const uint16_t* codes = state.HostCodes().row(p) + r0;
  if (group.scale_row < 0) {
    for (size_t r = 0; r < count; ++r) out[r] = ToFloat(F16{codes[r]}) * unit;
  } else {
    const auto row = static_cast<size_t>(group.scale_row);
    const ScaleCode* scales = state.HostScales().row(row) + r0;
    const uint8_t* zeros = state.HostZeros().row(row) + r0;
    for (size_t r = 0; r < count; ++r) out[r] = GridValue(codes[r], ToFloat(scales[r]) * unit, zeros[r]);
  }
  if (!state.masked()) return;
  const uint8_t* keep = state.HostKeep().row(p) + r0;
  for (size_t r = 0; r < count; ++r) out[r] = keep[r] != 0 ? out[r] : 0.0f;
}

template <typename T>
void TransposeTiles(MatrixView<const T> by_column, MatrixView<T> by_row) {
  ParallelFor((by_row.rows + kTileRows - 1) / kTileRows, [&](size_t tile) {
    const size_t first = tile * kTileRows, end = std::min(by_row.rows, first + kTileRows);
    for (size_t p = 0; p < by_row.cols; ++p) {
      for (size_t r = first; r < end; ++r) by_row(r, p) = by_column(p, r);
    }
  });
}

}  // namespace

float LargestMagnitude(ConstTensor w) {
  if (w.device.is_cuda()) return Cuda().LargestMagnitude(w);
  const MatrixView<const float> values = w.host<float>();
  std::vector<float> largest(w.rows, 0.0f);
  ParallelFor(w.rows, [&](size_t r) {
    for (size_t c = 0; c < w.cols; ++c) largest[r] = std::max(largest[r], std::abs(values(r, c)));
  });
  return largest.empty() ? 0.0f : *std::max_element(largest.begin(), largest.end());
}

void ScaleRowsAndColumns(ConstTensor m, const std::vector<float>& row, const std::vector<float>& col,
                         Tensor out) {
  MICA_CHECK(out.rows == m.rows);
  MICA_CHECK(out.cols == m.cols);
  MICA_CHECK(col.size() == m.cols);
  MICA_CHECK(row.empty() || row.size() == m.rows);
  if (out.device.is_cuda()) return Cuda().ScaleRowsAndColumns(m, row, col, out);
  const MatrixView<const float> from = m.host<float>();
  const MatrixView<float> to = out.host<float>();
  ParallelFor(m.rows, [&](size_t r) {
    for (size_t c = 0; c < m.cols; ++c) to(r, c) = from(r, c) * col[c] * (row.empty() ? 1.0f : row[r]);
  });
}

std::vector<double> RowProducts(ConstTensor a, ConstTensor b) {
  MICA_CHECK(a.rows == b.rows);
  MICA_CHECK(a.cols == b.cols);
  if (a.device.is_cuda()) return Cuda().RowProducts(a, b);
  const MatrixView<const float> first = a.host<float>(), second = b.host<float>();
  std::vector<double> products(a.rows);
  ParallelFor(a.rows, [&](size_t i) {
    const float *x = first.row(i), *y = second.row(i);
    double sum = 0;
    for (size_t r = 0; r < a.cols; ++r) sum += double{x[r]} * y[r];
    products[i] = sum;
  });
  return products;
}

// The sum over row blocks I of d_I . (H_II d_I + 2 H_I,>I d_>I): half the products, as H is symmetric.
double QuadraticLoss(ConstTensor h, ConstTensor d) {
  MICA_CHECK(h.rows == d.rows);
  MICA_CHECK(h.cols == d.rows);
  if (d.device.is_cuda()) return Cuda().QuadraticLoss(h, d);
  constexpr size_t kRowsAtOnce = 256;
  Array product(std::min(kRowsAtOnce, d.rows), d.cols, DType::kF32);
  double loss = 0;
  for (size_t start = 0; start < d.rows; start += kRowsAtOnce) {
    const size_t count = std::min(kRowsAtOnce, d.rows - start), rest = start + count;
    const Tensor out = product.view().Rows(0, count);
    Gemm(false, false, 1.0f, h.Rows(start, count).Cols(start, count), d.Rows(start, count), 0.0f, out);
    if (rest < d.rows) {
      Gemm(false, false, 2.0f, h.Rows(start, count).Cols(rest, d.rows - rest), d.Rows(rest, d.rows - rest),
           1.0f, out);
    }
    for (const double part : RowProducts(d.Rows(start, count), out)) loss += part;
  }
  return loss;
}

void Residual(const SolverState& state, ConstTensor w, const std::vector<uint32_t>& dead, bool whole,
              Tensor out) {
  MICA_CHECK(w.rows == state.rows);
  MICA_CHECK(w.cols == state.cols);
  MICA_CHECK(out.rows == state.cols);
  MICA_CHECK(out.cols == state.rows);
  if (out.device.is_cuda()) return Cuda().Residual(state, w, dead, whole, out);
  const MatrixView<const float> weights = w.host<float>();
  const MatrixView<float> to = out.host<float>();
  std::vector<uint8_t> is_dead(state.cols, 0);
  for (const uint32_t p : dead) is_dead[p] = 1;
  const float inverse_unit = std::ldexp(1.0f, -state.exponent);
  ParallelFor(state.tiles(), [&](size_t tile) {
    const size_t r0 = tile * kTileRows, count = state.tile_rows(tile);
    float stored[kTileRows] = {};
    for (const ScaleGroup& group : state.plan.groups) {
      for (size_t p = group.start; p < group.start + group.count; ++p) {
        if (!whole) DecodeColumn(state, group, p, r0, count, stored);
        for (size_t r = 0; r < count; ++r) {
          const float value = is_dead[p] != 0 ? 0.0f : weights(r0 + r, state.plan.order[p]) * inverse_unit;
          to(p, r0 + r) = value - stored[r];
        }
      }
    }
  });
}

void StoredWeights(const SolverState& state, Tensor out) {
  MICA_CHECK(out.rows == state.rows);
  MICA_CHECK(out.cols == state.cols);
  if (out.device.is_cuda()) return Cuda().StoredWeights(state, out);
  const MatrixView<float> to = out.host<float>();
  const float unit = std::ldexp(1.0f, state.exponent);
  ParallelFor(state.tiles(), [&](size_t tile) {
    const size_t r0 = tile * kTileRows, count = state.tile_rows(tile);
    float stored[kTileRows] = {};
    for (const ScaleGroup& group : state.plan.groups) {
      for (size_t p = group.start; p < group.start + group.count; ++p) {
        DecodeColumn(state, group, p, r0, count, stored, unit);
        for (size_t r = 0; r < count; ++r) to(r0 + r, state.plan.order[p]) = stored[r];
      }
    }
  });
}

uint64_t CountZeros(const SolverState& state) {
  if (state.device().is_cuda()) return Cuda().CountZeros(state);
  std::vector<uint64_t> zeros(state.tiles(), 0);
  ParallelFor(state.tiles(), [&](size_t tile) {
    float value[kTileRows];
    for (const ScaleGroup& group : state.plan.groups) {
      for (size_t p = group.start; p < group.start + group.count; ++p) {
        DecodeColumn(state, group, p, tile * kTileRows, state.tile_rows(tile), value);
        zeros[tile] += static_cast<uint64_t>(std::count(value, value + state.tile_rows(tile), 0.0f));
      }
    }
  });
  uint64_t total = 0;
  for (const uint64_t part : zeros) total += part;
  return total;
}

void IntegersByRow(ConstTensor by_column, Tensor by_row) {
  MICA_CHECK(by_row.rows == by_column.cols);
  MICA_CHECK(by_row.cols == by_column.rows);
  MICA_CHECK(by_row.dtype == by_column.dtype);
  MICA_CHECK(by_row.device == Device::Cpu());
  if (by_column.device.is_cuda()) return Cuda().IntegersByRow(by_column, by_row);
  if (DTypeBytes(by_row.dtype) == 2) {
    TransposeTiles(IntegersOf<uint16_t>(by_column), IntegersOf<uint16_t>(by_row));
  } else {
    TransposeTiles(IntegersOf<uint8_t>(by_column), IntegersOf<uint8_t>(by_row));
  }
}

}  // namespace mica
