#include <cmath>

#include "base/error.h"
#include "ops/packed_product/fixed_form.h"

namespace mica {

void MultiplyFixedRef(const FixedWeights& w, size_t tile, const DigitInputs& x, MatrixView<float> y) {
  const FixedLayout& layout = w.layout;
  const size_t rows = layout.RowsOf(tile), blocks = layout.blocks.size();
  MICA_CHECK(y.cols == kFixedTile && x.blocks == blocks);
  int16_t integers[kFixedBlock];
  for (size_t r = 0; r < rows; ++r) {
    for (size_t t = 0; t < y.rows; ++t) y(t, r) = 0;
    for (size_t k = 0; k < blocks; ++k) {
      const FixedBlock& block = layout.blocks[k];
      const uint8_t* const begin = w.Block(tile, k);
      UnpackBlockRow(layout, block, rows, begin, r, integers);
      const float scale = ToFloat(ScaleCode{FixedBlockBytes(block, rows, begin).scales[r]});
      for (size_t t = 0; t < y.rows; ++t) {
        const int8_t* const values = x.Values(t, k);
        int sum = 0;
        for (size_t j = 0; j < block.count; ++j)
          sum += integers[j] * (254 * values[j] + values[kDigitBlock + j]);
        y(t, r) = std::fma(scale * x.scales[t * blocks + k], static_cast<float>(sum), y(t, r));
      }
    }
  }
}

}  // namespace mica
