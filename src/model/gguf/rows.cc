#include "model/gguf/rows.h"

#include <algorithm>

#include "base/error.h"

namespace mica {

std::vector<uint32_t> GgufRowOrder(const GgufArchitecture& architecture, const ModelConfig& config,
                                   LinearKind kind) {
  if (!architecture.turns_neighbours || (kind != LinearKind::kQ && kind != LinearKind::kK)) return {};
  const size_t heads = kind == LinearKind::kQ ? config.heads : config.kv_heads;
  const size_t half = config.head_dim / 2;
  std::vector<uint32_t> order(heads * config.head_dim);
  for (size_t r = 0; r < order.size(); ++r) {
    const size_t begin = r / config.head_dim * config.head_dim, h = (r - begin) / half, j = (r - begin) % half;
    order[r] = static_cast<uint32_t>(begin + 2 * j + h);
  }
  return order;
}

void ArrangeRows(std::span<const std::byte> rows, std::span<const uint32_t> order,
                 std::span<std::byte> stored) {
  MICA_CHECK(rows.size() == stored.size());
  if (order.empty()) {
    std::copy(rows.begin(), rows.end(), stored.begin());
    return;
  }
  MICA_CHECK(rows.size() % order.size() == 0);
  const size_t bytes = rows.size() / order.size();
  for (size_t r = 0; r < order.size(); ++r)
    std::copy_n(rows.data() + r * bytes, bytes, stored.data() + order[r] * bytes);
}

}  // namespace mica
