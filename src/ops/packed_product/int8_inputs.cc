#include "ops/packed_product/int8_inputs.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace mica {

void RoundToInt8(MatrixView<const float> x, std::span<const float> factors, std::span<const uint32_t> order,
                 std::span<const uint32_t> begin, size_t stride, Int8Inputs& out) {
  MICA_CHECK(begin.size() >= 2);
  const size_t blocks = begin.size() - 1, cols = begin[blocks];
  MICA_CHECK(stride >= cols);
  out.stride = stride;
  out.values.assign(x.rows * stride, 0);
  out.scales.resize(x.rows * blocks);
  out.sums.resize(x.rows * blocks);
  std::vector<float> scaled(cols);
  for (size_t t = 0; t < x.rows; ++t) {
    for (size_t c = 0; c < cols; ++c) {
      const float value = x.row(t)[order.empty() ? c : order[c]];
      scaled[c] = factors.empty() ? value : value * factors[c];
    }
    for (size_t b = 0; b < blocks; ++b) {
      float largest = 0;
      for (size_t c = begin[b]; c < begin[b + 1]; ++c) largest = std::max(largest, std::abs(scaled[c]));
      const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
      int32_t sum = 0;
      for (size_t c = begin[b]; c < begin[b + 1]; ++c) {
        const int value = static_cast<int>(std::nearbyint(scaled[c] * inverse));
        out.values[t * stride + c] = static_cast<int8_t>(value);
        sum += value;
      }
      out.scales[t * blocks + b] = largest / 127.0f;
      out.sums[t * blocks + b] = sum;
    }
  }
}

}  // namespace mica
