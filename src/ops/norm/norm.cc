#include "ops/norm/norm.h"

#include "base/error.h"
#include "ops/cuda_ops.h"
#include "ops/tile/dispatch.h"
#include "ops/tile/for_rows.h"
#include "ops/tile/kernels.h"

namespace mica {

void RmsNorm(ConstTensor x, ConstTensor weight, float epsilon, Tensor out) {
  MICA_CHECK(out.rows == x.rows);
  MICA_CHECK(out.cols == x.cols);
  MICA_CHECK(weight.rows == 1);
  MICA_CHECK(weight.cols == x.cols);
  if (x.device.is_cuda()) return Cuda().RmsNorm(x, weight, epsilon, out);
  const MatrixView<const float> in = x.host<float>(), weights = weight.host<float>();
  DispatchOperand(out.dtype, [&](auto type) {
    using T = decltype(type);
    const MatrixView<T> normed = out.host<T>();
    const auto norm = Kernels(Backend::kCpu).of<T>().rms_norm;
    ForRows(in.rows, [&](size_t t) { norm(in.row(t), weights.data, in.cols, epsilon, normed.row(t)); });
  });
}

void AddRmsNormGradient(ConstTensor x, ConstTensor weight, ConstTensor y_gradient, float epsilon,
                        Tensor gradient) {
  MICA_CHECK(weight.rows == 1);
  MICA_CHECK(weight.cols == x.cols);
  MICA_CHECK(y_gradient.rows == x.rows);
  MICA_CHECK(y_gradient.cols == x.cols);
  MICA_CHECK(gradient.rows == x.rows);
  MICA_CHECK(gradient.cols == x.cols);
  if (x.device.is_cuda()) return Cuda().AddRmsNormGradient(x, weight, y_gradient, epsilon, gradient);
  const MatrixView<const float> in = x.host<float>(), weights = weight.host<float>(),
                                of_y = y_gradient.host<float>();
  const MatrixView<float> of_x = gradient.host<float>();
  const auto add = Kernels(Backend::kCpu).add_rms_norm_gradient;
  ForRows(in.rows,
          [&](size_t t) { add(in.row(t), weights.data, of_y.row(t), in.cols, epsilon, of_x.row(t)); });
}

}  // namespace mica
