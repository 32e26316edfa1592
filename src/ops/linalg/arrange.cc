#include "ops/linalg/arrange.h"

#include <algorithm>

#include "base/error.h"
#include "base/finite.h"
#include "base/threads.h"
#include "device/array.h"
#include "ops/cuda_ops.h"

namespace mica {

void Reverse(Tensor a) {
  if (a.device.is_cuda()) return Cuda().Reverse(a);
  const MatrixView<float> values = a.host<float>();
  ParallelFor((a.rows + 1) / 2, [&](size_t i) {
    float* upper = values.row(i);
    float* lower = values.row(a.rows - 1 - i);
    if (upper == lower) {
      std::reverse(upper, upper + a.cols);
    } else {
      for (size_t j = 0; j < a.cols; ++j) std::swap(upper[j], lower[a.cols - 1 - j]);
    }
  });
}

void ArrangeSymmetric(ConstTensor h, const std::vector<uint32_t>& order, const std::vector<float>& scale,
                      double share, float at_zero, Tensor out) {
  const size_t n = order.size();
  MICA_CHECK(h.rows == n);
  MICA_CHECK(h.cols == n);
  MICA_CHECK(out.rows == n);
  MICA_CHECK(out.cols == n);
  MICA_CHECK(scale.size() == n);
  if (out.device.is_cuda()) return Cuda().ArrangeSymmetric(h, order, scale, share, at_zero, out);
  const MatrixView<const float> from = h.host<float>();
  const MatrixView<float> to = out.host<float>();
  std::vector<uint32_t> zero;
  for (uint32_t p = 0; p < n; ++p) {
    if (scale[p] == 0) zero.push_back(p);
  }
  ParallelFor(n, [&](size_t i) {
    const float* from_row = from.row(order[i]);
    float* row = to.row(i);
    for (size_t j = 0; j < n; ++j) row[j] = from_row[order[j]] * scale[i] * scale[j];
    for (const uint32_t j : zero) row[j] = 0.0f;
    row[i] = static_cast<float>(row[i] * (1 + share));
  });
  for (const uint32_t p : zero) {
    std::fill_n(to.row(p), n, 0.0f);
    to(p, p) = at_zero;
  }
}

void GatherColumns(ConstTensor x, const std::vector<uint32_t>& order, Tensor out) {
  MICA_CHECK(out.rows == x.rows);
  MICA_CHECK(out.cols == order.size());
  if (out.device.is_cuda()) return Cuda().GatherColumns(x, order, out);
  const MatrixView<const float> from = x.host<float>();
  const MatrixView<float> to = out.host<float>();
  ParallelFor(x.rows, [&](size_t r) {
    for (size_t p = 0; p < order.size(); ++p) to(r, p) = from(r, order[p]);
  });
}

void ScaleUpperColumns(const std::vector<float>& factors, Tensor u) {
  MICA_CHECK(u.rows == u.cols);
  MICA_CHECK(factors.size() == u.cols);
  if (u.device.is_cuda()) return Cuda().ScaleUpperColumns(factors, u);
  const MatrixView<float> values = u.host<float>();
  ParallelFor(u.rows, [&](size_t i) {
    float* row = values.row(i);
    for (size_t j = i; j < u.cols; ++j) row[j] *= factors[j];
  });
}

void ScaleValues(float factor, ConstTensor in, Tensor out) {
  MICA_CHECK(in.rows == out.rows);
  MICA_CHECK(in.cols == out.cols);
  if (out.device.is_cuda()) return Cuda().ScaleValues(factor, in, out);
  const MatrixView<const float> from = in.host<float>();
  const MatrixView<float> to = out.host<float>();
  for (size_t r = 0; r < in.rows; ++r) {
    for (size_t c = 0; c < in.cols; ++c) to(r, c) = factor * from(r, c);
  }
}

void ScaleAndAdd(ConstTensor base, float factor, Tensor x) {
  MICA_CHECK(base.rows == x.rows);
  MICA_CHECK(base.cols == x.cols);
  if (x.device.is_cuda()) return Cuda().ScaleAndAdd(base, factor, x);
  const MatrixView<const float> from = base.host<float>();
  const MatrixView<float> to = x.host<float>();
  for (size_t r = 0; r < x.rows; ++r) {
    for (size_t c = 0; c < x.cols; ++c) to(r, c) = from(r, c) + factor * to(r, c);
  }
}

std::vector<float> DiagonalOf(ConstTensor a) {
  MICA_CHECK(a.rows == a.cols);
  if (a.device.is_cuda()) return Cuda().DiagonalOf(a);
  const MatrixView<const float> values = a.host<float>();
  std::vector<float> diagonal(a.rows);
  for (size_t i = 0; i < a.rows; ++i) diagonal[i] = values(i, i);
  return diagonal;
}

std::vector<double> UpperColumnSquares(ConstTensor u) {
  MICA_CHECK(u.rows == u.cols);
  if (u.device.is_cuda()) return Cuda().UpperColumnSquares(u);
  constexpr size_t kColumns = 64;
  const MatrixView<const float> values = u.host<float>();
  std::vector<double> of_column(u.cols);
  ParallelFor((u.cols + kColumns - 1) / kColumns, [&](size_t block) {
    const size_t first = block * kColumns, count = std::min(kColumns, u.cols - first);
    double squares[kColumns] = {};
    for (size_t i = 0; i < first + count; ++i) {
      const float* row = values.row(i) + first;
      for (size_t c = 0; c < count; ++c) squares[c] += double{row[c]} * row[c];
    }
    std::copy_n(squares, count, of_column.data() + first);
  });
  return of_column;
}

void CheckTensorFinite(ConstTensor values, std::string_view what) {
  if (!values.device.is_cuda()) {
    CheckFinite(values.host<float>(), what);
    return;
  }
  const uint64_t index = FirstNotFiniteOn(values);
  if (values.empty() || index == uint64_t{values.rows} * values.cols) return;
  const Array row = CopyTo(Device::Cpu(), values.Rows(index / values.cols, 1));
  const size_t c = index % values.cols;
  Fail("{}: row {}, column {} is {}, expected a finite number", what, index / values.cols, c,
       row.view().host<float>()(0, c));
}

void GatherRows(ConstTensor table, std::span<const int32_t> ids, Tensor out) {
  MICA_CHECK(out.rows == ids.size());
  MICA_CHECK(out.cols == table.cols);
  MICA_CHECK(out.dtype == table.dtype);
  if (out.device.is_cuda()) return Cuda().GatherRows(table, ids, out);
  MICA_CHECK(!table.device.is_cuda());
  const size_t bytes = DTypeBytes(out.dtype);
  for (size_t t = 0; t < ids.size(); ++t)
    std::copy_n(table.data + static_cast<size_t>(ids[t]) * table.stride * bytes, table.cols * bytes,
                out.data + t * out.stride * bytes);
}

uint64_t FirstNotFiniteOn(ConstTensor values) {
  MICA_CHECK(values.device.is_cuda());
  return Cuda().FirstNotFiniteOn(values);
}

}  // namespace mica
