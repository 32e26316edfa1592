#include "ops/trellis/start_classes.h"

#include "base/error.h"
#include "base/finite.h"
#include "ops/codes/entropy_model.h"
#include "ops/cuda_ops.h"

namespace mica {

void StartClasses(ConstTensor w, EntropyMatrix& matrix) {
  MICA_CHECK(w.rows == matrix.rows);
  MICA_CHECK(w.cols == matrix.cols);
  if (w.device.is_cuda()) return Cuda().StartClasses(w, matrix);
  CheckFinite(w.host<float>(), "weights");
  GuessClasses(w.host<float>(), matrix);
}

}  // namespace mica
