#include "ops/convert/convert.h"

#include <type_traits>

#include "base/error.h"
#include "device/scratch.h"
#include "ops/cuda_ops.h"
#include "ops/tile/dispatch.h"
#include "ops/tile/for_rows.h"
#include "ops/tile/kernels.h"

namespace mica {
namespace {

// Calls body(rows of in, rows of out) with the types of both.
template <typename Body>
void WithTypes(const ConstTensor& in, const Tensor& out, const Body& body) {
  MICA_CHECK(in.rows == out.rows);
  MICA_CHECK(in.cols == out.cols);
  DispatchFloat(in.dtype, [&](auto from) {
    DispatchFloat(out.dtype, [&](auto to) { body(in.host<decltype(from)>(), out.host<decltype(to)>()); });
  });
}

// The row in FP32: itself, or a copy in memory of this thread.
const float* Wide(const float* row, size_t) { return row; }
template <typename T>
const float* Wide(const T* row, size_t n) {
  float* wide = Scratch<float, 60>(n);
  Kernels(Backend::kCpu).of<T>().to_f32(row, n, wide);
  return wide;
}

}  // namespace

void Convert(ConstTensor in, Tensor out) {
  if (in.device.is_cuda()) {
    MICA_CHECK(in.rows == out.rows);
    MICA_CHECK(in.cols == out.cols);
    return Cuda().Convert(in, out);
  }
  WithTypes(in, out, [](auto from, auto to) {
    using In = std::remove_cvref_t<decltype(from(0, 0))>;
    using Out = std::remove_cvref_t<decltype(to(0, 0))>;
    const KernelTable& kernels = Kernels(Backend::kCpu);
    ForRows(from.rows, [&](size_t r) {
      if constexpr (std::is_same_v<Out, float>) {
        kernels.of<In>().to_f32(from.row(r), from.cols, to.row(r));
      } else {
        kernels.of<Out>().from_f32(Wide(from.row(r), from.cols), from.cols, to.row(r));
      }
    });
  });
}

void ConvertScaled(ConstTensor in, ConstTensor factors, Tensor out) {
  MICA_CHECK(factors.rows == 1);
  MICA_CHECK(factors.cols == in.rows);
  if (in.device.is_cuda()) {
    MICA_CHECK(in.rows == out.rows);
    MICA_CHECK(in.cols == out.cols);
    return Cuda().ConvertScaled(in, factors, out);
  }
  const float* factor = factors.host<float>().data;
  WithTypes(in, out, [&](auto from, auto to) {
    using Out = std::remove_cvref_t<decltype(to(0, 0))>;
    const KernelTable& kernels = Kernels(Backend::kCpu);
    ForRows(from.rows, [&](size_t r) {
      float* scaled = Scratch<float, 61>(from.cols);
      kernels.f32.from_f32(Wide(from.row(r), from.cols), from.cols, scaled);
      kernels.scale(factor[r], from.cols, scaled);
      kernels.of<Out>().from_f32(scaled, from.cols, to.row(r));
    });
  });
}

ConstTensor Converted(ConstTensor in, DType dtype, Array& buffer) {
  if (in.dtype == dtype) return in;
  buffer.Resize(in.rows, in.cols, dtype, in.device);
  Convert(in, buffer.view());
  return buffer.view();
}

}  // namespace mica
