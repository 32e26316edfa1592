// The cpu table: row functions through Highway (cpu_rows.cc), products through oneDNN (product.cc), attention
// made of both.
#include "ops/attention/attention.h"
#include "ops/tile/tables.h"
#include "ops/tile/tile_product.h"

namespace mica {

const KernelTable& CpuKernels() {
  static const KernelTable table = [] {
    KernelTable filled{};
    filled.name = "cpu";
    FillRowFunctions(&filled);
    filled.product_f32 = TileProduct;
    filled.product_bf16 = TileProduct;
    filled.attention_f32 = BlockedAttention;
    filled.attention_bf16 = BlockedAttention;
    filled.attention_gradient_f32 = BlockedAttentionGradient;
    filled.attention_gradient_bf16 = BlockedAttentionGradient;
    return filled;
  }();
  return table;
}

const KernelTable& Kernels(Backend backend) { return backend == Backend::kRef ? RefKernels() : CpuKernels(); }

}  // namespace mica
