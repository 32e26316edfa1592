#include "ops/packed_product/product_inputs.h"

#include "base/error.h"
#include "ops/activation/activation.h"
#include "ops/norm/norm.h"

namespace mica {

void ProductInputs::Check() const {
  MICA_CHECK(x.dtype == DType::kF32);
  if (kind == Kind::kPlain) return;
  MICA_CHECK(with.dtype == DType::kF32 && with.device == x.device && with.cols == x.cols);
  MICA_CHECK(with.rows == (kind == Kind::kNormed ? 1 : x.rows));
}

void ProductInputs::Write(Tensor out) const {
  Check();
  switch (kind) {
    case Kind::kPlain:
      return Copy(x, out);
    case Kind::kNormed:
      return RmsNorm(x, with, epsilon, out);
    case Kind::kGated:
      return mica::Gated(activation, x, with, out);
  }
}

}  // namespace mica
