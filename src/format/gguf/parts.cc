#include "format/gguf/parts.h"

#include "format/gguf/decode.h"

namespace mica {

void DecodeRows(const GgufParts& parts, size_t first_row, MatrixView<float> out) {
  const size_t bytes = RowBytes(parts.type, parts.cols);
  for (size_t r = 0; r < out.rows; ++r)
    DecodeRow(parts.type, parts.blocks.subspan((first_row + r) * bytes, bytes), {out.row(r), out.cols});
}

}  // namespace mica
