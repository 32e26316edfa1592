#include <cmath>
#include <vector>

#include "base/error.h"
#include "ops/packed_product/trellis_form.h"

namespace mica {

void MultiplyTrellisRef(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first,
                        MatrixView<float> y) {
  const TrellisLayout& layout = w.layout;
  const Trellis& trellis = TrellisOf(layout.states);
  const size_t rows = layout.RowsOf(tile), blocks = layout.blocks();
  MICA_CHECK(y.cols == rows);
  std::vector<uint8_t> machine(blocks * kTrellisBlock, 0), codes(kTrellisBlock);
  std::vector<int> levels(blocks * kTrellisBlock);
  const TrellisWeights::Exceptions& exceptions = w.exceptions[tile];
  const TrellisException* items = exceptions.items.data();
  for (size_t r = 0; r < rows; ++r) {
    for (size_t k = 0; k < blocks; ++k) {
      UnpackRow(layout, tile, k, w.codes.data() + layout.Begin(tile, k), r, codes.data());
      for (size_t i = 0; i < kTrellisBlock; ++i) {
        int& level = levels[k * kTrellisBlock + i];
        uint8_t& state = machine[k * kTrellisBlock + i];
        if (layout.width == 8) {
          level = codes[i] - 128;
          continue;
        }
        const int n = IntegerOfCode(codes[i], layout.width);
        level = trellis.Level(n, trellis.quantiser[state]);
        state = trellis.next[state][static_cast<size_t>(n & 1)];
      }
    }
    const size_t position = tile * layout.tile_rows + r;
    const size_t count = exceptions.CountOf(r);
    for (size_t t = 0; t < y.rows; ++t) {
      const int8_t* values = x.rounded.values.data() + (first + t) * x.rounded.stride;
      float sum = 0;
      for (size_t k = 0; k < blocks; ++k) {
        int of_block = 0;
        for (size_t c = k * kTrellisBlock; c < std::min(layout.cols, (k + 1) * kTrellisBlock); ++c)
          of_block += values[c] * levels[c];
        sum = std::fma(x.rounded.scales[(first + t) * blocks + k], static_cast<float>(of_block), sum);
      }
      float lanes[8] = {};
      for (size_t i = 0; i < w.taken.size(); ++i) {
        lanes[i % 8] = std::fma(static_cast<float>(w.taken_levels(position, i)),
                                x.ValuesOf(first + t)[w.taken[i] * x.value_stride()], lanes[i % 8]);
      }
      size_t col = 0;
      for (size_t i = 0; i < count; ++i) {
        col += static_cast<size_t>(ColsOf(items[i]));
        lanes[i % 8] = std::fma(static_cast<float>(UnitsOf(items[i]) * w.exception_unit),
                                x.ValuesOf(first + t)[col * x.value_stride()], lanes[i % 8]);
      }
      sum +=
          ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
      y(t, r) = w.row_scale[position] * sum;
    }
    items += count;
  }
}

}  // namespace mica
