#include "model/head_divergence.h"

#include <algorithm>

#include "base/error.h"
#include "ops/head/head.h"

namespace mica {
namespace {

// Where both heads stay prepared: so little that it fits into memory that was used before.
constexpr size_t kSmallBytes = size_t{48} << 20;

}  // namespace

void OutputDivergence(const OutputHead& reference, ConstTensor reference_x, const OutputHead& model,
                      ConstTensor x, std::span<float> kl, std::span<uint8_t> same_top) {
  const size_t vocab = model.vocab();
  MICA_CHECK(reference.vocab() == vocab);
  MICA_CHECK(reference_x.rows == x.rows);
  MICA_CHECK(kl.size() == x.rows);
  MICA_CHECK(same_top.size() == x.rows);
  const bool small = reference.keeps() && model.keeps() && !model.arithmetic().device.is_cuda();
  const size_t bytes = small ? kSmallBytes : kDivergenceBytes;
  const size_t batch = std::clamp<size_t>(bytes / 2 / (vocab * sizeof(float)), 1, x.rows);
  const Device device = model.arithmetic().device;
  Array p(batch, vocab, DType::kF32, device), q(batch, vocab, DType::kF32, device);
  for (size_t first = 0; first < x.rows; first += batch) {
    const size_t tokens = std::min(batch, x.rows - first);
    reference.Logits(reference_x.Rows(first, tokens), p.view().Rows(0, tokens));
    model.Logits(x.Rows(first, tokens), q.view().Rows(0, tokens));
    Divergence(p.view().Rows(0, tokens), q.view().Rows(0, tokens), kl.subspan(first, tokens),
               same_top.subspan(first, tokens));
  }
}

}  // namespace mica
