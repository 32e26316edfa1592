// A portion of a residual stream on the processor as a matrix.
#pragma once

#include <algorithm>

#include "base/matrix.h"
#include "compress/calibrate/residual_stream.h"

namespace mica {

inline Matrix<float> Loaded(const ResidualStream& stream, size_t portion) {
  const Array loaded = stream.Load(stream.portions()[portion]);
  Matrix<float> matrix(loaded.rows(), loaded.cols());
  std::copy_n(loaded.view().host<float>().data, matrix.size(), matrix.data());
  return matrix;
}

}  // namespace mica
